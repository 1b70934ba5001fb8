package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"hongyan/internal/mq"
)

// readBatch is how many entries are read from the log at once.
const readBatch = 256

// keepStep is how many entries become superfluous before the log is asked to drop them.
const keepStep = 1024

// warnEvery bounds the log lines of a group whose handler fails.
const warnEvery = 10 * time.Second

// group delivers a topic to the members of one group. One goroutine, run, reads the log
// and starts handlers; handlers report to finish.
type group struct {
	q           *Queue
	topic, name string
	wake        chan struct{} // capacity 1: one token says "look again"
	handlers    sync.WaitGroup

	running bool // guarded by q.mu: run has been started

	mu      sync.Mutex
	next    uint64    // first number that is not loaded
	resume  []Pending // unfinished of an earlier life, not loaded yet
	lanes   *lanes
	open    map[uint64]*item     // loaded and not finished
	due     map[uint64]time.Time // of those that failed
	touched uint64               // highest number finished or failed
	busy    int                  // handlers running
	members []*member
	turn    int  // of the member that is next
	dirty   bool // State has changed since it was saved
	saved   time.Time
	low     uint64 // what a saved State still needs of the log
	failed  int    // failures since the last warning
	warned  time.Time
}

type member struct {
	ctx     context.Context
	handler mq.Handler
}

func newGroup(q *Queue, topicName, name string, s State) *group {
	g := &group{
		q: q, topic: topicName, name: name, wake: make(chan struct{}, 1),
		next: max(1, s.Next), resume: s.Pending, lanes: newLanes(),
		open: map[uint64]*item{}, due: map[uint64]time.Time{},
	}
	g.touched = g.next - 1
	g.low = max(1, s.low())
	return g
}

func (g *group) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// join adds a member until ctx ends.
func (g *group) join(ctx context.Context, handler mq.Handler) {
	g.mu.Lock()
	g.members = append(g.members, &member{ctx, handler})
	g.mu.Unlock()
	g.signal()
}

// run delivers until the queue closes; then it waits for the handlers and saves the state.
func (g *group) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, err := g.step()
		if err != nil {
			g.q.opt.Log.Error("queue log failed", "topic", g.topic, "group", g.name, "err", err)
			next = time.Now().Add(g.q.opt.MaxBackoff)
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-g.wake:
		case <-timer.C:
		case <-g.q.closing:
			g.handlers.Wait()
			if err := g.save(); err != nil {
				g.q.opt.Log.Error("queue state not saved, messages will repeat", "topic", g.topic, "group", g.name, "err", err)
			}
			return
		}
	}
}

// step does what can be done now, and returns when there will be more; zero = when woken.
func (g *group) step() (next time.Time, err error) {
	if err := g.load(); err != nil {
		return next, err
	}
	next = g.start()
	due := g.saveDue()
	if !due.IsZero() && !time.Now().Before(due) {
		return next, g.save()
	}
	if next.IsZero() || !due.IsZero() && due.Before(next) {
		next = due
	}
	return next, nil
}

// load fills the window from the log.
func (g *group) load() error {
	if err := g.loadResumed(); err != nil {
		return err
	}
	end := g.q.committed(g.topic)
	for {
		g.mu.Lock()
		g.members = slices.DeleteFunc(g.members, func(m *member) bool { return m.ctx.Err() != nil })
		from, room := g.next, g.q.opt.Window-g.lanes.loaded
		idle := len(g.members) == 0
		g.q.metrics.Lag.WithLabelValues(g.topic, g.name).Set(float64(end - from + uint64(g.lanes.loaded)))
		g.mu.Unlock()
		if from >= end || room <= 0 || idle {
			return nil
		}
		entries, err := g.q.log.Read(g.topic, from, min(room, readBatch))
		if err != nil {
			return err
		}
		g.mu.Lock()
		g.next = end // where the log has nothing more, whatever was dropped
		for _, e := range entries {
			if e.Group == "" || e.Group == g.name {
				g.addLocked(&item{Entry: e}, time.Time{})
			}
			g.next = e.N + 1
		}
		g.mu.Unlock()
	}
}

// loadResumed loads what an earlier life left unfinished, before anything newer: those
// are the heads of their lanes.
func (g *group) loadResumed() error {
	latest := time.Now().Add(g.q.opt.MaxBackoff) // whatever the clock did meanwhile
	for len(g.resume) > 0 {
		p := g.resume[0]
		entries, err := g.q.log.Read(g.topic, p.N, 1)
		if err != nil {
			return err
		}
		g.mu.Lock()
		if len(entries) == 1 && entries[0].N == p.N {
			due := time.UnixMilli(p.DueMS)
			if due.After(latest) {
				due = latest
			}
			g.addLocked(&item{entries[0], p.Attempt}, due)
		} else {
			g.q.opt.Log.Error("queue log lacks an unfinished message", "topic", g.topic, "group", g.name, "n", p.N)
		}
		g.resume = g.resume[1:]
		g.mu.Unlock()
	}
	return nil
}

func (g *group) addLocked(it *item, due time.Time) {
	g.open[it.N] = it
	if it.attempt > 0 {
		g.due[it.N] = due
	}
	g.lanes.add(it, due)
}

// start runs handlers for what is ready, and returns when the next message becomes so.
func (g *group) start() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.lanes.wake(time.Now())
	for g.busy < g.q.opt.Parallel && len(g.members) > 0 {
		ln := g.lanes.take()
		if ln == nil {
			break
		}
		m := g.members[g.turn%len(g.members)]
		g.turn++
		g.busy++
		it := ln.items[0]
		g.handlers.Go(func() { g.handle(m, ln, it) })
	}
	return next
}

