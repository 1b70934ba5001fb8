package httpentry

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/gate"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// bed is one or two instances of the long poll before a fake Logic, in a synctest bubble.
type bed struct {
	t         *testing.T
	instances []*instance
	held      int

	mu      sync.Mutex
	uplinks []*tier.Uplink
	login   *im.SyncRsp // answered to AUTH
	refuse  code.Code   // answered to AUTH instead
}

type instance struct {
	*pollers
	stopGate func()
}

func inBed(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t}
		center, err := local.New(map[string]control.Members{"logic": {
			Slots: 1, Instances: []control.Instance{{Tier: "logic", Addr: "logic-0", Boot: "b1"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return &bedLogic{bed: b}, nil }, route.PoolOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = pool.Run(ctx) })
		for i := range 2 {
			b.instances = append(b.instances, b.instance(i, pool, ctx, &running))
		}
		synctest.Wait()
		test(t, b)
		cancel()
		running.Wait()
		_ = center.Close()
		if b.held != 0 {
			t.Errorf("%d polls count as held at the end", b.held)
		}
	})
}

func (b *bed) instance(i int, pool *route.Pool[tier.Logic], ctx context.Context, running *sync.WaitGroup) *instance {
	sids := newSigner(strings.Repeat("s", 32))
	keys := bedKeys{}
	g, err := gate.New(gate.DefaultConfig(), gate.Deps{
		Logics: pool, Keys: &verifier{keys: keys, sids: sids},
		Self: control.Instance{Tier: "httpentry", Addr: fmt.Sprint("gate-", i), Boot: fmt.Sprint("boot-", i)},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	gateCtx, stop := context.WithCancel(ctx)
	running.Go(func() { _ = g.Run(gateCtx) })
	held := func(n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held += n
	}
	return &instance{newPollers(DefaultConfig().Poll, g, keys, sids, slog.New(slog.DiscardHandler), held), stop}
}

type bedKeys struct{}

func (bedKeys) Verify(text string) (token.Claims, error) {
	uid, device, _ := strings.Cut(text, "/")
	if uid == "" {
		return token.Claims{}, code.Errorf(code.BadToken, "no good")
	}
	return token.Claims{Tenant: "demo", UID: uid, Device: device, Expires: time.Now().Add(time.Hour)}, nil
}

// bedLogic answers AUTH and records everything.
type bedLogic struct {
	tier.Logic
	bed *bed
}

func (l *bedLogic) Renew(context.Context, *tier.RenewBatch) (*tier.RenewReply, error) {
	return &tier.RenewReply{}, nil
}

func (l *bedLogic) Uplink(ctx context.Context, batch *tier.UplinkBatch) (*tier.Accepted, error) {
	b := l.bed
	for _, u := range batch.Items {
		b.mu.Lock()
		b.uplinks = append(b.uplinks, u)
		down := &tier.Down{Conn: u.Conn, Cmd: u.Cmd, Seq: u.Seq, Response: true, SessionEpoch: 1}
		switch {
		case u.Event != tier.Uplink_PACKET || im.Cmd(u.Cmd) == im.Cmd_TYPING:
			down = nil
		case im.Cmd(u.Cmd) == im.Cmd_AUTH && b.refuse != 0:
			down.Status = uint32(b.refuse)
			down.Body, _ = (&im.Error{Code: uint32(b.refuse), Message: "refused"}).Marshal(nil)
		case im.Cmd(u.Cmd) == im.Cmd_AUTH:
			sync := b.login
			if sync == nil {
				sync = &im.SyncRsp{Epoch: 1}
			}
			down.Body, _ = (&im.AuthAck{Tenant: u.Tenant, Uid: u.Uid, Sync: sync}).Marshal(nil)
		}
		b.mu.Unlock()
		if down != nil {
			b.down(batch.Gateway, down)
		}
	}
	return &tier.Accepted{}, nil
}

func (b *bed) down(gateway string, items ...*tier.Down) {
	var i int
	_, _ = fmt.Sscanf(gateway, "gate-%d", &i)
	_, _ = b.instances[i].gate.Downlink(context.Background(), &tier.DownlinkBatch{Logic: "logic-0", Boot: fmt.Sprint("boot-", i), Items: items})
}

// took counts events, and for packets a command.
func (b *bed) took(event tier.Uplink_Event, cmd im.Cmd) (out []*tier.Uplink) {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.uplinks {
		if u.Event == event && (event != tier.Uplink_PACKET || im.Cmd(u.Cmd) == cmd) {
			out = append(out, u)
		}
	}
	return out
}

func (b *bed) conn() uint64 {
	logins := b.took(tier.Uplink_PACKET, im.Cmd_AUTH)
	return logins[len(logins)-1].Conn
}

func (b *bed) push(i int, versions ...uint64) {
	conn := b.conn()
	for _, v := range versions {
		body, _ := (&im.Conversation{Conv: "p:alice:bob", Version: v, LastSeq: v}).Marshal(nil)
		b.down(fmt.Sprint("gate-", i), &tier.Down{
			Conn: conn, Cmd: uint32(im.Cmd_PUSH), Body: body, Epoch: 1, Version: v, SessionEpoch: 1,
		})
	}
	synctest.Wait()
}

// poll is a waiter that remembers its answer.
type poll struct {
	began time.Time
	after time.Duration
	rsp   *im.LpPollRsp
	err   error
	last  bool
	times int
	s     *pollSession
}

func (p *poll) answer(rsp *im.LpPollRsp, err error, last bool) {
	p.rsp, p.err, p.last, p.after = rsp, err, last, time.Since(p.began)
	p.times++
}

func (p *poll) answered() bool { synctest.Wait(); return p.times == 1 }

func (p *poll) versions() string {
	synctest.Wait()
	var out []uint64
	if p.rsp != nil {
		for _, c := range p.rsp.Changes {
			out = append(out, c.Version)
		}
	}
	return fmt.Sprint(out)
}

func (b *bed) open(hold uint32) string {
	b.t.Helper()
	rsp, err := b.instances[0].open(b.t.Context(), &im.LpOpen{Token: "alice/phone", HoldS: hold, Epoch: 1}, "1.2.3.4")
	if err != nil {
		b.t.Fatal(err)
	}
	return rsp.Sid
}

func (b *bed) poll(i int, req im.LpPoll) *poll {
	b.t.Helper()
	p := &poll{began: time.Now()}
	if req.Epoch == 0 {
		req.Epoch = 1
	}
	var err error
	p.s, err = b.instances[i].poll(&req, "1.2.3.4", p)
	if err != nil {
		p.answer(nil, err, false)
	}
	synctest.Wait()
	return p
}

func TestZZ06APollIsHeldUntilSomethingComesOrTheHoldIsOver(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		p := b.poll(0, im.LpPoll{Sid: sid, N: 1})
		time.Sleep(5 * time.Second)
		if p.answered() || b.held != 1 {
			t.Fatalf("answered %+v, held %d", p.rsp, b.held)
		}
		b.push(0, 1, 2)
		time.Sleep(30 * time.Millisecond)
		if !p.answered() || p.versions() != "[1 2]" || p.rsp.NextCursor != 2 || p.after != 5030*time.Millisecond {
			t.Fatalf("after %s: %+v", p.after, p.rsp)
		}
		for n := uint64(2); n < 30; n++ {
			p = b.poll(0, im.LpPoll{Sid: sid, N: n, Cursor: 2})
			time.Sleep(20 * time.Second)
			if !p.answered() || len(p.rsp.Changes) > 0 || p.rsp.NextCursor != 2 || p.after < 12*time.Second || p.after > 18*time.Second {
				t.Fatalf("after %s: %+v", p.after, p.rsp)
			}
		}
		if logins := len(b.took(tier.Uplink_PACKET, im.Cmd_AUTH)); logins != 1 {
			t.Errorf("%d logins", logins)
		}
	})
}

