package logic

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/presence"
)

// kicked returns the KICK among frames, and the code the connection is closed with.
func kicked(t testing.TB, frames []*tier.Down) (*im.Kick, code.Code) {
	t.Helper()
	d := one(t, frames, im.Cmd_KICK)
	return decode(t, d, &im.Kick{}), code.Code(d.Close)
}

func (w *world) online(uid string) int {
	w.t.Helper()
	e, err := w.presence.Get(context.Background(), []presence.User{{Tenant: tenant, UID: uid}})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(e[0].Routes)
}

func TestAuthAnswersWithTheChangesSinceTheCursor(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		alice.frames()
		bob := w.client("bob", "b1", 2)
		ack := bob.login(0)
		if ack.Uid != "bob" || ack.Session == "" || ack.HeartbeatS != 25 || len(ack.Sync.Changes) != 1 || ack.Sync.Head != 1 {
			t.Fatalf("answered %+v, sync %+v", ack, ack.Sync)
		}
		equal(t, "session epoch on the frame", bob.session > 0, true)
		equal(t, "routes in the cache", w.online("bob"), 1)
	})
}

func TestAuthRefusesWhatIsWrong(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		for _, c := range []struct {
			name, uid, device string
			auth              *im.Auth
			about             string
		}{
			{"no device", "alice", "", &im.Auth{}, "device"},
			{"another device than the token's", "alice", "a1", &im.Auth{Device: "a2"}, "device"},
			{"bad uid", "alice bob", "a1", &im.Auth{}, "uid"},
			{"long device", "alice", "", &im.Auth{Device: strings.Repeat("d", 65)}, "device"},
			{"huge sync limit", "alice", "a1", &im.Auth{SyncLimit: 501}, "sync_limit"},
			{"bad mods", "alice", "a1", &im.Auth{ModsKnown: []*im.ModsKnown{{Conv: "x"}}}, "mods_known"},
		} {
			b := w.client(c.uid, c.device, 9)
			b.request(im.Cmd_AUTH, c.auth)
			if e := errorOf(t, b.frames(), im.Cmd_AUTH); !strings.Contains(e.Message, c.about) {
				t.Errorf("%s: %q does not name %s", c.name, e.Message, c.about)
			}
		}
		equal(t, "logins", len(w.store.users), 0)
	})
}

// P11: what is committed between the registration of the route and the reading of the
// changes is pushed, after AUTH_ACK.
// Seen to fail: with the route registered after the reading, Bob never gets the message.
func TestP11NothingFallsBetweenRouteAndSync(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		slow := &slowSync{fakeDas: w.das[0], read: make(chan struct{}), answer: make(chan struct{})}
		w.swapDas(slow)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		<-slow.read // the changes are read, and not yet answered
		alice.send("bob", "m1", "hello")
		synctest.Wait()
		equal(t, "frames before AUTH_ACK", len(w.gateway.take(2)), 0)
		close(slow.answer)
		frames := bob.frames()
		if len(frames) != 2 || frames[0].Cmd != uint32(im.Cmd_AUTH) || frames[1].Cmd != uint32(im.Cmd_PUSH) {
			t.Fatalf("bob got %s", names(frames))
		}
		equal(t, "text", texts(pushes(t, frames))[0], "hello")
	})
}

// slowSync holds the answer of a Sync back.
type slowSync struct {
	*fakeDas
	once         sync.Once
	read, answer chan struct{}
}

func (d *slowSync) Sync(ctx context.Context, r *tier.SyncRequest) (*im.SyncRsp, error) {
	out, err := d.fakeDas.Sync(ctx, r)
	d.once.Do(func() { close(d.read) })
	<-d.answer
	return out, err
}