// handle runs the handler once and decides what becomes of the message.
func (g *group) handle(m *member, ln *lane, it *item) {
	err := g.call(m, mq.Message{Topic: it.Topic, Key: it.Key, Payload: it.Payload, Attempt: it.attempt + 1})
	ended := err != nil && m.ctx.Err() != nil && !errors.Is(err, mq.ErrReject)
	dead := err != nil && !ended && (it.attempt+1 >= mq.MaxAttempts || errors.Is(err, mq.ErrReject))
	if dead {
		g.q.opt.Log.Error("message is a dead letter", "topic", it.Topic, "group", g.name, "key", it.Key, "n", it.N, "attempts", it.attempt+1, "err", err)
		if berr := g.bury(it, err); berr != nil {
			g.q.opt.Log.Error("dead letter not stored, the message stays", "topic", it.Topic, "group", g.name, "n", it.N, "err", berr)
			dead = false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	switch {
	case err == nil:
		g.endLocked(ln, it, "done")
	case dead:
		g.endLocked(ln, it, "dead")
	case ended:
		g.lanes.again(ln)
	default:
		g.failLocked(ln, it, err)
	}
	g.signal()
}

// maxError bounds what is kept of a dead letter's last error, in bytes.
const maxError = 512

func (g *group) bury(it *item, err error) error {
	said := strings.ToValidUTF8(err.Error()[:min(len(err.Error()), maxError)], "")
	forgotten, berr := g.q.log.Bury(g.name, Letter{it.Entry, it.attempt + 1, time.Now(), said})
	if forgotten > 0 {
		g.q.metrics.forgotten.WithLabelValues(g.topic, g.name).Add(float64(forgotten))
	}
	return berr
}

// call runs the handler; a panic is an error.
func (g *group) call(m *member, msg mq.Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("handler panicked: %v", r)
			g.q.opt.Log.Error("queue handler panicked", "topic", msg.Topic, "group", g.name, "key", msg.Key, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return m.handler(m.ctx, msg)
}

func (g *group) endLocked(ln *lane, it *item, result string) {
	delete(g.open, it.N)
	delete(g.due, it.N)
	g.touched = max(g.touched, it.N)
	g.dirty = true
	g.lanes.done(ln)
	g.q.metrics.Handled.WithLabelValues(g.topic, g.name, result).Inc()
}

func (g *group) failLocked(ln *lane, it *item, err error) {
	it.attempt++
	now := time.Now()
	due := now.Add(g.backoff(it.attempt))
	g.due[it.N] = due
	g.touched = max(g.touched, it.N)
	g.dirty = true
	g.lanes.wait(ln, due)
	g.q.metrics.Handled.WithLabelValues(g.topic, g.name, "again").Inc()
	if g.failed++; now.Sub(g.warned) >= warnEvery {
		g.q.opt.Log.Warn("queue handler failed, the message comes again", "topic", g.topic, "group", g.name, "key", it.Key,
			"attempt", it.attempt, "in", due.Sub(now), "failures", g.failed, "err", err)
		g.failed, g.warned = 0, now
	}
}

// backoff after so many failures.
func (g *group) backoff(attempt int) time.Duration {
	d := g.q.opt.MinBackoff
	for range attempt - 1 {
		if d *= 2; d >= g.q.opt.MaxBackoff {
			return g.q.opt.MaxBackoff
		}
	}
	return d
}

// saveDue tells when the state is to be saved; zero = it is saved.
func (g *group) saveDue() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.dirty {
		return time.Time{}
	}
	return g.saved.Add(g.q.opt.SaveEvery)
}

func (g *group) save() error {
	g.mu.Lock()
	if !g.dirty {
		g.mu.Unlock()
		return nil
	}
	s := g.stateLocked()
	g.dirty = false
	g.saved = time.Now()
	g.mu.Unlock()
	err := g.q.log.Save(g.topic, g.name, s, g.q.keep(g.topic))
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.dirty = true
		return err
	}
	g.low = s.low()
	return nil
}

// low is the first entry of the log that a group in this state needs.
func (s State) low() uint64 {
	if len(s.Pending) > 0 {
		return min(s.Next, s.Pending[0].N)
	}
	return s.Next
}

// stateLocked is where the group stands. What is loaded beyond the last message touched
// counts as not loaded: it will be read again.
func (g *group) stateLocked() State {
	s := State{Next: g.touched + 1}
	s.Pending = append(s.Pending, g.resume...)
	for n, it := range g.open {
		if n > g.touched {
			continue
		}
		p := Pending{N: n, Attempt: it.attempt}
		if due, ok := g.due[n]; ok {
			p.DueMS = due.UnixMilli()
		}
		s.Pending = append(s.Pending, p)
	}
	slices.SortFunc(s.Pending, func(a, b Pending) int { return cmp.Compare(a.N, b.N) })
	return s
}

// keep is the first entry of a topic that some group still needs, or 0 while fewer than
// keepStep have become superfluous.
func (q *Queue) keep(name string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.topics[name]
	low := t.next
	for _, g := range t.groups {
		g.mu.Lock()
		low = min(low, g.low)
		g.mu.Unlock()
	}
	if low < t.first+keepStep {
		return 0
	}
	t.first = low
	return low
}