func TestZZ06TheClientChoosesTheHoldWithinLimits(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		for ask, want := range map[uint32][2]time.Duration{
			1: {4 * time.Second, 6 * time.Second}, 5: {4 * time.Second, 6 * time.Second},
			30: {24 * time.Second, 36 * time.Second}, 50: {40 * time.Second, 55 * time.Second}, 4000000000: {40 * time.Second, 55 * time.Second},
		} {
			sid := b.open(0)
			p := b.poll(0, im.LpPoll{Sid: sid, N: 1, HoldS: ask})
			time.Sleep(time.Minute)
			if !p.answered() || p.after < want[0] || p.after > want[1] {
				t.Errorf("hold of %d s: after %s", ask, p.after)
			}
		}
	})
}

// The cursor in the request is the ack: a response that was lost is read again.
func TestZZ06TheCursorIsTheAck(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		b.push(0, 1, 2, 3)
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 1}); !p.answered() || p.versions() != "[1 2 3]" || p.after != 0 {
			t.Fatalf("a backlog is answered at once: %+v after %s", p.rsp, p.after)
		}
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 2, Cursor: 1}); p.versions() != "[2 3]" {
			t.Fatalf("lost, read again: %s", p.versions())
		}
		p := b.poll(0, im.LpPoll{Sid: sid, N: 3, Cursor: 3})
		if p.answered() {
			t.Fatalf("nothing new: %+v", p.rsp)
		}
		time.Sleep(time.Second)
		acks := b.took(tier.Uplink_CURSOR, 0)
		if len(acks) == 0 || acks[len(acks)-1].Cursor != 3 {
			t.Fatalf("logic was told %+v", acks)
		}
		time.Sleep(time.Minute) // what the gate would send again if it had not been told
		if got := b.took(tier.Uplink_OVERDUE, 0); len(got) > 0 {
			t.Errorf("overdue: %+v", got)
		}
	})
}

