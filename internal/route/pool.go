package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/control"
	"hongyan/internal/duty"
)

// PoolOptions of NewPool; the zero value will do.
type PoolOptions struct {
	// DownFor is how long an instance that failed is passed over: it costs one failed call
	// a period, not one per call. Default 1 s.
	DownFor time.Duration
	// Log hears of a control centre that cannot be watched. Default: nobody.
	Log *slog.Logger
}

// Peer is an instance and the client that reaches it.
type Peer[T any] struct {
	control.Instance
	Client T
}

// Pool follows the instances of one tier and picks among them. Its methods are safe for
// concurrent use; Pick takes no lock.
type Pool[T any] struct {
	center control.Center
	tier   string
	dial   func(addr string) (T, error)
	opt    PoolOptions
	start  time.Time // origin of member.downUntil

	table atomic.Pointer[table[T]] // never nil

	mu      sync.Mutex
	clients map[string]T  // by address
	changed chan struct{} // closed at the next change
}

// table is the state of the tier at one moment; only downUntil and client change in it.
type table[T any] struct {
	slots []*member[T] // nil: nobody holds the slot
	split bool         // not everybody serves everything
}

type member[T any] struct {
	control.Instance
	client    atomic.Pointer[T] // nil until first used
	downUntil atomic.Int64      // nanoseconds since Pool.start
}

