// Package batch gathers items while one call is under way (law 4): a lone item is sent
// at once, and under load a call carries all that came during the one before it.
package batch

import (
	"context"
	"sync"
)

// Sender sends items in the order of Add, one call at a time.
type Sender[T any] struct {
	max   int
	bound int
	send  func(ctx context.Context, items []T)
	wake  chan struct{} // capacity 1: a token that is there already says enough

	mu      sync.Mutex
	queue   []T // not yet given to send
	sending int // items of the call under way
	last    int // size of the last batch, a guess at the next
	parked  bool
	stopped bool
}

// New makes a Sender whose calls carry at most max items (at least 1). bound limits the
// items that wait, 0 = no limit. send owns the slice it is given; it runs on Run's goroutine.
func New[T any](max, bound int, send func(ctx context.Context, items []T)) *Sender[T] {
	if max < 1 {
		max = 1
	}
	return &Sender[T]{max: max, bound: bound, send: send, wake: make(chan struct{}, 1)}
}

// Add queues the items, all or none. It never blocks. False: they would exceed the bound
// (more at once than the bound never fit), or Run has ended.
func (s *Sender[T]) Add(items ...T) bool {
	s.mu.Lock()
	if s.stopped || s.bound > 0 && len(s.queue)+len(items) > s.bound {
		s.mu.Unlock()
		return false
	}
	if s.queue == nil && len(items) < s.last {
		s.queue = make([]T, 0, s.last)
	}
	s.queue = append(s.queue, items...)
	wake := s.parked && len(s.queue) > 0
	if wake {
		s.parked = false
	}
	s.mu.Unlock()
	if wake {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// Len is the number of items taken by Add that send has not finished with: those that
// wait and those of the call under way.
func (s *Sender[T]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) + s.sending
}

// Run calls send until ctx ends, which also ends the ctx of the call under way. What
// still waits then is not sent: who must not lose it waits for Len to reach 0 before.
// Run is called once.
func (s *Sender[T]) Run(ctx context.Context) {
	defer s.stop()
	for ctx.Err() == nil {
		items := s.take()
		if len(items) > 0 {
			s.send(ctx, items)
			continue
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// take ends the call before and cuts the next batch off the queue. Without one, Add will
// leave a token.
func (s *Sender[T]) take() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), s.max)
	items := s.queue[:n:n] // full: send may append without reaching into what follows
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.sending, s.parked = n, n == 0
	if n > 0 {
		s.last = n
	}
	return items
}

// More takes up to max further items off the queue, in order: for a send that cannot get rid
// of what it has and must see to what waits behind it. It belongs to the call under way.
func (s *Sender[T]) More(max int) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), max)
	if n <= 0 {
		return nil
	}
	items := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.sending += n
	return items
}

func (s *Sender[T]) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped, s.sending = true, 0
}