// The gate may refuse an acknowledgement (rate limit); then it sends the push again, which the
// session has had confirmed. Seen to fail with that passed over: the client went on to poll with
// the right cursor, and the session was closed as one that does not acknowledge.
func TestARefusedAckIsPassedOnAgain(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		cfg := gate.DefaultConfig()
		cfg.Rate, cfg.Burst = 1.0/3600, 1
		b.instances[0].gate.Limit(&cfg)
		for v := uint64(1); v <= 2; v++ { // the second one is refused
			b.push(0, v)
			b.poll(0, im.LpPoll{Sid: sid, N: 2 * v, Cursor: v - 1})
			b.poll(0, im.LpPoll{Sid: sid, N: 2*v + 1, Cursor: v})
		}
		time.Sleep(time.Second)
		if acks := b.took(tier.Uplink_CURSOR, 0); len(acks) == 0 || acks[len(acks)-1].Cursor != 1 {
			t.Fatalf("logic was told %+v", acks)
		}
		cfg = gate.DefaultConfig()
		b.instances[0].gate.Limit(&cfg)
		for n := uint64(6); n < 12; n++ {
			time.Sleep(20 * time.Second)
			b.poll(0, im.LpPoll{Sid: sid, N: n, Cursor: 2})
		}
		time.Sleep(time.Second)
		if acks := b.took(tier.Uplink_CURSOR, 0); acks[len(acks)-1].Cursor != 2 {
			t.Errorf("logic was told %+v", acks)
		}
		if logins := len(b.took(tier.Uplink_PACKET, im.Cmd_AUTH)); logins != 1 {
			t.Errorf("%d logins", logins)
		}
	})
}

// A client whose cursor is beyond the head is told to reset and starts anew from a lower one:
// what is pushed from then on must not count as known. Seen red while a session's cursor only
// rose: everything up to the old one was dropped without a word, and so were its acks.
func TestAPollWithALowerCursorStartsAnew(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		b.login = &im.SyncRsp{Epoch: 1, Head: 10, MustReset: true}
		rsp, err := b.instances[0].open(t.Context(), &im.LpOpen{Token: "alice/phone", Epoch: 1, Cursor: 500}, "1.2.3.4")
		if err != nil {
			t.Fatal(err)
		}
		p := b.poll(0, im.LpPoll{Sid: rsp.Sid, N: 1})
		p.s.request(im.Cmd_SYNC, &im.Sync{Epoch: 1}, func(wire.Frame) {})
		b.push(0, 11)
		time.Sleep(time.Second)
		if p.versions() != "[11]" {
			t.Fatalf("pushed %s", p.versions())
		}
		b.poll(0, im.LpPoll{Sid: rsp.Sid, N: 2, Cursor: 11})
		time.Sleep(time.Second)
		if acks := b.took(tier.Uplink_CURSOR, 0); len(acks) == 0 || acks[len(acks)-1].Cursor != 11 {
			t.Errorf("logic was told %+v", acks)
		}
		b.poll(0, im.LpPoll{Sid: rsp.Sid, N: 1, Cursor: 500}) // late, of before
		b.push(0, 12)
		if p = b.poll(0, im.LpPoll{Sid: rsp.Sid, N: 3, Cursor: 11}); p.versions() != "[12]" {
			t.Errorf("after a late poll, pushed %s", p.versions())
		}
	})
}

// What the gate sends again, because no poll came for it, is not there twice.
func TestRetransmissionsAreNotDoubled(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(50)
		b.push(0, 1, 2)
		time.Sleep(25 * time.Second)
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 1}); p.versions() != "[1 2]" {
			t.Fatal(p.versions())
		}
	})
}