// R27: AUTH of the first connection hangs; the device reconnects; the first AUTH comes
// later. It loses, with a code after which the device reconnects, and kicks nobody.
// Seen to fail: with closeOf always CloseReplaced and refuseLogin a mere error, the device
// is told to stay away, or its stale connection stays open.
func TestR27LosingToOnesOwnDeviceIsNotReplaced(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		first, second := w.client("alice", "a1", 1), w.client("alice", "a1", 2)
		second.login(0)
		first.request(im.Cmd_AUTH, &im.Auth{Device: "a1", ConnectionCounter: 1})
		d := one(t, first.frames(), im.Cmd_AUTH)
		equal(t, "status", code.Code(d.Status).Name(), "stale_login")
		equal(t, "close", code.Code(d.Close).Name(), "close_stale_login")
		equal(t, "frames to the second", len(second.frames()), 0)
		third := w.client("alice", "a1", 3)
		third.login(0)
		kick, closing := kicked(t, second.frames())
		equal(t, "close of the second", closing.Name(), "close_stale_login")
		equal(t, "by", kick.ByDevice, "a1")
		equal(t, "routes in the cache", w.online("alice"), 1)
		w.forgetUsers(0) // another Logic stands in, which knows the third by the cache only
		w.client("alice", "a1", 4).login(0)
		_, closing = kicked(t, third.frames())
		equal(t, "close of the third", closing.Name(), "close_stale_login")
	})
}

// MF-08, P13: one more device of a class that is full takes the place of the oldest.
func TestP13AnotherDeviceReplacesTheOldest(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		first, second := w.client("alice", "a1", 1), w.client("alice", "a2", 2)
		first.login(0)
		second.login(0)
		kick, closing := kicked(t, first.frames())
		equal(t, "close", closing.Name(), "close_replaced")
		equal(t, "by", kick.ByDevice, "a2")
		synctest.Wait()
		equal(t, "routes in the cache", w.online("alice"), 1)
		w.client("bob", "b1", 3).send("alice", "m1", "hello")
		equal(t, "pushes to the replaced", len(pushes(t, first.frames())), 0)
		equal(t, "pushes to the new", len(pushes(t, second.frames())), 1)
		w.logics[0].cfg.Sessions["web"] = ClassPolicy{Slots: 1, RejectNew: true}
		third := w.client("alice", "a3", 4)
		third.request(im.Cmd_AUTH, &im.Auth{Device: "a3"})
		equal(t, "third", errorOf(t, third.frames(), im.Cmd_AUTH).Name, "too_many_sessions")
	}, func(_ *world, c *Config) { c.Sessions = map[string]ClassPolicy{"web": {Slots: 1}} })
}

// P13: a late word of an old connection, or a late logout, cannot remove a newer login.
// Seen to fail: with closed removing the device's route whatever its connection.
func TestP13LateLogoutCannotRemoveANewerLogin(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		first, second := w.client("alice", "a1", 1), w.client("alice", "a1", 2)
		first.login(0)
		second.login(0)
		first.up(&tier.Uplink{Event: tier.Uplink_CLOSED})
		first.request(im.Cmd_LOGOUT, &im.Logout{})
		synctest.Wait()
		equal(t, "routes in the cache", w.online("alice"), 1)
		equal(t, "sessions", len(w.user("alice").sessions), 1)
		w.client("bob", "b1", 3).send("alice", "m1", "hello")
		equal(t, "pushes", len(pushes(t, second.frames())), 1)
		second.request(im.Cmd_LOGOUT, &im.Logout{})
		d := one(t, second.frames(), im.Cmd_LOGOUT)
		equal(t, "close", code.Code(d.Close).Name(), "close_logged_out")
		equal(t, "routes in the cache", w.online("alice"), 0)
		equal(t, "sessions", len(w.user("alice").sessions), 0)
	})
}

