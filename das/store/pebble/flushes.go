package pebblestore

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"hongyan/das/store"
)

// flushes counts commits from the moment they may become visible to the moment they are
// flushed, so that a reader can wait for all it may have seen (R14). The first flush that
// fails breaks it for good.
type flushes struct {
	broken chan struct{} // closed when broken

	mu     sync.Mutex
	issued uint64        // commits that may be visible
	done   uint64        // commits flushed, without a hole
	early  []uint64      // commits flushed before one in front of them was
	moved  chan struct{} // closed when done moves; nil while nobody waits
	err    error         // why it is broken
}

func newFlushes() *flushes { return &flushes{broken: make(chan struct{})} }

// begin is called before a commit becomes visible. Its number goes to end.
func (f *flushes) begin() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.issued++
	return f.issued
}

// end reports the flush of commit n.
func (f *flushes) end(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.early = append(f.early, n)
	for {
		i := slices.Index(f.early, f.done+1)
		if i < 0 {
			break
		}
		f.early = slices.Delete(f.early, i, i+1)
		f.done++
	}
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
	}
}

// wait returns when every commit that was visible at the call is flushed.
func (f *flushes) wait(ctx context.Context) error {
	f.mu.Lock()
	target := f.issued
	for f.err == nil && f.done < target {
		if f.moved == nil {
			f.moved = make(chan struct{})
		}
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-f.broken:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	return f.err
}

// fail breaks it; only the first reason is kept.
func (f *flushes) fail(reason error) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return false
	}
	f.err = fmt.Errorf("%w: %w", store.ErrBroken, reason)
	close(f.broken)
	return true
}

// broke is why it is broken, or nil.
func (f *flushes) broke() error {
	select {
	case <-f.broken:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err
	default:
		return nil
	}
}
