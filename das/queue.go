package das

import (
	"sync"
	"sync/atomic"
	"time"
)

// bound is the bound of one business over all its queues.
type bound struct {
	maxItems, maxBytes int64
	items, bytes       atomic.Int64
}

// fill is how full it is, 1 = full.
func (b *bound) fill() float64 {
	return max(float64(b.items.Load())/float64(b.maxItems), float64(b.bytes.Load())/float64(b.maxBytes))
}

// take makes room for an item below a share of the bound. force takes it over the bound.
func (b *bound) take(size int, share float64, force bool) bool {
	items, bytes := b.items.Add(1), b.bytes.Add(int64(size))
	if force || float64(items) <= share*float64(b.maxItems) && float64(bytes) <= share*float64(b.maxBytes) {
		return true
	}
	b.give(1, size)
	return false
}

func (b *bound) give(items, bytes int) {
	b.items.Add(-int64(items))
	b.bytes.Add(-int64(bytes))
}

// queue is the queue of one business before one writer, first in first out. Its bound is
// kept by bound, before an item comes here.
type queue struct {
	bound *bound

	mu    sync.Mutex
	items []*item
}

// push returns how many items wait now.
func (q *queue) push(items []*item) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, items...)
	return len(q.items)
}

// take appends at most max items, of at most maxBytes together unless the first is bigger.
func (q *queue) take(to []*item, max, maxBytes int) []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.items) && n < max {
		if bytes += q.items[n].size; bytes > maxBytes && n > 0 {
			bytes -= q.items[n].size
			break
		}
		n++
	}
	to = append(to, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.bound.give(n, bytes)
	return to
}

// oldest is when the first item came, false for none.
func (q *queue) oldest() (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return 0, false
	}
	return q.items[0].arrived, true
}
