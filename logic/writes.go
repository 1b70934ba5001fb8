package logic

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/route"
)

// write is one item on its way to a das and back.
type write struct {
	item *tier.Submit
	hash uint64 // of the conversation or user: places it on a das
	// expires is when its outcome counts as unknown.
	expires time.Time
	tries   int
	// outcome takes what became of it, once; nil when das settles no such item.
	outcome outcome
}

// outcome is a *call, a *fanOut or a *waiter: Settled treats the first two together with
// the rows that moved, so that answers and pushes of a user leave in the order of versions.
type outcome interface {
	// failed takes an error, or an unknown outcome.
	failed(l *Logic, err *code.Error)
}

// writes holds what was submitted and is not yet settled, by id.
type writes struct {
	next   atomic.Uint64
	count  atomic.Int64
	shards [64]struct {
		sync.Mutex
		open map[uint64]*write
	}
}

// newWrites numbers from a place of this life's own: das tells its results to an address, and
// one that it owes to an earlier life of this instance must not settle a write of this one.
func newWrites(self control.Instance) *writes {
	w := &writes{}
	w.next.Store(route.Hash(self.Addr, self.Boot))
	for i := range w.shards {
		w.shards[i].open = map[uint64]*write{}
	}
	return w
}

// add gives the item its id.
func (t *writes) add(w *write) {
	id := t.next.Add(1)
	w.item.Id = id
	s := &t.shards[id%64]
	s.Lock()
	s.open[id] = w
	s.Unlock()
	t.count.Add(1)
}

// take removes a write: whoever gets it tells its outcome. nil: somebody else has.
func (t *writes) take(id uint64) *write {
	s := &t.shards[id%64]
	s.Lock()
	w := s.open[id]
	delete(s.open, id)
	s.Unlock()
	if w != nil {
		t.count.Add(-1)
	}
	return w
}

// has tells whether a write still waits for its outcome.
func (t *writes) has(id uint64) bool {
	s := &t.shards[id%64]
	s.Lock()
	defer s.Unlock()
	return s.open[id] != nil
}

// expired takes the writes whose time is up.
func (t *writes) expired(now time.Time) []*write {
	var old []*write
	for i := range t.shards {
		s := &t.shards[i]
		s.Lock()
		for id, w := range s.open {
			if now.After(w.expires) {
				old = append(old, w)
				delete(s.open, id)
			}
		}
		s.Unlock()
	}
	t.count.Add(-int64(len(old)))
	return old
}

// submit puts a write into the batch for its das. An error: nothing was, nor will be, sent.
func (l *Logic) submit(w *write) *code.Error {
	peer, err := l.deps.Das.Pick(w.hash)
	if err != nil {
		return code.From(err)
	}
	if w.outcome != nil {
		l.writes.add(w)
	}
	if !l.das.add(lineKey{peer.Addr, peer.Boot}, peer, w) {
		if w.outcome != nil {
			l.writes.take(w.item.Id)
		}
		return code.Errorf(code.Unavailable, "logic %s: %w", l.self.Addr, errNotRunning)
	}
	return nil
}

// waiting are the writes that somebody still waits for. One that grew old behind a das that
// did not answer must not reach it any more: its sender has been told, and may have repeated
// it so long ago that das does not remember (R10).
func (l *Logic) waiting(items []*write) []*write {
	return slices.DeleteFunc(items, func(w *write) bool { return w.outcome != nil && !l.writes.has(w.item.Id) })
}

// sendWrites is one Submit call to a das. A call that fails may have been taken: its
// items are repeated, marked so, at whatever instance the walk names now.
func (l *Logic) sendWrites(ctx context.Context, das route.Peer[tier.Das], items []*write) {
	if items = l.waiting(items); len(items) == 0 {
		return
	}
	b := &tier.SubmitBatch{Logic: l.self.Addr, Boot: l.self.Boot, Items: make([]*tier.Submit, len(items))}
	for i, w := range items {
		b.Items[i] = w.item
	}
	reply, err := das.Client.Submit(ctx, b)
	if err != nil {
		if ctx.Err() == nil || l.state.Load() == running {
			l.log.Warn("submit failed", "das", das.Addr, "items", len(items), "err", err)
		}
		l.deps.Das.Failed(das)
		for _, w := range items {
			l.resubmit(w)
		}
		return
	}
	for _, r := range reply.Refused {
		if w := l.writes.take(r.Id); w != nil {
			e := code.Errorf(code.Code(r.Code), "%s", r.Message)
			e.RetryAfter = time.Duration(r.RetryAfterMs) * time.Millisecond
			w.outcome.failed(l, e)
		}
	}
}

// resubmit repeats a write whose call failed, unless it was settled meanwhile or its time
// is up. The first repeat is at once, in order: the pool passes over the instance that failed.
func (l *Logic) resubmit(w *write) {
	if w.outcome == nil {
		if w.tries > 0 {
			return // cursors and finished rows: lost ones only repeat work
		}
	} else if !l.writes.has(w.item.Id) {
		return
	}
	w.tries++
	again := *w.item // the das that was called may still hold the first
	again.Repeated = true
	if again.TtlMs > 0 {
		again.TtlMs = max(1, min(again.TtlMs, time.Until(w.expires).Milliseconds()))
	}
	w.item = &again
	send := func() {
		peer, err := l.deps.Das.Pick(w.hash)
		if err != nil || !l.das.add(lineKey{peer.Addr, peer.Boot}, peer, w) {
			l.later.after(backoff(w.tries, resubmitFirst, resubmitMost), func() { l.resubmit(w) })
		}
	}
	if w.tries == 1 {
		send()
		return
	}
	l.later.after(backoff(w.tries-1, resubmitFirst, resubmitMost), send)
}

const (
	resubmitFirst = 50 * time.Millisecond
	resubmitMost  = time.Second
)

// expireWrites tells the outcome of what das never settled: unknown.
func (l *Logic) expireWrites(now time.Time) {
	for _, w := range l.writes.expired(now) {
		l.met.unknown.Inc()
		w.outcome.failed(l, code.Errorf(code.UnknownOutcome, "not settled in time"))
	}
}

// waiter is a goroutine that waits for one outcome.
type waiter struct {
	done chan settlement // capacity 1
}

type settlement struct {
	settled *tier.Settled
	err     *code.Error
}

func (w *waiter) failed(_ *Logic, err *code.Error) { w.done <- settlement{err: err} }

// await submits an item and waits for its outcome, at most until ctx ends.
func (l *Logic) await(ctx context.Context, hash uint64, item *tier.Submit) (*tier.Settled, error) {
	w := &waiter{done: make(chan settlement, 1)}
	expires := time.Now().Add(l.cfg.SettleTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(expires) {
		expires = deadline
	}
	item.TtlMs = max(1, time.Until(expires).Milliseconds())
	if err := l.submit(&write{item: item, hash: hash, expires: expires, outcome: w}); err != nil {
		return nil, err
	}
	select {
	case s := <-w.done:
		if s.err != nil {
			return nil, s.err
		}
		return s.settled, nil
	case <-ctx.Done():
		l.writes.take(item.Id)
		return nil, code.Errorf(code.UnknownOutcome, "not settled in time")
	}
}
