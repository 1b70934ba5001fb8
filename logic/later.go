package logic

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// later runs functions at their time, one after the other: retries and held pushes. They
// must not block. It is unbounded: what is put here follows a commit.
type later struct {
	wake chan struct{} // capacity 1: a token that is there already says enough

	mu   sync.Mutex
	jobs jobs
}

type job struct {
	at time.Time
	fn func()
}

func newLater() *later { return &later{wake: make(chan struct{}, 1)} }

// after runs fn in d, unless this Logic stops before.
func (t *later) after(d time.Duration, fn func()) {
	t.mu.Lock()
	at := time.Now().Add(d)
	first := len(t.jobs) == 0 || at.Before(t.jobs[0].at)
	heap.Push(&t.jobs, job{at, fn})
	t.mu.Unlock()
	if first {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *later) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		fn, wait := t.next()
		if fn != nil {
			fn()
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-ctx.Done():
		}
	}
}

// next pops what is due, or tells how long nothing will be.
func (t *later) next() (fn func(), wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.jobs) == 0 {
		return nil, time.Hour
	}
	if wait = time.Until(t.jobs[0].at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&t.jobs).(job).fn, 0
}

// jobs is a heap by time.
type jobs []job

func (h jobs) Len() int           { return len(h) }
func (h jobs) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h jobs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *jobs) Push(x any)        { *h = append(*h, x.(job)) }
func (h *jobs) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = job{}
	*h = old[:len(old)-1]
	return last
}

// backoff doubles from first with each try (from 1), up to most.
func backoff(tries int, first, most time.Duration) time.Duration {
	d := first
	for range tries - 1 {
		if d *= 2; d >= most {
			return most
		}
	}
	return min(d, most)
}
