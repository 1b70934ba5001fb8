package logic

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// split lets two Logics serve logins and three messages.
func split(w *world, _ *Config) {
	w.serves = []string{"session", "session,open", "message,contact", "message,contact", "message,contact"}
}

// knows tells how many routes of a user a Logic holds.
func (w *world) knows(l *Logic, uid string) int {
	s, _ := l.users.lock(tenant, uid)
	defer s.Unlock()
	if u := s.all[presence.User{Tenant: tenant, UID: uid}]; u != nil {
		return len(u.conns)
	}
	return 0
}

// routes tells which Logics hold routes of a user.
func (w *world) routes(uid string) (at []string) {
	for _, l := range w.logics {
		if w.knows(l, uid) > 0 {
			at = append(at, l.self.Addr)
		}
	}
	return at
}

// A login is answered by who serves logins; the route is at the home, which pushes.
func TestZZ21LoginIsServedBesideTheHome(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		auth := one(t, bob.frames(), im.Cmd_AUTH)
		ack := decode(t, auth, &im.AuthAck{})
		home := w.home("bob")
		equal(t, "home told to the gateway", auth.Home, home.self.Addr)
		if ack.Uid != "bob" || ack.Session == "" || auth.SessionEpoch == 0 || ack.Sync == nil {
			t.Fatalf("answered %+v", ack)
		}
		if got := w.routes("bob"); !slices.Equal(got, []string{home.self.Addr}) {
			t.Fatalf("routes at %v, the home is %s", got, home.self.Addr)
		}
		equal(t, "routes in the cache", w.online("bob"), 1)
		alice.send("bob", "m1", "hello")
		equal(t, "text", texts(pushes(t, bob.frames()))[0], "hello")
		equal(t, "answers", one(t, alice.frames(), im.Cmd_SEND).Status, 0)
	}, split)
	inWorld(t, 5, 1, func(w *world) {
		bob := w.client("bob", "b1", 2)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		equal(t, "home told where all serve everything", one(t, bob.frames(), im.Cmd_AUTH).Home, "")
	})
}

// P11 holds across the two: what is committed between the registration of the route and the
// reading of the changes is pushed.
// Seen to fail: with the home told after the reading, Bob never gets the message.
func TestP11NothingFallsBetweenTheHomesRouteAndSync(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		slow := &slowSync{fakeDas: w.das[0], read: make(chan struct{}), answer: make(chan struct{})}
		w.swapDas(slow)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		<-slow.read // the changes are read, and not yet answered
		alice.send("bob", "m1", "hello")
		synctest.Wait()
		pushed := w.gateway.take(2) // held back by the gateway until AUTH_ACK
		close(slow.answer)
		one(t, bob.frames(), im.Cmd_AUTH)
		equal(t, "text", texts(pushes(t, pushed))[0], "hello")
	}, split)
}

// A login that takes another device's slot ends its connection, wherever that is known.
func TestZZ21HomeEndsWhatALoginReplaces(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		for i, forget := range []bool{false, true} {
			uid := []string{"alice", "bob"}[i]
			first, second := w.client(uid, "d1", uint64(10*i+1)), w.client(uid, "d2", uint64(10*i+2))
			for _, c := range []*client{first, second} {
				c.request(im.Cmd_AUTH, &im.Auth{Device: c.device, ConnectionCounter: 1})
				if c == second {
					break
				}
				one(t, c.frames(), im.Cmd_AUTH)
				if forget { // the home is a new one: only the presence cache knows
					for i := range w.logics {
						w.forgetUsers(i)
					}
				}
			}
			one(t, second.frames(), im.Cmd_AUTH)
			frames := first.frames()
			i := slices.IndexFunc(frames, func(d *tier.Down) bool { return d.Cmd == uint32(im.Cmd_KICK) })
			if i < 0 || code.Code(frames[i].Close) != code.CloseReplaced {
				t.Fatalf("forgotten %v: the first device got %v", forget, names(frames))
			}
			equal(t, "routes", w.knows(w.home(uid), uid), 1)
			equal(t, "routes in the cache", w.online(uid), 1)
		}
	}, split, func(_ *world, c *Config) { c.Sessions["web"] = ClassPolicy{Slots: 1} })
}

