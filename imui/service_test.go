package imui_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/platform"
	"hongyan/idl/tier"
	"hongyan/imui"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/route"
	"hongyan/internal/rpc"
)

const key = "0123456789abcdef"

// fakeLogic answers Execute and keeps what it was asked.
type fakeLogic struct {
	tier.Logic
	mu     sync.Mutex
	asked  []*tier.ExecuteRequest
	answer func(*tier.ExecuteRequest) (*tier.ExecuteReply, error)
}

func (f *fakeLogic) Execute(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	f.mu.Lock()
	f.asked = append(f.asked, req)
	f.mu.Unlock()
	return f.answer(req)
}

type body interface {
	Marshal([]byte) ([]byte, error)
	Unmarshal([]byte) error
}

func reply(t *testing.T, b body) *tier.ExecuteReply {
	t.Helper()
	encoded, err := b.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &tier.ExecuteReply{Body: encoded}
}

// newClient serves IMUI over a real socket in front of the logic and returns a Kitex client.
func newClient(t *testing.T, logic tier.Logic, more ...imui.App) platform.IMUI {
	t.Helper()
	center, err := local.New(map[string]control.Members{
		"logic": {Slots: 1, Instances: []control.Instance{{Tier: "logic", Addr: "l"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return logic, nil }, route.PoolOptions{})
	cfg := imui.DefaultConfig()
	cfg.Apps = append(more, imui.App{Name: "orders", Key: key, Tenants: []string{"demo"}})
	s, err := imui.New(cfg, imui.Deps{Logics: pool})
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer("127.0.0.1:0", rpc.ServerOptions{}, rpc.IMUI(s))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = pool.Run(ctx) })
	wg.Go(func() { _ = server.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	for changed := pool.Changed(); pool.Slots() == 0; changed = pool.Changed() {
		<-changed
	}
	client, err := rpc.DialIMUI(server.Addr(), rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func caller() *platform.Caller {
	return &platform.Caller{App: "orders", Key: key, Tenant: "demo", RequestId: "r1"}
}

func TestZZ10RequestBecomesACommandAndTheAnswerComesBack(t *testing.T) {
	logic := &fakeLogic{answer: func(req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return reply(t, &im.SendAck{Conv: "p:alice:bob", Seq: 7, CreatedMs: 1}), nil
	}}
	got, err := newClient(t, logic).SendMessage(t.Context(), &platform.SendMessageRequest{
		Caller: caller(), From: "alice", To: "bob", ClientMsgId: "m1", Text: "hi",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status.Code != 0 || got.Seq != 7 || got.Conv != "p:alice:bob" || got.Status.RequestId != "r1" {
		t.Fatalf("got %+v", got)
	}
	req := logic.asked[0]
	var send im.Send
	if err := send.Unmarshal(req.Body); err != nil {
		t.Fatal(err)
	}
	if req.Tenant != "demo" || req.Uid != "alice" || im.Cmd(req.Cmd) != im.Cmd_SEND || !req.System ||
		send.To != "bob" || send.Text != "hi" || send.ClientMsgId != "m1" || send.Kind != im.Kind_UNSPECIFIED {
		t.Fatalf("logic was asked %+v, %+v", req, &send)
	}
}

func TestZZ03SystemNoticesHaveAResultForEachUser(t *testing.T) {
	logic := &fakeLogic{answer: func(req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		if req.Uid == "u3" {
			return &tier.ExecuteReply{Code: uint32(code.Overloaded), Message: "full", RetryAfterMs: 200}, nil
		}
		return reply(t, &im.SendAck{Conv: "s:orders:" + req.Uid, Seq: 1}), nil
	}}
	got, err := newClient(t, logic).SendSystem(t.Context(), &platform.SendSystemRequest{
		Caller: caller(), Channel: "orders", To: []string{"u1", "u2", "u3", "no such"}, ClientMsgId: "n1", Text: "shipped",
	})
	if err != nil || got.Status.Code != 0 || len(got.Results) != 4 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i, want := range []code.Code{code.OK, code.OK, code.Overloaded, code.BadRequest} {
		if r := got.Results[i]; code.Code(r.Status.Code) != want {
			t.Errorf("%s: got %s, want %s", r.Uid, r.Status.Name, want)
		}
	}
	if got.Results[2].Status.RetryAfterMs != 200 || !got.Results[2].Status.Retryable || got.Results[0].Conv != "s:orders:u1" {
		t.Errorf("got %+v", got.Results)
	}
}

func TestQueriesTranslateEveryField(t *testing.T) {
	logic := &fakeLogic{answer: func(req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		m := &im.Message{Conv: "p:alice:bob", Seq: 3, Sender: "bob", Text: "x", ModSeq: 2, Recalled: true}
		switch im.Cmd(req.Cmd) {
		case im.Cmd_UNREAD:
			return reply(t, &im.UnreadRsp{Total: 5, Conversations: []*im.ConvUnread{{Conv: "p:alice:bob", Unread: 5}}}), nil
		case im.Cmd_CONVERSATIONS:
			return reply(t, &im.ConversationsRsp{More: true, NextBeforeVersion: 9, Conversations: []*im.Conversation{{
				Conv: "p:alice:bob", Peer: "bob", LastSeq: 3, Unread: 5, Muted: true, Messages: []*im.Message{m},
			}}}), nil
		case im.Cmd_HISTORY:
			return reply(t, &im.HistoryRsp{Messages: []*im.Message{m}, More: true}), nil
		case im.Cmd_CONTACTS:
			return reply(t, &im.ContactsRsp{Contacts: []*im.Contact{{Uid: "bob", Remark: "Bobby", Online: true}}}), nil
		case im.Cmd_PRESENCE:
			return reply(t, &im.PresenceRsp{Users: []*im.UserPresence{{Uid: "bob", Online: true, Platforms: []string{"web"}}}}), nil
		}
		return nil, fmt.Errorf("unexpected command %d", req.Cmd)
	}}
	client := newClient(t, logic)
	unread, err := client.Unread(t.Context(), &platform.UnreadRequest{Caller: caller(), Uid: "alice"})
	if err != nil || unread.Total != 5 || len(unread.Conversations) != 1 {
		t.Errorf("unread: %+v, %v", unread, err)
	}
	list, err := client.Conversations(t.Context(), &platform.ConversationsRequest{Caller: caller(), Uid: "alice"})
	if err != nil || !list.More || list.NextBeforeVersion != 9 || list.Conversations[0].Last.Seq != 3 || !list.Conversations[0].Muted {
		t.Errorf("conversations: %+v, %v", list, err)
	}
	history, err := client.History(t.Context(), &platform.HistoryRequest{Caller: caller(), Uid: "alice", Conv: "p:alice:bob"})
	if err != nil || !history.More || !history.Messages[0].Recalled || history.Messages[0].Sender != "bob" {
		t.Errorf("history: %+v, %v", history, err)
	}
	contacts, err := client.Contacts(t.Context(), &platform.ContactsRequest{Caller: caller(), Uid: "alice"})
	if err != nil || contacts.Contacts[0].Remark != "Bobby" || !contacts.Contacts[0].Online {
		t.Errorf("contacts: %+v, %v", contacts, err)
	}
	online, err := client.Online(t.Context(), &platform.OnlineRequest{Caller: caller(), Uids: []string{"bob"}})
	if err != nil || !online.Users[0].Online || online.Users[0].Platforms[0] != "web" {
		t.Errorf("online: %+v, %v", online, err)
	}
}

func TestBadInputIsRefusedWithACode(t *testing.T) {
	logic := &fakeLogic{answer: func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return nil, fmt.Errorf("must not be asked")
	}}
	client := newClient(t, logic)
	send := func(change func(*platform.SendMessageRequest)) *platform.Status {
		req := &platform.SendMessageRequest{Caller: caller(), From: "alice", To: "bob", Text: "hi"}
		change(req)
		got, err := client.SendMessage(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	for name, c := range map[string]struct {
		change func(*platform.SendMessageRequest)
		want   code.Code
	}{
		"no caller":       {func(r *platform.SendMessageRequest) { r.Caller = nil }, code.BadToken},
		"unknown app":     {func(r *platform.SendMessageRequest) { r.Caller.App = "x" }, code.BadToken},
		"wrong key":       {func(r *platform.SendMessageRequest) { r.Caller.Key = "0123456789abcdeX" }, code.BadToken},
		"no key":          {func(r *platform.SendMessageRequest) { r.Caller.App, r.Caller.Key = "x", "" }, code.BadToken},
		"other tenant":    {func(r *platform.SendMessageRequest) { r.Caller.Tenant = "other" }, code.Denied},
		"bad uid":         {func(r *platform.SendMessageRequest) { r.To = "a b" }, code.BadRequest},
		"no sender":       {func(r *platform.SendMessageRequest) { r.From = "" }, code.BadRequest},
		"event kind":      {func(r *platform.SendMessageRequest) { r.Kind = 64 }, code.BadRequest},
		"long request id": {func(r *platform.SendMessageRequest) { r.Caller.RequestId = strings.Repeat("x", 100) }, code.BadRequest},
	} {
		if got := send(c.change); code.Code(got.Code) != c.want || got.Message == "" {
			t.Errorf("%s: got %+v, want %s", name, got, c.want)
		}
	}
	many, err := client.SendSystem(t.Context(), &platform.SendSystemRequest{Caller: caller(), Channel: "orders", To: make([]string, 501)})
	if err != nil || code.Code(many.Status.Code) != code.BadRequest {
		t.Errorf("501 users: got %+v, %v", many, err)
	}
	nobody, err := client.Online(t.Context(), &platform.OnlineRequest{Caller: caller()})
	if err != nil || code.Code(nobody.Status.Code) != code.BadRequest {
		t.Errorf("online of nobody: got %+v, %v", nobody, err)
	}
}

func TestALogicThatFailsIsUnavailableNotInternal(t *testing.T) {
	logic := &fakeLogic{answer: func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return nil, fmt.Errorf("connection refused")
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := newClient(t, logic).Unread(ctx, &platform.UnreadRequest{Caller: caller(), Uid: "alice"})
	if err != nil || code.Code(got.Status.Code) != code.Unavailable || !got.Status.Retryable {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for want, apps := range map[string][]imui.App{
		"16 bytes":  {{Name: "a", Key: "short", Tenants: []string{"t"}}},
		"no name":   {{Key: key, Tenants: []string{"t"}}},
		"twice":     {{Name: "a", Key: key, Tenants: []string{"t"}}, {Name: "a", Key: key, Tenants: []string{"t"}}},
		"no tenant": {{Name: "a", Key: key}},
	} {
		cfg := imui.DefaultConfig()
		cfg.Apps = apps
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestAnAppIsHeldToItsRate(t *testing.T) {
	logic := &fakeLogic{answer: func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return reply(t, &im.SendAck{Seq: 1}), nil
	}}
	client := newClient(t, logic, imui.App{Name: "slow", Key: key, Tenants: []string{"demo"}, Rate: 0.5, Burst: 3})
	from := &platform.Caller{App: "slow", Key: key, Tenant: "demo"}
	many := func(to ...string) *platform.Status {
		got, err := client.SendSystem(t.Context(), &platform.SendSystemRequest{Caller: from, Channel: "orders", To: to, Text: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	if got := many("a", "b", "c"); got.Code != 0 {
		t.Fatalf("three of three: %+v", got)
	}
	if got := many("a"); code.Code(got.Code) != code.Overloaded || !got.Retryable || got.RetryAfterMs == 0 || got.RetryAfterMs > 2000 {
		t.Errorf("one more: %+v", got)
	}
	// Others are not held to it.
	got, err := client.SendMessage(t.Context(), &platform.SendMessageRequest{Caller: caller(), From: "alice", To: "bob", Text: "x"})
	if err != nil || got.Status.Code != 0 {
		t.Errorf("another app: %+v, %v", got, err)
	}
}

func TestZZ10IMUIIsFoundUnderItsName(t *testing.T) {
	services := local.NewServices()
	defer services.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- imui.Announce(ctx, services, "127.0.0.1:9000") }()
	found := make(chan []control.Endpoint, 8)
	watching, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_ = services.WatchService(watching, imui.ServiceName, func(at []control.Endpoint) { found <- at })
	}()
	at := <-found
	for len(at) == 0 {
		at = <-found
	}
	if at[0].Addr != "127.0.0.1:9000" {
		t.Errorf("found at %+v", at)
	}
	cancel()
	if err := <-done; err != nil || len(<-found) != 0 {
		t.Errorf("ended with %v, or is still known", err)
	}
}
