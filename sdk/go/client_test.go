package hongyan

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
	"hongyan/sdk/go/core"
)

// diary is what an application was told.
type diary struct {
	mu     sync.Mutex
	shown  []string
	states []State
	lines  []string
}

func (d *diary) handlers() Handlers {
	note := func(format string, a ...any) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lines = append(d.lines, fmt.Sprintf(format, a...))
	}
	return Handlers{
		Message:      func(m *Message) { d.mu.Lock(); d.shown = append(d.shown, m.ClientMsgId); d.mu.Unlock() },
		Failed:       func(f Failed) { note("failed %s %s", f.ClientMsgID, f.Err.Code) },
		Modified:     func(m Modified) { note("modified %d recalled=%v", m.Seq, m.Recalled) },
		Kicked:       func(k Kicked) { note("kicked %s", k.Code) },
		TokenExpired: func(e *Error) { note("token expired") },
		State:        func(s State, _ error) { d.mu.Lock(); d.states = append(d.states, s); d.mu.Unlock() },
	}
}

func (d *diary) got() []string  { d.mu.Lock(); defer d.mu.Unlock(); return slices.Clone(d.shown) }
func (d *diary) told() []string { d.mu.Lock(); defer d.mu.Unlock(); return slices.Clone(d.lines) }

func newClient(t *testing.T, s *toy, uid string, change ...func(*Options)) (*Client, *diary) {
	t.Helper()
	d := &diary{}
	opt := Options{
		Endpoints: []string{"mem://one"}, Token: Token(uid), Device: uid + "-phone",
		On: d.handlers(), Dialers: map[string]Dialer{"mem": s.dial},
	}
	for _, fn := range change {
		fn(&opt)
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

func connect(t *testing.T, c *Client) {
	t.Helper()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func settle(d time.Duration) { time.Sleep(d); synctest.Wait() }

// TestDD17TwoUsersTalk: messages arrive once, in order, acknowledged; duplicates do not show.
func TestDD17TwoUsersTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newToy()
		alice, da := newClient(t, s, "alice")
		bob, db := newClient(t, s, "bob")
		defer alice.Close()
		defer bob.Close()
		connect(t, alice)
		connect(t, bob)
		for i := range 5 {
			sent, err := alice.Send(t.Context(), Outgoing{To: "bob", ClientMsgID: fmt.Sprint("a", i), Text: "hi"})
			if err != nil || sent.Message.Seq != uint64(i+1) || sent.Message.Conv != "p:alice:bob" {
				t.Fatalf("sent %+v, %v", sent, err)
			}
		}
		if _, err := bob.Send(t.Context(), Outgoing{To: "alice", Text: "hello"}); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if got := db.got(); !slices.Equal(got, []string{"a0", "a1", "a2", "a3", "a4"}) {
			t.Fatalf("bob got %v", got)
		}
		if len(da.got()) != 1 {
			t.Fatalf("alice got %v", da.got())
		}
		if s.acked["bob"] != 6 || s.acked["alice"] != 6 {
			t.Fatalf("acked %v", s.acked)
		}
		total, by, err := bob.Unread(t.Context(), "")
		if err != nil || total != 3 || by["p:alice:bob"] != 3 {
			t.Fatalf("unread %d %v %v", total, by, err)
		}
		list, _, err := bob.History(t.Context(), "p:alice:bob", HistoryQuery{Limit: 2})
		if err != nil || len(list) != 6 {
			t.Fatalf("history %v %v", list, err)
		}
		if _, err := alice.Recall(t.Context(), "p:alice:bob", 1); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if got := db.told(); !slices.Contains(got, "modified 1 recalled=true") {
			t.Fatalf("bob was told %v", got)
		}
	})
}

// TestZZ06MF07ReconnectResendsAndCatchesUp: the ack is lost with the connection; what was
// missed is pulled; the same id is used, and nothing shows twice.
func TestZZ06MF07ReconnectResendsAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newToy()
		lost := false
		s.before = func(ss *toySession, f *Frame) bool {
			if f.Cmd == im.Cmd_SEND && !lost {
				lost = true
				s.mu.Lock()
				m := decode(f, &im.Send{})
				s.append("p:alice:bob", &im.Message{Sender: "alice", ClientMsgId: m.ClientMsgId, Kind: im.Kind_TEXT})
				s.mu.Unlock()
				s.cut() // stored, not acked
				return true
			}
			return false
		}
		alice, da := newClient(t, s, "alice")
		defer alice.Close()
		connect(t, alice)
		go func() { time.Sleep(10 * time.Millisecond); s.say("bob", "alice", "meanwhile") }()
		sent, err := alice.Send(t.Context(), Outgoing{To: "bob", ClientMsgID: "m1"})
		if err != nil || sent.Message.Seq != 1 {
			t.Fatalf("sent %+v, %v", sent, err)
		}
		settle(time.Second)
		if got := s.stored("p:alice:bob"); !slices.Equal(got, []string{"m1", "meanwhile"}) {
			t.Fatalf("stored %v", got)
		}
		if got := da.got(); !slices.Equal(got, []string{"meanwhile"}) {
			t.Fatalf("alice got %v", got)
		}
		if !slices.Equal(s.counters, []uint64{1, 2}) {
			t.Fatalf("connection counters %v", s.counters)
		}
	})
}