// R27 holds across the two: the home knows a later connection of the device.
func TestR27HomeRefusesAnEarlierLogin(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		alice := w.client("alice", "a1", 2)
		alice.login(0)
		late := &tier.RenewBatch{Gateway: "gw", Boot: "gwboot", Login: true, Items: []*tier.Renewal{{
			Conn: 1, Tenant: tenant, Uid: "alice", Device: "a1", Class: "web", SessionEpoch: alice.session - 1,
		}}}
		reply, err := w.home("alice").Renew(context.Background(), late)
		if err != nil || !slices.Equal(reply.Stale, []uint64{1}) {
			t.Fatalf("answered %+v, %v", reply, err)
		}
		// And who logs him in closes with a code after which he may come back.
		w.server("session", "alice").arrivals.send = func(_ context.Context, _ route.Peer[tier.Logic], items []*arrival) {
			for _, a := range items {
				a.done <- code.Errorf(code.StaleLogin, "late")
			}
		}
		again := w.client("alice", "a1", 3)
		again.request(im.Cmd_AUTH, &im.Auth{Device: "a1", ConnectionCounter: 3})
		d := one(t, again.frames(), im.Cmd_AUTH)
		equal(t, "close", code.Code(d.Close), code.CloseStaleLogin)
	}, split)
}

// A client that leaves before it is answered leaves no route: its end overtook its beginning.
// Seen to fail without left: the route stays until a push or three missed renewals.
func TestZZ21ClientThatLeftInMidLoginHasNoRoute(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		bob := w.client("bob", "b1", 2)
		slow := &slowSync{fakeDas: w.das[0], read: make(chan struct{}), answer: make(chan struct{})}
		w.swapDas(slow)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		<-slow.read
		equal(t, "routes while logging in", w.knows(w.home("bob"), "bob"), 1)
		w.gateway.mu.Lock()
		w.gateway.gone[2] = true
		w.gateway.mu.Unlock()
		close(slow.answer)
		synctest.Wait()
		equal(t, "routes", len(w.routes("bob")), 0)
		equal(t, "routes in the cache", w.online("bob"), 0)
	}, split)
}

// A dead home costs a login one call; with no home at all there is no login.
func TestZZ21LoginsWithoutTheirHome(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		first := w.home("bob")
		w.kill(first.self.Slot)
		bob := w.client("bob", "b1", 2)
		bob.request(im.Cmd_AUTH, &im.Auth{Device: "b1", ConnectionCounter: 1})
		d := one(t, bob.frames(), im.Cmd_AUTH)
		decode(t, d, &im.AuthAck{})
		if at := w.routes("bob"); len(at) != 1 || at[0] != d.Home || d.Home == first.self.Addr {
			t.Fatalf("routes at %v, told %s, dead is %s", at, d.Home, first.self.Addr)
		}
		for _, l := range w.logics[2:] {
			if !w.dead(l.self.Addr) {
				w.kill(l.self.Slot)
			}
		}
		alice := w.client("alice", "a1", 1)
		alice.request(im.Cmd_AUTH, &im.Auth{Device: "a1", ConnectionCounter: 1})
		e := errorOf(t, alice.frames(), im.Cmd_AUTH)
		equal(t, "code", code.Code(e.Code).Name(), code.Unavailable.Name())
		equal(t, "retryable", e.Retryable, true)
	}, split)
}

// LOGOUT ends the session where logins are served; the route ends with the connection.
func TestZZ21LogoutBesideTheHome(t *testing.T) {
	inWorld(t, 5, 1, func(w *world) {
		bob := w.client("bob", "b1", 2)
		bob.login(0)
		bob.request(im.Cmd_LOGOUT, &im.Logout{})
		d := one(t, bob.frames(), im.Cmd_LOGOUT)
		equal(t, "close", code.Code(d.Close), code.CloseLoggedOut)
		equal(t, "sessions", len(w.user("bob").sessions), 0)
		bob.up(&tier.Uplink{Event: tier.Uplink_CLOSED})
		pass(time.Second)
		equal(t, "routes", len(w.routes("bob")), 0)
		equal(t, "routes in the cache", w.online("bob"), 0)
	}, split)
}
