package logic

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// platform answers what its function says and keeps what it was asked.
type platform struct {
	mu     sync.Mutex
	asked  []string
	answer func(*tier.CallRequest) (*tier.CallReply, error)
}

func (p *platform) Call(ctx context.Context, req *tier.CallRequest) (*tier.CallReply, error) {
	p.mu.Lock()
	p.asked = append(p.asked, req.Name+" "+string(req.Data))
	answer := p.answer
	p.mu.Unlock()
	return answer(req)
}

func (p *platform) say(answer func(*tier.CallRequest) (*tier.CallReply, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func allow(*tier.CallRequest) (*tier.CallReply, error) {
	return &tier.CallReply{Data: []byte("{}")}, nil
}

func asking(p *platform, refuse bool) option {
	return func(w *world, cfg *Config) {
		w.services, cfg.Hooks.BeforeSend.Call, cfg.Hooks.BeforeSend.Refuse = p, "relation.check", refuse
	}
}

func TestZZ11ThePlatformIsAskedBeforeAMessageIsStored(t *testing.T) {
	p := &platform{answer: allow}
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		outcome := func() (code.Code, string) {
			for _, d := range alice.frames() {
				if im.Cmd(d.Cmd) != im.Cmd_SEND || d.Status == 0 {
					continue
				}
				var e im.Error
				if err := e.Unmarshal(d.Body); err != nil {
					t.Fatal(err)
				}
				return code.Code(d.Status), e.Message
			}
			return code.OK, ""
		}
		for i, c := range []struct {
			name   string
			answer func(*tier.CallRequest) (*tier.CallReply, error)
			code   code.Code
			text   string
		}{
			{"allowed", allow, code.OK, ""},
			{"denied", func(*tier.CallRequest) (*tier.CallReply, error) {
				return &tier.CallReply{Data: []byte(`{"denied":true,"reason":"no such relation"}`)}, nil
			}, code.Denied, "no such relation"},
			{"without a reason", func(*tier.CallRequest) (*tier.CallReply, error) {
				return &tier.CallReply{Data: []byte(`{"denied":true}`)}, nil
			}, code.Denied, "does not allow"},
			{"refused", func(*tier.CallRequest) (*tier.CallReply, error) {
				return &tier.CallReply{Code: uint32(code.CallRefused), Message: "Stranger: go away"}, nil
			}, code.Denied, "go away"},
			{"down", func(*tier.CallRequest) (*tier.CallReply, error) {
				return &tier.CallReply{Code: uint32(code.Unavailable)}, nil
			}, code.OK, ""},
			{"jtransit lost", func(*tier.CallRequest) (*tier.CallReply, error) { return nil, errors.New("gone") }, code.OK, ""},
			{"no JSON", func(*tier.CallRequest) (*tier.CallReply, error) {
				return &tier.CallReply{Data: []byte(`[`)}, nil
			}, code.OK, ""},
		} {
			p.say(c.answer)
			alice.send("bob", "m"+strconv.Itoa(i), "hello")
			time.Sleep(time.Second)
			got, text := outcome()
			equal(t, c.name, got.Name(), c.code.Name())
			equal(t, c.name+": text", strings.Contains(text, c.text), true)
		}
		equal(t, "asked", p.asked[0], `relation.check {"conv":"p:alice:bob","from":"alice","kind":1,"to":"bob"}`)
	}, asking(p, false))
}

func TestZZ11NoMessageIsStoredWithoutThePlatformsWordWhereSoConfigured(t *testing.T) {
	p := &platform{answer: func(*tier.CallRequest) (*tier.CallReply, error) { return nil, errors.New("gone") }}
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		time.Sleep(time.Second)
		refused := errorOf(t, alice.frames(), im.Cmd_SEND)
		equal(t, "refused", code.Code(refused.Code).Name(), code.Unavailable.Name())
		equal(t, "retryable", refused.Retryable && refused.RetryAfterMs > 0, true)
		// Internal systems are not asked for.
		body, _ := (&im.Send{ClientMsgId: "n1", To: "bob", Text: "x", Kind: im.Kind_TEXT}).Marshal(nil)
		reply, err := w.logics[0].Execute(context.Background(), &tier.ExecuteRequest{Tenant: tenant, Uid: "alice", Cmd: uint32(im.Cmd_SEND), Body: body, System: true})
		if err != nil || reply.Code != 0 {
			t.Errorf("of a system: %+v, %v", reply, err)
		}
	}, asking(p, true))
}

// A message that was stored before the platform changed its mind is answered as stored. Seen
// to fail with the denial answered without deny.
func TestR29ThePlatformsDenialLooksForAnEarlierCommitFirst(t *testing.T) {
	p := &platform{answer: allow}
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		time.Sleep(time.Second)
		equal(t, "first", one(t, alice.frames(), im.Cmd_SEND).Status, 0)
		p.say(func(*tier.CallRequest) (*tier.CallReply, error) {
			return &tier.CallReply{Data: []byte(`{"denied":true}`)}, nil
		})
		body, _ := (&im.Send{ClientMsgId: "m1", Attempt: 2, To: "bob", Text: "hello"}).Marshal(nil)
		alice.up(&tier.Uplink{Cmd: uint32(im.Cmd_SEND), Seq: 1, Body: body})
		time.Sleep(time.Second)
		ack := decode(t, one(t, alice.frames(), im.Cmd_SEND), &im.SendAck{})
		equal(t, "duplicate", ack.Duplicate && ack.Seq == 1, true)
	}, asking(p, false))
}

// A platform that does not answer keeps its user's messages in their order, other commands
// at once, and no message beyond its time.
func TestZZ11ASlowPlatformHoldsUpOnlyMessages(t *testing.T) {
	p := &platform{}
	p.say(func(*tier.CallRequest) (*tier.CallReply, error) {
		time.Sleep(100 * time.Millisecond)
		return allow(nil)
	})
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		for i := range 5 {
			alice.send("bob", "m"+strconv.Itoa(i), "hello")
		}
		alice.request(im.Cmd_UNREAD, &im.Unread{})
		time.Sleep(50 * time.Millisecond)
		one(t, alice.frames(), im.Cmd_UNREAD)
		time.Sleep(time.Second)
		var seqs []uint64
		for _, d := range alice.frames() {
			if im.Cmd(d.Cmd) == im.Cmd_SEND {
				ack := decode(t, d, &im.SendAck{})
				equal(t, "order", ack.ClientMsgId, "m"+strconv.Itoa(len(seqs)))
				seqs = append(seqs, ack.Seq)
			}
		}
		equal(t, "sent", len(seqs), 5)
		// The lane is bounded.
		refused := 0
		for i := range 80 {
			alice.send("bob", "n"+strconv.Itoa(i), "hello")
		}
		time.Sleep(10 * time.Millisecond)
		for _, d := range alice.frames() {
			if im.Cmd(d.Cmd) == im.Cmd_SEND && code.Code(d.Status) == code.Overloaded {
				refused++
			}
		}
		if refused < 80-64-2 {
			t.Errorf("%d of 80 were refused", refused)
		}
		time.Sleep(10 * time.Second)
	}, asking(p, false))
}