func TestReconnectPolicy(t *testing.T) {
	t.Run("jittered back-off with a cap, then level again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newToy()
			alice, da := newClient(t, s, "alice")
			defer alice.Close()
			connect(t, alice)
			s.mu.Lock()
			s.refuse["one"] = errRefused
			s.mu.Unlock()
			s.cut()
			settle(5 * time.Minute)
			s.mu.Lock()
			tries := len(s.dials)
			delete(s.refuse, "one")
			s.mu.Unlock()
			if tries < 15 || tries > 120 {
				t.Fatalf("%d tries in 5 minutes", tries)
			}
			s.say("bob", "alice", "m")
			settle(25 * time.Second)
			if got := da.got(); !slices.Equal(got, []string{"m"}) {
				t.Fatalf("got %v", got)
			}
		})
	})
	t.Run("the ladder", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newToy()
			s.refuse["one"], s.refuse["two"] = errRefused, errRefused
			alice, _ := newClient(t, s, "alice", func(o *Options) { o.Endpoints = []string{"mem://one", "mem://two", "mem://three"} })
			defer alice.Close()
			began := time.Now()
			connect(t, alice)
			if !slices.Equal(s.dials, []string{"one", "two", "three"}) || time.Since(began) > time.Second {
				t.Fatalf("dialed %v in %s", s.dials, time.Since(began))
			}
			s.cut() // where it worked is tried first
			settle(time.Minute)
			if got := s.dials[3:]; !slices.Equal(got, []string{"three"}) {
				t.Fatalf("then dialed %v", got)
			}
		})
	})
	t.Run("replaced: never again by itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newToy()
			alice, da := newClient(t, s, "alice")
			defer alice.Close()
			connect(t, alice)
			for _, ss := range s.online() {
				ss.frame(im.Cmd_KICK, wire.FlagOneWay, 0, 0, &im.Kick{Code: 4402, Reason: "replaced", ByDevice: "tablet"})
			}
			settle(10 * time.Minute)
			if state, err := alice.State(); state != Stopped || code.Of(err) != code.CloseReplaced || len(s.dials) != 1 {
				t.Fatalf("%v %v, %d dials", state, err, len(s.dials))
			}
			if got := da.told(); !slices.Equal(got, []string{"kicked close_replaced"}) {
				t.Fatalf("told %v", got)
			}
			if _, _, err := alice.Unread(t.Context(), ""); code.Of(err) != code.CloseReplaced {
				t.Fatalf("a call then: %v", err)
			}
			connect(t, alice) // the user wants it
		})
	})
	t.Run("expired token, then a fresh one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, token := newToy(), "expired"
			alice, da := newClient(t, s, "alice", func(o *Options) {
				o.Token = func(context.Context) (string, error) { return token, nil }
			})
			defer alice.Close()
			if err := alice.Connect(t.Context()); code.Of(err) != code.BadToken {
				t.Fatalf("connect: %v", err)
			}
			token = "alice"
			connect(t, alice)
			synctest.Wait()
			if got := da.told(); !slices.Contains(got, "token expired") {
				t.Fatalf("told %v", got)
			}
		})
	})
	t.Run("asked to go away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newToy()
			alice, _ := newClient(t, s, "alice")
			defer alice.Close()
			connect(t, alice)
			for _, ss := range s.online() {
				ss.frame(im.Cmd_GOAWAY, wire.FlagOneWay, 0, 0, &im.GoAway{MaxDelayMs: 10_000, Endpoints: []string{"mem://other"}})
			}
			settle(30 * time.Second)
			if !slices.Equal(s.dials, []string{"one", "other"}) {
				t.Fatalf("dialed %v", s.dials)
			}
		})
	})
}

// TestDD16OnlyWhatTheApplicationHasSeenIsConfirmed: a handler that hangs holds back the
// ack and the stored cursor; a crash there shows the message again.
func TestDD16OnlyWhatTheApplicationHasSeenIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := newToy(), &Memory{}
		release := make(chan struct{})
		alice, _ := newClient(t, s, "alice", func(o *Options) {
			o.Store = store
			o.On.Message = func(*Message) { <-release }
		})
		connect(t, alice)
		s.say("bob", "alice", "m")
		settle(5 * time.Second)
		saved, _ := store.Load()
		if s.acked["alice"] != 0 || saved.Cursor.Version != 0 {
			t.Fatalf("acked %d, stored %d", s.acked["alice"], saved.Cursor.Version)
		}
		// Sending goes on meanwhile.
		if _, err := alice.Send(t.Context(), Outgoing{To: "bob", Text: "x"}); err != nil {
			t.Fatal(err)
		}
		close(release)
		settle(time.Second)
		if s.acked["alice"] != 2 {
			t.Fatalf("acked %d", s.acked["alice"])
		}
		alice.Close()
	})
}

func TestASlowApplicationStopsTheReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newToy()
		release := make(chan struct{})
		n := 0
		alice, _ := newClient(t, s, "alice", func(o *Options) {
			o.On.Message = func(*Message) {
				if n++; n == 1 {
					<-release
				}
			}
		})
		defer alice.Close()
		connect(t, alice)
		for i := range 3000 {
			s.say("bob", "alice", fmt.Sprint(i))
		}
		settle(time.Second)
		alice.mu.Lock()
		backlog := alice.backlog
		alice.mu.Unlock()
		if backlog > backlogLimit+100 {
			t.Fatalf("%d events wait", backlog)
		}
		close(release)
		settle(time.Minute)
		if n != 3000 {
			t.Fatalf("%d shown", n)
		}
	})
}

func TestSendWhileOfflineThenRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	synctest.Test(t, func(t *testing.T) {
		s := newToy()
		store, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		alice, _ := newClient(t, s, "alice", func(o *Options) { o.Store = store })
		if _, err := alice.SendAsync(Outgoing{To: "bob", ClientMsgID: "m1", Text: "later"}); err != nil {
			t.Fatal(err)
		}
		alice.Close()
		store.Close()

		if store, err = OpenFile(path); err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		alice, _ = newClient(t, s, "alice", func(o *Options) { o.Store = store })
		defer alice.Close()
		connect(t, alice)
		settle(time.Second)
		if got := s.stored("p:alice:bob"); !slices.Equal(got, []string{"m1"}) {
			t.Fatalf("stored %v", got)
		}
		if len(alice.Outbox()) != 0 {
			t.Fatalf("outbox %v", alice.Outbox())
		}
	})
}

type brokenStore struct {
	Memory
	err error
}

func (b *brokenStore) Save(c *core.Change) error {
	if b.err != nil {
		return b.err
	}
	return b.Memory.Save(c)
}

func TestAFailedStoreStopsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := newToy(), &brokenStore{}
		alice, _ := newClient(t, s, "alice", func(o *Options) { o.Store = store })
		defer alice.Close()
		connect(t, alice)
		settle(time.Second)
		store.err = errors.New("disk full")
		_, err := alice.Send(t.Context(), Outgoing{To: "bob", Text: "x"})
		if !errors.Is(err, store.err) {
			t.Fatalf("send: %v", err)
		}
		if got := s.stored("p:alice:bob"); len(got) != 0 {
			t.Fatalf("written although not saved: %v", got)
		}
		if err := alice.Connect(t.Context()); !errors.Is(err, store.err) {
			t.Fatalf("connect: %v", err)
		}
	})
}

func TestCallsAndTheirEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newToy()
		s.before = func(_ *toySession, f *Frame) bool { return f.Cmd == im.Cmd_HISTORY || f.Cmd == im.Cmd_CALL }
		alice, _ := newClient(t, s, "alice")
		connect(t, alice)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := alice.History(ctx, "p:alice:bob", HistoryQuery{}); code.Of(err) != code.Expired {
			t.Fatalf("history: %v", err)
		}
		go func() { time.Sleep(time.Second); s.cut() }()
		if _, err := alice.Call(t.Context(), "order.pay", nil); code.Of(err) != code.UnknownOutcome {
			t.Fatalf("call: %v", err)
		}
		connect(t, alice)
		if err := alice.Sync(t.Context()); err != nil {
			t.Fatalf("sync: %v", err)
		}
		if err := alice.Logout(t.Context()); err != nil {
			t.Fatalf("logout: %v", err)
		}
		if state, _ := alice.State(); state != Stopped {
			t.Fatalf("after logout: %v", state)
		}
		alice.Close()
		alice.Close()
		if _, err := alice.Send(t.Context(), Outgoing{To: "bob"}); !errors.Is(err, ErrClosed) {
			t.Fatalf("after close: %v", err)
		}
	})
}

func TestBadOptions(t *testing.T) {
	good := Options{Endpoints: []string{"tcp://h:1"}, Token: Token("x"), Device: "d"}
	for name, change := range map[string]func(*Options){
		"no endpoint": func(o *Options) { o.Endpoints = nil },
		"bad scheme":  func(o *Options) { o.Endpoints = []string{"ftp://h:1"} },
		"no host":     func(o *Options) { o.Endpoints = []string{"tcp:7000"} },
		"no token":    func(o *Options) { o.Token = nil },
		"no device":   func(o *Options) { o.Device = "" },
	} {
		o := good
		change(&o)
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: taken", name)
		}
	}
}