func TestZZ06OnePollASession(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		old := b.poll(0, im.LpPoll{Sid: sid, N: 5})
		late := b.poll(0, im.LpPoll{Sid: sid, N: 4})
		if !late.answered() || !late.rsp.Superseded || old.answered() {
			t.Fatalf("a lower n: %+v; the held one: %+v", late.rsp, old.rsp)
		}
		again := b.poll(0, im.LpPoll{Sid: sid, N: 5}) // the same request, sent twice
		if !old.answered() || !old.rsp.Superseded || again.answered() {
			t.Fatalf("the same n: %+v, %+v", old.rsp, again.rsp)
		}
		next := b.poll(0, im.LpPoll{Sid: sid, N: 6})
		if !again.answered() || !again.rsp.Superseded || next.answered() || b.held != 1 {
			t.Fatalf("a higher n: %+v, %+v, held %d", again.rsp, next.rsp, b.held)
		}
	})
}

// Online = a poll is held, or the last ended less than hold + 10 s ago.
func TestZZ06OnlineBetweenPolls(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		p := b.poll(0, im.LpPoll{Sid: sid, N: 1})
		time.Sleep(3 * time.Second)
		p.s.abandon(p) // the client has gone
		time.Sleep(24 * time.Second)
		if len(b.took(tier.Uplink_CLOSED, 0)) != 0 {
			t.Fatal("offline too early")
		}
		time.Sleep(2 * time.Second)
		if len(b.took(tier.Uplink_CLOSED, 0)) != 1 {
			t.Fatal("still online")
		}
		if p.times != 0 {
			t.Fatal("answered a client that has gone")
		}
		b.push(0, 1) // for nobody
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 2}); p.answered() {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
		if logins := len(b.took(tier.Uplink_PACKET, im.Cmd_AUTH)); logins != 2 {
			t.Fatalf("%d logins: the sid is good for another one", logins)
		}
	})
}

// A sid is signed: any instance goes on with it, from the cursor of the poll.
func TestZZ06AnotherInstanceTakesOver(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		b.login = &im.SyncRsp{Epoch: 1, NextCursor: 9, Changes: []*im.Conversation{{Conv: "p:alice:bob", Version: 9}}}
		p := b.poll(1, im.LpPoll{Sid: sid, N: 3, Cursor: 4})
		if !p.answered() || p.versions() != "[9]" || p.rsp.NextCursor != 9 || p.rsp.Epoch != 1 {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
		logins := b.took(tier.Uplink_PACKET, im.Cmd_AUTH)
		auth := new(im.Auth)
		if err := auth.Unmarshal(logins[1].Body); err != nil || auth.Cursor != 4 || logins[1].Uid != "alice" || logins[1].Device != "phone" {
			t.Fatalf("login %+v, %+v, %v", logins[1], auth, err)
		}
		p = b.poll(1, im.LpPoll{Sid: sid, N: 4, Cursor: 9})
		b.push(1, 10)
		time.Sleep(time.Second)
		if p.versions() != "[10]" {
			t.Fatalf("%+v", p.rsp)
		}
	})
}

func TestTwoPollsTakeOverAtOnce(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		req := im.LpPoll{Sid: sid, N: 3, Epoch: 1}
		first, second := &poll{began: time.Now()}, &poll{began: time.Now()}
		for _, p := range []*poll{first, second} {
			if _, err := b.instances[1].poll(&req, "", p); err != nil {
				t.Fatal(err)
			}
		}
		if !first.answered() || !first.rsp.Superseded || second.answered() {
			t.Fatalf("%+v, %+v", first.rsp, second.rsp)
		}
		if logins := len(b.took(tier.Uplink_PACKET, im.Cmd_AUTH)); logins != 2 {
			t.Errorf("%d logins", logins)
		}
	})
}

func TestATakeOverThatIsRefused(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		b.refuse = code.TooManySessions
		p := b.poll(1, im.LpPoll{Sid: sid, N: 3})
		if !p.answered() || code.Of(p.err) != code.TooManySessions {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
	})
}

// Who was kicked is told so, and does not log in again by polling on.
func TestAKickedSessionStaysKicked(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		p := b.poll(0, im.LpPoll{Sid: sid, N: 1})
		body, _ := (&im.Kick{Code: uint32(code.CloseReplaced), Reason: "replaced", ByDevice: "tablet"}).Marshal(nil)
		b.down("gate-0", &tier.Down{Conn: b.conn(), Cmd: uint32(im.Cmd_KICK), Body: body, Close: uint32(code.CloseReplaced), SessionEpoch: 1})
		if !p.answered() || p.rsp.Kick == nil || p.rsp.Kick.ByDevice != "tablet" {
			t.Fatalf("%+v", p.rsp)
		}
		p = b.poll(0, im.LpPoll{Sid: sid, N: 2})
		if !p.answered() || p.rsp.Kick == nil || p.rsp.Kick.ByDevice != "tablet" {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
		if _, _, err := b.instances[0].find(sid); code.Of(err) != code.BadToken {
			t.Errorf("a command: %v", err)
		}
		if logins := len(b.took(tier.Uplink_PACKET, im.Cmd_AUTH)); logins != 1 {
			t.Errorf("%d logins", logins)
		}
	})
}

