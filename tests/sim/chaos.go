package sim

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hongyan/das/store"
	"hongyan/internal/conv"
)

func sortSeats(seats []*seat) {
	slices.SortFunc(seats, func(a, b *seat) int { return strings.Compare(a.addr, b.addr) })
}

// chaos strikes whole processes until the faults are over.
func (c *cluster) chaos(ctx context.Context) {
	rng := newRand(c.seed, "chaos")
	for {
		wait := time.Duration(rng.ExpFloat64() * float64(c.profile.chaos.every))
		if sleep(ctx, min(wait, time.Hour)) != nil {
			return
		}
		c.strike(ctx, rng)
	}
}

// strike draws one blow. It draws as many numbers whatever it hits.
func (c *cluster) strike(ctx context.Context, rng *rand.Rand) {
	o := c.profile.chaos
	kind, pick, other, length := rng.Float64(), rng.Float64(), rng.Float64(), rng.Float64()
	blows := []struct {
		odds float64
		hit  func()
	}{
		{o.crash, func() { c.strikeCrash(c.pick(pick)) }},
		{o.pause, func() { c.strikePause(ctx, c.pick(pick), time.Second+scaled(length, 29*time.Second)) }},
		{o.cut, func() { c.strikeCut(ctx, c.pick(pick), c.pick(other), kind*1e6, scaled(length, 20*time.Second)) }},
		{o.wholeTier, func() { c.strikeTier(c.pick(pick).tier) }},
		{o.flush, func() { c.stats.count("presence flushed"); c.presence.Flush() }},
		{o.cacheDown, func() { c.strikeFlag(ctx, "presence down", &c.queue.cacheDown, scaled(length, 20*time.Second)) }},
		{o.failover, func() { c.several.strike(ctx, pick, other, length) }},
		{o.move, func() { c.several.move(someKey(pick, other), int(length*40)) }},
		{o.queueDown, func() { c.strikeFlag(ctx, "queue down", &c.queue.down, scaled(length, 20*time.Second)) }},
	}
	sum := 0.0
	for _, b := range blows {
		sum += b.odds
	}
	at := kind * sum
	for _, b := range blows {
		if at < b.odds {
			b.hit()
			return
		}
		at -= b.odds
	}
}

// someKey names a user, or a conversation of two.
func someKey(pick, other float64) store.Key {
	k := store.Key{Tenant: "acme", ID: fmt.Sprintf("u%d", int(pick*6))}
	if other < 0.5 {
		k.ID, _ = conv.Private(k.ID, fmt.Sprintf("u%d", int(pick*6)+1))
	}
	return k
}

func scaled(f float64, d time.Duration) time.Duration { return time.Duration(f * float64(d)) }

// pick chooses a seat.
func (c *cluster) pick(f float64) *seat { return c.seats[int(f*float64(len(c.seats)))%len(c.seats)] }

func (c *cluster) strikeCrash(s *seat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.proc != nil {
		c.stats.count("crash " + s.tier)
		c.crashLocked(s)
		c.restartLater(s)
	}
}

func (c *cluster) strikeTier(tier string) {
	c.stats.count("whole tier down")
	for _, s := range c.seats {
		if s.tier == tier {
			c.strikeCrash(s)
		}
	}
}

// restartLater starts the next life of a seat after a while. Every seat draws the lengths
// of its absences in order.
func (c *cluster) restartLater(s *seat) {
	rng := newRand(c.seed, "restart", s.addr, string(rune('0'+s.lives)))
	wait := 100*time.Millisecond + time.Duration(min(rng.ExpFloat64(), 4)*float64(4*time.Second))
	c.work.Go(func() {
		if sleep(c.ctx, wait) != nil {
			return
		}
		if err := c.start(s); err != nil {
			c.history.violate("%v", err)
		}
	})
}

// leaseTime is how long the control centre believes in a process that says nothing.
const leaseTime = 5 * time.Second

// endLease takes a registration back when its process has been silent for leaseTime.
func (c *cluster) endLease(s *seat, p *process) {
	lease := s.lease
	c.work.Go(func() {
		if sleep(c.ctx, leaseTime) != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.proc == nil || s.proc == p && p.paused() {
			lease()
		}
	})
}

// strikePause stops a process for a while. Its lease may end meanwhile.
func (c *cluster) strikePause(ctx context.Context, s *seat, length time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := s.proc
	if p == nil || p.paused() {
		return
	}
	c.stats.count("pause " + s.tier)
	p.pause()
	if c.profile.registered {
		c.endLease(s, p)
	}
	c.work.Go(func() {
		_ = sleep(ctx, length)
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.proc == p {
			c.registerLocked(s)
		}
		p.resume()
	})
}

// strikeCut breaks one or both directions between two addresses.
func (c *cluster) strikeCut(ctx context.Context, a, b *seat, mode float64, length time.Duration) {
	if a == b {
		return
	}
	c.stats.count("partition")
	how := silent
	if int(mode)%2 == 0 {
		how = refused
	}
	both := int(mode)%3 != 0
	c.net.cutEdge(a.addr, b.addr, how)
	if both {
		c.net.cutEdge(b.addr, a.addr, how)
	}
	c.work.Go(func() {
		_ = sleep(ctx, length)
		c.net.cutEdge(a.addr, b.addr, whole)
		c.net.cutEdge(b.addr, a.addr, whole)
	})
}

// heal ends all faults: what is down starts, what is paused resumes.
func (c *cluster) heal() {
	c.calm.Store(true)
	c.net.setCalm()
	c.queue.down.Store(false)
	c.queue.cacheDown.Store(false)
	if c.several != nil {
		c.several.heal()
	}
	c.mu.Lock()
	empty := slices.Clone(c.seats)
	for _, s := range c.seats {
		if s.proc != nil && s.proc.paused() {
			c.registerLocked(s)
			s.proc.resume()
		}
	}
	c.mu.Unlock()
	slices.SortFunc(empty, func(a, b *seat) int { return cmp.Compare(a.addr, b.addr) })
	for _, s := range empty {
		if err := c.start(s); err != nil {
			c.history.violate("%v", err)
		}
	}
}

// strikeFlag takes something beside the tiers out of service for a while.
func (c *cluster) strikeFlag(ctx context.Context, what string, flag *atomic.Bool, length time.Duration) {
	c.stats.count(what)
	flag.Store(true)
	c.work.Go(func() {
		_ = sleep(ctx, length)
		flag.Store(false)
	})
}
