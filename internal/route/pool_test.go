package route_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/control"
	"hongyan/internal/route"
)

// center is a control centre whose state the test sets.
type center struct {
	control.Center
	states chan control.Members
	fail   error // answered once by Watch
}

func (c *center) Watch(ctx context.Context, _ string, fn func(control.Members)) error {
	if err := c.fail; err != nil {
		c.fail = nil
		return err
	}
	for {
		select {
		case state := <-c.states:
			fn(state)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// members are n slots, all registered but those in gone.
func members(n int, gone ...int) control.Members {
	m := control.Members{Slots: n}
next:
	for slot := range n {
		for _, g := range gone {
			if g == slot {
				continue next
			}
		}
		m.Instances = append(m.Instances, control.Instance{Tier: "logic", Slot: slot, Addr: fmt.Sprint("a", slot), Boot: "b1"})
	}
	return m
}

// dialer counts dials and can refuse them.
type dialer struct {
	mu    sync.Mutex
	dials map[string]int
	fail  map[string]bool
}

func (d *dialer) dial(addr string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials[addr]++
	if d.fail[addr] {
		return "", errors.New("refused")
	}
	return "client of " + addr, nil
}

func run(t *testing.T, first control.Members, body func(*route.Pool[string], *center, *dialer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &center{states: make(chan control.Members)}
		d := &dialer{dials: map[string]int{}, fail: map[string]bool{}}
		p := route.NewPool(c, "logic", d.dial, route.PoolOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		set(c, first)
		body(p, c, d)
		cancel()
		running.Wait()
	})
}

func set(c *center, m control.Members) {
	c.states <- m
	synctest.Wait()
}

// slotOf is where the pool sends h, -1 when unavailable.
func slotOf(t *testing.T, p *route.Pool[string], h uint64) int {
	t.Helper()
	peer, err := p.Pick(h)
	if code.Of(err) == code.Unavailable {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	if peer.Client != "client of "+peer.Addr {
		t.Fatalf("peer %+v", peer)
	}
	return peer.Slot
}

// A failed instance is passed over for one second, its keys go where their walk says, and
// then they come back.
func TestZZ17FailedInstanceIsDownForAWhile(t *testing.T) {
	run(t, members(4), func(p *route.Pool[string], _ *center, d *dialer) {
		for _, h := range keys(100) {
			peer, err := p.Pick(h)
			if err != nil || peer.Slot != int(h%4) {
				t.Fatalf("%d: %+v, %v", h, peer, err)
			}
			changed := p.Changed()
			p.Failed(peer)
			select {
			case <-changed:
			default:
				t.Fatal("nobody hears of an instance that is down")
			}
			for range 3 {
				if got, want := slotOf(t, p, h), pick(h, 4, peer.Slot); got != want {
					t.Fatalf("%d goes to slot %d, want %d", h, got, want)
				}
			}
			time.Sleep(time.Second - time.Nanosecond)
			if slotOf(t, p, h) == peer.Slot {
				t.Fatal("back too early")
			}
			time.Sleep(time.Nanosecond)
			if got := slotOf(t, p, h); got != peer.Slot {
				t.Fatalf("%d stays at slot %d", h, got)
			}
		}
		for addr, n := range d.dials {
			if n != 1 {
				t.Errorf("%s dialled %d times", addr, n)
			}
		}
	})
}

func TestAllDownIsUnavailable(t *testing.T) {
	run(t, members(3), func(p *route.Pool[string], _ *center, _ *dialer) {
		for _, peer := range p.All() {
			p.Failed(peer)
		}
		_, err := p.Pick(7)
		e := code.From(err)
		if e.Code != code.Unavailable || e.RetryAfter != time.Second {
			t.Errorf("%v, retry after %v", err, e.RetryAfter)
		}
		if len(p.All()) != 3 {
			t.Error("All leaves out instances that are down")
		}
	})
}

// A dead instance keeps its slot: n stays, so nobody else's keys move.
func TestZZ16MembershipChanges(t *testing.T) {
	run(t, control.Members{}, func(p *route.Pool[string], c *center, d *dialer) {
		h := keys(1)[0]
		if p.Slots() != 0 || slotOf(t, p, h) != -1 {
			t.Error("an unknown tier has instances")
		}
		changed := p.Changed()
		set(c, members(3))
		<-changed
		own := int(h % 3)
		if p.Slots() != 3 || slotOf(t, p, h) != own {
			t.Errorf("%d slots, key at %d", p.Slots(), slotOf(t, p, h))
		}
		before, _ := p.Pick(h)

		set(c, members(3, own)) // it dies
		if got, want := slotOf(t, p, h), pick(h, 3, own); got != want || p.Slots() != 3 {
			t.Errorf("slot %d of %d, want %d of 3", got, p.Slots(), want)
		}
		set(c, members(3)) // it is back, in a new life
		if slotOf(t, p, h) != own || d.dials[before.Addr] != 2 {
			t.Errorf("slot %d after %d dials", slotOf(t, p, h), d.dials[before.Addr])
		}

		next := members(3)
		next.Instances[own].Boot = "b2"
		set(c, next)
		p.Failed(before) // a late word about the old life
		if slotOf(t, p, h) != own {
			t.Error("the new life suffers for the old one")
		}
		peer, _ := p.Pick(h)
		p.Failed(peer)
		set(c, next)
		if slotOf(t, p, h) == own {
			t.Error("a new word from the centre made an instance that is down look alive")
		}
		set(c, control.Members{Slots: 2, Instances: []control.Instance{{Slot: 5, Addr: "x"}, {Slot: -1, Addr: "y"}}})
		if slotOf(t, p, h) != -1 {
			t.Error("instances outside of the slots were used")
		}
	})
}

func TestAtDialsOnce(t *testing.T) {
	run(t, members(2), func(p *route.Pool[string], c *center, d *dialer) {
		for range 3 {
			for _, addr := range []string{"a0", "elsewhere"} {
				if client, err := p.At(addr); err != nil || client != "client of "+addr {
					t.Errorf("%q, %v", client, err)
				}
			}
		}
		set(c, members(2, 0))
		p.At("a0")
		if d.dials["elsewhere"] != 1 || d.dials["a0"] != 2 {
			t.Errorf("dials %v: a client is kept while its address is part of the tier", d.dials)
		}
		d.fail["bad"] = true
		if _, err := p.At("bad"); err == nil {
			t.Error("a failed dial gave a client")
		}
		if _, err := p.At(""); err == nil {
			t.Error("no address gave a client")
		}
	})
}

func TestInstanceThatCannotBeDialledIsPassedOver(t *testing.T) {
	run(t, members(2), func(p *route.Pool[string], c *center, d *dialer) {
		d.fail["a0"] = true
		for range 5 {
			if got := slotOf(t, p, 0); got != 1 {
				t.Errorf("slot %d", got)
			}
		}
		if d.dials["a0"] != 1 {
			t.Errorf("dialled %d times within a second", d.dials["a0"])
		}
		if peers := p.All(); len(peers) != 1 || peers[0].Slot != 1 {
			t.Errorf("all: %v", peers)
		}
		d.fail["a0"] = false
		time.Sleep(time.Second)
		if got := slotOf(t, p, 0); got != 0 {
			t.Errorf("slot %d", got)
		}
	})
}

func TestWatchIsRetriedAndTheTableStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &center{states: make(chan control.Members), fail: errors.New("centre is down")}
		d := &dialer{dials: map[string]int{}}
		p := route.NewPool(c, "logic", d.dial, route.PoolOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		set(c, members(2)) // waits for the second Watch
		if p.Slots() != 2 {
			t.Errorf("%d slots", p.Slots())
		}
		cancel()
		running.Wait()
	})
}

func TestPickAllocatesNothing(t *testing.T) {
	run(t, members(4), func(p *route.Pool[string], _ *center, _ *dialer) {
		peer, _ := p.Pick(0)
		p.Failed(peer)
		p.Pick(0)
		if n := testing.AllocsPerRun(100, func() { p.Pick(0) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// Callers, failures and changes of the tier at once (run with -race).
func TestPoolConcurrently(t *testing.T) {
	run(t, members(4), func(p *route.Pool[string], c *center, _ *dialer) {
		var callers sync.WaitGroup
		for i := range 4 {
			callers.Go(func() {
				for _, h := range keys(500) {
					peer, err := p.Pick(h)
					if err == nil && h%8 == uint64(i) {
						p.Failed(peer)
					}
					p.At(fmt.Sprint("a", i))
					p.All()
					p.Changed()
				}
			})
		}
		for i := range 50 {
			c.states <- members(4, i%4)
		}
		callers.Wait()
	})
}

// Each duty is asked of those who serve it, and of nobody else when they are down (ZZ-21);
// while all serve everything, duties make no difference.
func TestZZ21PickForMeetsWhoServesTheDuty(t *testing.T) {
	whole := members(5)
	run(t, whole, func(p *route.Pool[string], c *center, _ *dialer) {
		for _, h := range keys(200) {
			peer, err := p.PickFor("session", h)
			if err != nil || peer.Slot != int(h%5) || p.Place("session", h) != peer.Slot || p.Split() {
				t.Fatalf("%d: %+v, %v", h, peer, err)
			}
		}
		split := members(5)
		for i := range split.Instances {
			split.Instances[i].Serves = []string{"session", "session,open", "message", "message", "message"}[i]
		}
		set(c, split)
		if !p.Split() {
			t.Fatal("is not split")
		}
		for _, h := range keys(200) {
			for task, slots := range map[string][]int{"session": {0, 1}, "message": {2, 3, 4}, "open": {1}} {
				peer, err := p.PickFor(task, h)
				if want := among(h, 5, slots...); err != nil || peer.Slot != want || p.Place(task, h) != want {
					t.Fatalf("%s of %d: %+v, %v, want slot %d", task, h, peer, err, want)
				}
			}
			if _, err := p.PickFor("contact", h); code.Of(err) != code.Unavailable {
				t.Fatalf("nobody serves contact: %v", err)
			}
		}
		h := uint64(2) // its own slot serves its message
		peer, _ := p.PickFor("message", h)
		p.Failed(peer)
		next, err := p.PickFor("message", h)
		if want := among(h, 5, 3, 4); err != nil || peer.Slot != 2 || next.Slot != want || p.Place("message", h) != 2 {
			t.Fatalf("%+v stands in for %+v, %v, want slot %d", next, peer, err, want)
		}
	})
}