func TestWhatIsDroppedIsSaid(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		big := strings.Repeat("x", 100<<10)
		for v := uint64(1); v <= 4; v++ {
			body, _ := (&im.Conversation{Conv: "p:alice:bob", Version: v, Messages: []*im.Message{{Text: big}}}).Marshal(nil)
			b.down("gate-0", &tier.Down{Conn: b.conn(), Cmd: uint32(im.Cmd_PUSH), Body: body, Epoch: 1, Version: v, SessionEpoch: 1})
		}
		p := b.poll(0, im.LpPoll{Sid: sid, N: 1})
		if !p.answered() || !p.rsp.Sync {
			t.Fatalf("over the limit: %d changes, %v", len(p.rsp.Changes), p.rsp.Sync)
		}
		p = b.poll(0, im.LpPoll{Sid: sid, N: 2, Cursor: 4})
		body, _ := (&im.Notice{What: im.Notice_SYNC, Head: 9}).Marshal(nil)
		b.down("gate-0", &tier.Down{Conn: b.conn(), Cmd: uint32(im.Cmd_NOTICE), Body: body, SessionEpoch: 1})
		time.Sleep(30 * time.Millisecond)
		if !p.answered() || !p.rsp.Sync {
			t.Fatalf("a notice: %+v", p.rsp)
		}
		p = b.poll(0, im.LpPoll{Sid: sid, N: 3, Cursor: 4})
		body, _ = (&im.Typing{Conv: "p:alice:bob", Uid: "bob"}).Marshal(nil)
		b.down("gate-0", &tier.Down{Conn: b.conn(), Cmd: uint32(im.Cmd_TYPING), Body: body, SessionEpoch: 1})
		time.Sleep(30 * time.Millisecond)
		if !p.answered() || p.rsp.Sync || len(p.rsp.Typing) != 1 {
			t.Fatalf("typing: %+v", p.rsp)
		}
	})
}

// A client that cannot use a change must not be answered with it for ever.
func TestAClientThatDoesNotMoveIsToldToSync(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		b.push(0, 5)
		for n := uint64(1); n <= maxRepeats; n++ {
			if p := b.poll(0, im.LpPoll{Sid: sid, N: n}); p.versions() != "[5]" {
				t.Fatal(p.versions())
			}
		}
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 9}); !p.answered() || !p.rsp.Sync || len(p.rsp.Changes) > 0 {
			t.Fatalf("%+v", p.rsp)
		}
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 10}); p.answered() {
			t.Fatalf("%+v", p.rsp)
		}
	})
}

func TestAServerThatStopsSendsPollsElsewhere(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		sid := b.open(0)
		p := b.poll(0, im.LpPoll{Sid: sid, N: 1})
		b.instances[0].stop()
		b.instances[0].stopGate()
		if !p.answered() || p.err != nil || !p.last {
			t.Fatalf("%+v, %v, last %v", p.rsp, p.err, p.last)
		}
		if p := b.poll(0, im.LpPoll{Sid: sid, N: 2}); code.Of(p.err) != code.Unavailable {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
		if p := b.poll(1, im.LpPoll{Sid: sid, N: 2}); p.answered() {
			t.Fatalf("%+v, %v", p.rsp, p.err)
		}
	})
}

func TestLoginsThatAreRefused(t *testing.T) {
	inBed(t, func(t *testing.T, b *bed) {
		b.refuse = code.Denied
		if _, err := b.instances[0].open(t.Context(), &im.LpOpen{Token: "alice/phone"}, ""); code.Of(err) != code.Denied {
			t.Errorf("%v", err)
		}
		if _, err := b.instances[0].open(t.Context(), &im.LpOpen{Token: "alice"}, ""); code.Of(err) != code.BadRequest {
			t.Errorf("no device: %v", err)
		}
		if _, err := b.instances[0].open(t.Context(), &im.LpOpen{}, ""); code.Of(err) != code.BadToken {
			t.Errorf("no token: %v", err)
		}
		if n := len(b.instances[0].sessions); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}
