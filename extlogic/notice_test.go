package extlogic

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
)

func (w *world) notice(n *event.SystemNotice) {
	w.Helper()
	payload, err := n.Marshal(nil)
	if err != nil {
		w.Fatal(err)
	}
	w.publish(mq.TopicSystem, payload)
}

func order() *event.SystemNotice {
	return &event.SystemNotice{Tenant: "demo", Channel: "orders", Uid: "alice", ClientMsgId: "m1", Text: "on its way", Data: []byte(`{"order":7}`)}
}

func TestZZ09NoticeOfTheQueueIsSentAsTheChannel(t *testing.T) {
	bubble(t, func(w *world) {
		defer w.start()()
		w.notice(order())
		if len(w.logic.asked) != 1 {
			t.Fatalf("%d commands", len(w.logic.asked))
		}
		req := w.logic.asked[0]
		var send im.Send
		if err := send.Unmarshal(req.Body); err != nil {
			t.Fatal(err)
		}
		if req.Tenant != "demo" || req.Uid != "alice" || im.Cmd(req.Cmd) != im.Cmd_SEND || !req.System {
			t.Errorf("command %+v", req)
		}
		if send.Conv != "s:orders:alice" || send.ClientMsgId != "m1" || send.Kind != im.Kind_SYSTEM || send.Text != "on its way" ||
			string(send.Data) != `{"order":7}` || send.Attempt != 0 { // 0: looked up on disk, whoever tried before
			t.Errorf("message %+v", &send)
		}
	})
}

func TestZZ03NoticeIsRepeatedUntilItIsSent(t *testing.T) {
	for name, failed := range map[string]func() (*tier.ExecuteReply, error){
		"no logic":        func() (*tier.ExecuteReply, error) { return nil, code.Errorf(code.Unavailable, "refused") },
		"overloaded":      func() (*tier.ExecuteReply, error) { return &tier.ExecuteReply{Code: uint32(code.Overloaded)}, nil },
		"unknown outcome": func() (*tier.ExecuteReply, error) { return &tier.ExecuteReply{Code: uint32(code.UnknownOutcome)}, nil },
		"foreign error":   func() (*tier.ExecuteReply, error) { return nil, errors.New("cut") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				up := time.Now().Add(2 * time.Minute)
				w.logic.answer = func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
					if time.Now().Before(up) {
						return failed()
					}
					return &tier.ExecuteReply{}, nil
				}
				defer w.start()()
				w.notice(order())
				time.Sleep(4 * time.Minute)
				synctest.Wait()
				if n := w.dead(mq.TopicSystem, groupNotice); n != 0 || len(w.logic.asked) < 3 {
					t.Errorf("%d dead letters after %d commands", n, len(w.logic.asked))
				}
				for _, req := range w.logic.asked {
					var send im.Send
					if err := send.Unmarshal(req.Body); err != nil || send.ClientMsgId != "m1" {
						t.Fatalf("command %+v, %v", req, err)
					}
				}
			})
		})
	}
}

func TestNoticeThatCannotBeSentIsADeadLetter(t *testing.T) {
	bubble(t, func(w *world) {
		w.logic.answer = func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
			return &tier.ExecuteReply{Code: uint32(code.Conflict), Message: "another body"}, nil
		}
		defer w.start()()
		w.notice(order())
		w.notice(&event.SystemNotice{Tenant: "demo", Channel: "no/name", Uid: "alice", ClientMsgId: "m1"})
		w.notice(&event.SystemNotice{Tenant: "demo", Channel: "orders", Uid: "alice"})
		w.publish(mq.TopicSystem, []byte("\xff"))
		if n := w.dead(mq.TopicSystem, groupNotice); n != 4 || len(w.logic.asked) != 1 {
			t.Errorf("%d dead letters, want 4; %d commands, want 1", n, len(w.logic.asked))
		}
	})
}
