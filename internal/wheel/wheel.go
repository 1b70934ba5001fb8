// Package wheel is a hashed timer wheel: millions of coarse timers (heartbeats, acks) on
// one goroutine. Arming and disarming cost a few pointer writes and no allocation.
package wheel

import (
	"context"
	"sync"
	"time"
)

// Wheel fires its timers from Run, never early and less than a tick late. Its methods are
// safe for concurrent use.
type Wheel struct {
	tick  time.Duration
	start time.Time
	wake  chan struct{} // capacity 1; wakes Run when the first timer is armed

	mu      sync.Mutex
	slots   []Timer // heads of circular lists; a timer linked for tick n is in slot n % len
	expired Timer   // head of those whose time has come, still to be fired
	armed   int
	current int64 // the last tick whose slot was visited
}

// Timer belongs into what it times, a connection for example. The zero value is ready and
// not armed. It must not be copied, and serves one Wheel.
type Timer struct {
	next, prev *Timer // nil when not armed
	due        int64  // tick at which it fires
	at         int64  // tick it is linked for, <= due
	fire       func()
}

// New makes a wheel of the given precision. Timers of up to tick * slots are looked at
// once; longer ones once per round.
func New(tick time.Duration, slots int) *Wheel {
	w := &Wheel{
		tick:  max(tick, 1),
		start: time.Now(),
		wake:  make(chan struct{}, 1),
		slots: make([]Timer, max(slots, 1)),
	}
	for i := range w.slots {
		w.slots[i].reset()
	}
	w.expired.reset()
	return w
}

// Schedule arms the timer, or arms it anew, to call fire once. fire runs on Run's
// goroutine and must not block; it may call Schedule and Stop. nil keeps the fire that the
// timer had: a method value is made once, not with each call.
func (w *Wheel) Schedule(t *Timer, after time.Duration, fire func()) {
	w.mu.Lock()
	if fire != nil {
		t.fire = fire
	}
	t.due = w.ticks(time.Since(w.start) + max(after, 0) + w.tick - 1)
	switch {
	case t.next == nil:
		w.armed++
		w.linkLocked(t)
	case t.due < t.at || t.at <= w.current: // too late where it is, or waiting to be fired
		t.unlink()
		w.linkLocked(t)
	} // otherwise it is moved when its slot comes up: most heartbeats never get there
	first := w.armed == 1
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Stop disarms the timer. It does not wait for a fire that has just begun.
func (w *Wheel) Stop(t *Timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.next != nil {
		t.unlink()
		w.armed--
	}
}

// Run fires timers until ctx ends. Without any armed it sleeps. It is called once.
func (w *Wheel) Run(ctx context.Context) {
	clock := time.NewTimer(0)
	defer clock.Stop()
	for {
		var tick <-chan time.Time
		if pause, any := w.untilNext(); any {
			clock.Reset(pause)
			tick = clock.C
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-tick:
			w.advance()
			for fire := w.pop(); fire != nil && ctx.Err() == nil; fire = w.pop() {
				fire()
			}
		}
	}
}

// untilNext is the time to the next tick, if there is anything to fire.
func (w *Wheel) untilNext() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Since(w.start)
	return time.Duration(w.ticks(now)+1)*w.tick - now, w.armed > 0
}

// advance moves what is due to the expired list. After a long pause every slot is visited
// once, not once per tick missed.
func (w *Wheel) advance() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.ticks(time.Since(w.start))
	first := max(w.current+1, now-int64(len(w.slots))+1)
	w.current = now
	for n := first; n <= now; n++ {
		head := &w.slots[n%int64(len(w.slots))]
		for t := head.next; t != head; {
			next := t.next
			switch {
			case t.due <= now:
				t.unlink()
				t.linkBefore(&w.expired)
			case t.at != t.due: // armed anew since it was linked
				t.unlink()
				w.linkLocked(t)
			}
			t = next
		}
	}
}

// pop takes the next expired timer off its list and returns its fire, nil when none is left.
func (w *Wheel) pop() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.expired.next != &w.expired {
		t := w.expired.next
		t.unlink()
		w.armed--
		if t.fire != nil {
			return t.fire
		}
	}
	return nil
}

func (w *Wheel) ticks(d time.Duration) int64 { return int64(d / w.tick) }

// linkLocked puts the timer into the slot of its due tick; one whose slot was just visited
// waits for the next tick.
func (w *Wheel) linkLocked(t *Timer) {
	t.due = max(t.due, w.current+1)
	t.at = t.due
	t.linkBefore(&w.slots[t.due%int64(len(w.slots))])
}

func (t *Timer) reset() { t.next, t.prev = t, t }

func (t *Timer) linkBefore(head *Timer) {
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
}

func (t *Timer) unlink() {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
}
