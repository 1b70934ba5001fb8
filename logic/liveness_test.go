package logic

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/presence"
)

// register announces the tests' gateway; it is gone when the returned function was called.
func (w *world) register(boot string) (leave func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := w.center.Register(ctx, control.Instance{Tier: "entry", Addr: "gw", Boot: boot}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return func() { cancel(); synctest.Wait() }
}

// Routes of a gateway that died go with it: who has no other is woken at once, not after
// three periods without a renewal. One that answers has only lost its registration.
// Seen to fail: without followGateways the route stays for a minute, and nobody is woken
// before his delivery is overdue.
func TestR21RoutesOfADeadGatewayAreIgnoredAtOnce(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		var dead atomic.Bool
		leave := w.register("gwboot")
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		leave()
		pass(3 * time.Second)
		equal(t, "routes while it answers", w.knows(w.logics[0], "bob"), 1)

		leave = w.register("gwboot")
		alice.send("bob", "m1", "hello")
		synctest.Wait()
		w.gateway.mu.Lock()
		w.gateway.down = dead.Load
		w.gateway.mu.Unlock()
		dead.Store(true)
		leave()
		pass(2 * time.Second)
		equal(t, "routes", w.knows(w.logics[0], "bob"), 0)
		equal(t, "routes in the cache", w.online("bob"), 0)
		equal(t, "wakes", len(w.queue.take()), 1)
		s, _ := w.logics[0].users.lock(tenant, "bob")
		equal(t, "its routes in the cache are worth a try", w.logics[0].usable(&user{}, bobRoute()), false)
		s.Unlock()

		// It was the network: it calls again, and is believed.
		dead.Store(false)
		if _, err := w.logics[0].Renew(context.Background(), &tier.RenewBatch{Gateway: "gw", Boot: "gwboot", Items: []*tier.Renewal{{
			Conn: 2, Tenant: tenant, Uid: "bob", Device: "b1", Class: "web", SessionEpoch: bob.session,
		}}}); err != nil {
			t.Fatal(err)
		}
		equal(t, "routes", w.knows(w.logics[0], "bob"), 1)
		equal(t, "its routes in the cache are worth a try", w.logics[0].usable(&user{}, bobRoute()), true)
	})
}

// Another life at the same address says that the one before it has ended, without a call.
func TestR21RestartedGatewayHasNoneOfItsRoutes(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.register("gwboot")
		bob := w.client("bob", "b1", 2)
		bob.login(0)
		leave := w.register("next life")
		defer leave()
		equal(t, "routes", w.knows(w.logics[0], "bob"), 0)
	})
}

func bobRoute() presence.Route {
	return presence.Route{Device: "b1", Gateway: "gw", Boot: "gwboot", Conn: 2}
}