// renew sends a renewal of a connection to its home.
func (c *client) renew(cursor uint64) *tier.RenewReply {
	c.w.t.Helper()
	reply, err := c.w.home(c.uid).Renew(context.Background(), &tier.RenewBatch{Gateway: "gw", Boot: "gwboot", Items: []*tier.Renewal{{
		Conn: c.conn, Tenant: tenant, Uid: c.uid, Device: c.device, Class: "web", Platform: "web",
		SessionEpoch: c.session, Epoch: min(cursor, 1), Cursor: cursor,
	}}})
	if err != nil {
		c.w.t.Fatal(err)
	}
	return reply
}

func TestRenewMakesWhatIsMissingAndFindsLosers(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		first, second := w.client("alice", "a1", 1), w.client("alice", "a2", 2)
		first.login(0)
		w.presence.Flush()
		w.forgetUsers(0) // as after a restart
		reply := first.renew(0)
		synctest.Wait()
		equal(t, "routes in the cache", w.online("alice"), 1)
		equal(t, "replaced, behind", len(reply.Replaced)+len(reply.Behind), 0)
		second.login(0)
		reply = first.renew(0)
		if len(reply.Replaced) != 1 || reply.Replaced[0] != 1 {
			t.Fatalf("answered %+v", reply)
		}
		synctest.Wait()
		equal(t, "routes in the cache", w.online("alice"), 1)
	}, func(_ *world, c *Config) { c.Sessions = map[string]ClassPolicy{"web": {Slots: 1}} })
}

// P30: a connection that missed a push is found by its next renewal. One whose push has
// only just gone out is left alone.
func TestP30RenewFindsWhoIsBehind(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		alice.send("bob", "m1", "hello")
		bob.frames() // and loses it
		equal(t, "behind just after the push", len(bob.renew(0).Behind), 0)
		pass(20 * time.Second)
		reply := bob.renew(0)
		if len(reply.Behind) != 1 || reply.Behind[0].Head != 1 || reply.Behind[0].Conn != 2 {
			t.Fatalf("answered %+v", reply)
		}
		equal(t, "behind when level", len(bob.renew(1).Behind), 0)
	})
}

// A push that its gateway never took is behind at once, not after the grace.
func TestLostDownlinkIsFoundByTheNextRenewal(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		var down atomic.Bool
		down.Store(true)
		w.gateway.down = down.Load
		alice.send("bob", "m1", "hello")
		pass(time.Second)
		down.Store(false)
		equal(t, "behind", len(bob.renew(0).Behind), 1)
	})
}

// Cursors are persisted lazily, one mark a device for what came within the delay.
func TestCursorsAreGathered(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		for i := range 5 {
			alice.send("bob", "m"+string(rune('0'+i)), "hello")
			synctest.Wait()
			bob.ack(uint64(i + 1))
		}
		bob.ack(1 << 60) // a claim beyond the head counts as far as the head goes
		pass(4 * time.Second)
		var marks []*tier.CursorMark
		for _, b := range w.das[0].calls {
			for _, it := range b.Items {
				if it.Cursor != nil && it.Cursor.Uid == "bob" {
					marks = append(marks, it.Cursor)
				}
			}
		}
		if len(marks) != 1 || marks[0].Cursor != 5 || marks[0].Epoch != 1 || marks[0].Device != "b1" || marks[0].SessionEpoch != bob.session {
			t.Fatalf("marks %+v", marks)
		}
		bob.up(&tier.Uplink{Event: tier.Uplink_CLOSED, Epoch: 1, Cursor: 5})
		synctest.Wait()
		equal(t, "routes in the cache", w.online("bob"), 0)
	})
}

