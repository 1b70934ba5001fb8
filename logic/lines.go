package logic

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/internal/batch"
)

// lineKey names one life of an instance.
type lineKey struct{ addr, boot string }

// lines are the queues to the instances of one tier: one batch.Sender each, made on first
// use and given up when idle. P reaches the instance.
type lines[P, T any] struct {
	max, bound int
	timeout    time.Duration // of a call to send; 0 = it sees to that itself
	send       func(ctx context.Context, peer P, items []T)

	mu     sync.RWMutex
	all    map[lineKey]*line[T]
	ctx    context.Context // of the senders; nil until open
	wg     sync.WaitGroup
	closed bool
}

type line[T any] struct {
	*batch.Sender[T]
	cancel context.CancelFunc
	used   atomic.Bool // since the last reap
}

// lineReap is how often lines without traffic are looked for. An idle line is taken out
// of the map at one reap and ended at the next, when nobody can still be adding to it.
const lineReap = 5 * time.Minute

func newLines[P, T any](max, bound int, timeout time.Duration, send func(context.Context, P, []T)) *lines[P, T] {
	return &lines[P, T]{max: max, bound: bound, timeout: timeout, send: send, all: map[lineKey]*line[T]{}}
}

// open lets the lines send until ctx ends.
func (l *lines[P, T]) open(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx = ctx
}

// close waits for the senders; their context has ended.
func (l *lines[P, T]) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
}

// add queues items for an instance, all or none. False: the queue is full, or this Logic
// has stopped.
func (l *lines[P, T]) add(key lineKey, peer P, items ...T) bool {
	l.mu.RLock()
	n := l.all[key]
	l.mu.RUnlock()
	if n == nil {
		if n = l.make(key, peer); n == nil {
			return false
		}
	}
	if !n.used.Load() {
		n.used.Store(true)
	}
	return n.Add(items...)
}

func (l *lines[P, T]) make(key lineKey, peer P) *line[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.all[key]; n != nil {
		return n
	}
	if l.closed || l.ctx == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(l.ctx)
	n := &line[T]{cancel: cancel}
	calls := batch.NewTimeout(l.timeout)
	n.Sender = batch.New(l.max, l.bound, func(ctx context.Context, items []T) {
		if l.timeout > 0 {
			ctx = calls.Context(ctx)
		}
		l.send(ctx, peer, items)
	})
	l.all[key] = n
	l.wg.Go(func() { n.Run(ctx) })
	return n
}

// backlog is how many items wait for an instance.
func (l *lines[P, T]) backlog(key lineKey) int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if n := l.all[key]; n != nil {
		return n.Len()
	}
	return 0
}

// total is how many items wait for all instances.
func (l *lines[P, T]) total() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	sum := 0
	for _, n := range l.all {
		sum += n.Len()
	}
	return sum
}

// reap retires lines that were idle, until ctx ends.
func (l *lines[P, T]) reap(ctx context.Context) {
	var retired []*line[T]
	for sleep(ctx, lineReap) {
		for _, n := range retired {
			n.cancel()
		}
		retired = retired[:0]
		l.mu.Lock()
		for key, n := range l.all {
			if !n.used.Swap(false) && n.Len() == 0 {
				delete(l.all, key)
				retired = append(retired, n)
			}
		}
		l.mu.Unlock()
	}
}

// sleep pauses for d; false: ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