// NewPool makes a pool that stays empty until Run. dial makes a client of an address
// without waiting for a connection; it is called when the address is first used.
func NewPool[T any](center control.Center, tier string, dial func(addr string) (T, error), opt PoolOptions) *Pool[T] {
	if opt.DownFor <= 0 {
		opt.DownFor = time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool[T]{
		center: center, tier: tier, dial: dial, opt: opt,
		start:   time.Now(),
		clients: map[string]T{},
		changed: make(chan struct{}),
	}
	p.table.Store(&table[T]{})
	return p
}

// watchRetry is the pause before a control centre that failed is watched again. What is
// known of the tier stays in use meanwhile.
const watchRetry = time.Second

// Run follows the control centre until ctx ends.
func (p *Pool[T]) Run(ctx context.Context) error {
	for {
		err := p.center.Watch(ctx, p.tier, p.update)
		if err == nil { // the watch goes on elsewhere, or has ended with ctx
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return nil
		}
		p.opt.Log.Warn("watching the control centre failed", "tier", p.tier, "err", err)
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// update puts a new state of the tier in force. Members that stay keep their client and
// their down mark; a new boot of an instance starts without one.
func (p *Pool[T]) update(state control.Members) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.table.Load()
	next := &table[T]{slots: make([]*member[T], max(0, state.Slots))}
	for _, in := range state.Instances {
		if in.Slot < 0 || in.Slot >= len(next.slots) {
			continue
		}
		m := old.find(in)
		if m == nil {
			m = &member[T]{Instance: in}
		}
		next.slots[in.Slot] = m
		next.split = next.split || in.Serves != ""
	}
	p.forgetLocked(old, next)
	p.table.Store(next)
	p.signalLocked()
}

// forgetLocked drops the clients of addresses that have left the tier. They are not
// closed here: calls may still be under way on them.
func (p *Pool[T]) forgetLocked(old, next *table[T]) {
	stays := map[string]bool{}
	for _, m := range next.slots {
		if m != nil {
			stays[m.Addr] = true
		}
	}
	for _, m := range old.slots {
		if m != nil && !stays[m.Addr] {
			delete(p.clients, m.Addr)
		}
	}
}

func (t *table[T]) find(in control.Instance) *member[T] {
	if in.Slot >= 0 && in.Slot < len(t.slots) {
		if m := t.slots[in.Slot]; m != nil && m.Instance == in {
			return m
		}
	}
	return nil
}

// Slots is n of hash % n: it counts dead instances too. 0 until the tier is known.
func (p *Pool[T]) Slots() int { return len(p.table.Load().slots) }

// Changed returns a channel that is closed at the next change of the tier or of what is
// known to be down. Taken before Pick or Slots, it misses nothing.
func (p *Pool[T]) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *Pool[T]) signalLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Pick returns the first instance of the key's walk that is registered and not known to be
// down; without one, an Unavailable *code.Error.
func (p *Pool[T]) Pick(h uint64) (Peer[T], error) {
	t := p.table.Load()
	now := int64(time.Since(p.start))
	for slot := range Walk(h, len(t.slots)) {
		if peer, ok := p.usable(t.slots[slot], now); ok {
			return peer, nil
		}
	}
	return Peer[T]{}, p.unavailable("")
}

// PickFor is Pick among the instances that have a duty (internal/duty). As long as all have
// all of them it is Pick.
func (p *Pool[T]) PickFor(task string, h uint64) (Peer[T], error) {
	t := p.table.Load()
	if !t.split {
		return p.Pick(h)
	}
	now := int64(time.Since(p.start))
	for slot := range Among(h, len(t.slots)) {
		if m := t.slots[slot]; m != nil && duty.Serves(m.Serves, task) {
			if peer, ok := p.usable(m, now); ok {
				return peer, nil
			}
		}
	}
	return Peer[T]{}, p.unavailable(" for " + task)
}

// Split tells whether some instances have some duties only.
func (p *Pool[T]) Split() bool { return p.table.Load().split }

// Place is the slot that has a key while nobody is down, of a tier that is known: what may
// share a queue with the key.
func (p *Pool[T]) Place(task string, h uint64) int {
	t := p.table.Load()
	n := uint64(max(1, len(t.slots)))
	if t.split {
		for slot := range Among(h, len(t.slots)) {
			if m := t.slots[slot]; m != nil && duty.Serves(m.Serves, task) {
				return slot
			}
		}
	}
	return int(h % n)
}

// usable is a member as a peer, unless it is down or cannot be dialled.
func (p *Pool[T]) usable(m *member[T], now int64) (peer Peer[T], ok bool) {
	if m == nil || m.downUntil.Load() > now {
		return peer, false
	}
	client, err := p.client(m)
	if err != nil {
		p.down(m)
		return peer, false
	}
	return Peer[T]{m.Instance, client}, true
}

func (p *Pool[T]) unavailable(task string) *code.Error {
	err := code.Errorf(code.Unavailable, "no instance of %s%s can be reached", p.tier, task)
	err.RetryAfter = p.opt.DownFor
	return err
}

// client of a member, made on first use.
func (p *Pool[T]) client(m *member[T]) (T, error) {
	if c := m.client.Load(); c != nil {
		return *c, nil
	}
	c, err := p.At(m.Addr)
	if err == nil {
		m.client.Store(&c)
	}
	return c, err
}

// Failed marks an instance as down for a while: a call to it could not be made. A mark
// meant for an earlier life of the instance does nothing.
func (p *Pool[T]) Failed(peer Peer[T]) {
	if m := p.table.Load().find(peer.Instance); m != nil {
		p.down(m)
	}
}

func (p *Pool[T]) down(m *member[T]) {
	now := time.Since(p.start)
	if was := m.downUntil.Swap(int64(now + p.opt.DownFor)); was > int64(now) {
		return // known already
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalLocked()
}

// At returns the client of an address, registered or not: replies go to whoever asked. It
// is dialled once and kept while the address is part of the tier.
func (p *Pool[T]) At(addr string) (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.clients[addr]; ok {
		return c, nil
	}
	var none T
	if addr == "" {
		return none, errors.New("dial " + p.tier + ": no address")
	}
	c, err := p.dial(addr)
	if err != nil {
		return none, fmt.Errorf("dial %s at %s: %w", p.tier, addr, err)
	}
	p.clients[addr] = c
	return c, nil
}

// All returns every registered instance by ascending slot, also those marked down. One
// that cannot be dialled is left out.
func (p *Pool[T]) All() []Peer[T] {
	var peers []Peer[T]
	for _, m := range p.table.Load().slots {
		if m == nil {
			continue
		}
		if client, err := p.client(m); err == nil {
			peers = append(peers, Peer[T]{m.Instance, client})
		}
	}
	return peers
}