// ZZ-21: a storm of logins fills its own lane only.
func TestZZ21LoginStormStarvesNobodyElse(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		w.das[0].mute = func(it *tier.Submit) bool { return it.Login != nil } // each login waits for its time-out
		shed := 0
		for i := range 20 {
			c := w.client("carol", "c1", uint64(10+i))
			c.request(im.Cmd_AUTH, &im.Auth{Device: "c1"})
			for _, d := range c.frames() {
				shed++
				equal(t, "code", code.Code(d.Status).Name(), "overloaded")
			}
		}
		equal(t, "shed", shed, 20-4-1)
		alice.send("bob", "m1", "hello")
		decode(t, one(t, alice.frames(), im.Cmd_SEND), &im.SendAck{})
		alice.request(im.Cmd_SYNC, &im.Sync{})
		decode(t, one(t, alice.frames(), im.Cmd_SYNC), &im.SyncRsp{})
		equal(t, "pushed", len(pushes(t, bob.frames())), 1)
	}, func(_ *world, c *Config) { c.Lanes.Session = LaneConfig{Workers: 1, Queue: 4} })
}

// A command that waited past its deadline is not done any more.
func TestExpiredCommandsAreNotDone(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].mute = func(it *tier.Submit) bool { return it.Login != nil }
		alice.request(im.Cmd_AUTH, &im.Auth{Device: "a1", ConnectionCounter: 2})
		body, _ := (&im.Logout{}).Marshal(nil)
		alice.up(&tier.Uplink{Cmd: uint32(im.Cmd_LOGOUT), Seq: 9, Body: body, TtlMs: 500})
		pass(15 * time.Second)
		equal(t, "code", errorOf(t, alice.frames()[1:], im.Cmd_LOGOUT).Name, "expired")
		equal(t, "sessions", len(w.user("alice").sessions), 1)
	})
}

// Before Run and after it calls are refused, so that callers go elsewhere; on the way
// down what was taken is finished.
func TestStoppingFinishesWhatWasTaken(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].delay = 500 * time.Millisecond
		alice.send("bob", "m1", "hello")
		w.stops[0]()
		w.stops[0] = func() {}
		decode(t, one(t, alice.frames(), im.Cmd_SEND), &im.SendAck{})
		_, err := w.logics[0].Uplink(context.Background(), &tier.UplinkBatch{})
		equal(t, "code", code.Of(err).Name(), "unavailable")
		l, err := New(DefaultConfig(), w.logics[0].deps)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Deliver(context.Background(), &tier.DeliverBatch{})
		equal(t, "code before Run", code.Of(err).Name(), "unavailable")
	})
}

// A connection whose cursor stands still only says that it lives: das then reads and writes
// nothing of the device.
func TestIdleConnectionOnlySaysThatItLives(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		marks := func() (alive, stored int) {
			w.das[0].mu.Lock()
			defer w.das[0].mu.Unlock()
			for _, b := range w.das[0].calls {
				for _, it := range b.Items {
					switch c := it.Cursor; {
					case c == nil || c.Uid != "bob":
					case c.Alive:
						alive++
					default:
						stored++
					}
				}
			}
			w.das[0].calls = nil
			return alive, stored
		}
		renew := func() {
			_, err := w.logics[0].Renew(context.Background(), &tier.RenewBatch{Gateway: "gw", Boot: "gwboot", Items: []*tier.Renewal{{
				Conn: 2, Tenant: tenant, Uid: "bob", Device: "b1", Class: "web", SessionEpoch: bob.session,
				Epoch: 1, Cursor: w.user("bob").cursors["b1"],
			}}})
			if err != nil {
				t.Fatal(err)
			}
			pass(5 * time.Second)
		}
		renew()
		marks()
		for range 3 {
			renew()
		}
		alive, stored := marks()
		equal(t, "alive while nothing moves", alive, 3)
		equal(t, "stored while nothing moves", stored, 0)
		alice.send("bob", "m1", "hello")
		synctest.Wait()
		bob.ack(1)
		pass(5 * time.Second)
		_, stored = marks()
		equal(t, "stored after an ack", stored, 1)
		equal(t, "cursor", w.user("bob").cursors["b1"], 1)
		pass(storeAgain)
		renew()
		_, stored = marks()
		equal(t, "stored once more", stored, 1)
	})
}
