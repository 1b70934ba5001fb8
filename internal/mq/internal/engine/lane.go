package engine

import (
	"container/heap"
	"time"
)

// item is a loaded message that is not finished.
type item struct {
	Entry
	attempt int // failed so far
}

// lane holds the loaded messages of one key, oldest first. Its head is being handled,
// ready to be, or waiting for its time; those behind it wait for the head.
type lane struct {
	items []*item
	due   time.Time // of the head, while it waits
}

// lanes sorts the lanes of a group by what their heads do. It is not safe for concurrent use.
type lanes struct {
	byKey   map[string]*lane // messages without a key have a lane of their own each
	ready   []*lane          // first in, first out
	waiting waiting
	loaded  int // items in all lanes
}

func newLanes() *lanes { return &lanes{byKey: map[string]*lane{}} }

// add puts a message behind those of its key. One that failed before waits until due.
func (l *lanes) add(it *item, due time.Time) {
	l.loaded++
	if known, ok := l.byKey[it.Key]; ok && it.Key != "" {
		known.items = append(known.items, it)
		return
	}
	fresh := &lane{items: []*item{it}}
	if it.Key != "" {
		l.byKey[it.Key] = fresh
	}
	if it.attempt > 0 {
		l.wait(fresh, due)
	} else {
		l.ready = append(l.ready, fresh)
	}
}

// wake makes the lanes ready whose time has come, and returns when the next one's comes;
// zero = none waits.
func (l *lanes) wake(now time.Time) time.Time {
	for len(l.waiting) > 0 {
		if first := l.waiting[0]; now.Before(first.due) {
			return first.due
		}
		l.ready = append(l.ready, heap.Pop(&l.waiting).(*lane))
	}
	return time.Time{}
}

// take returns a ready lane, whose head is now to be handled, or nil.
func (l *lanes) take() *lane {
	if len(l.ready) == 0 {
		return nil
	}
	first := l.ready[0]
	l.ready[0] = nil
	l.ready = l.ready[1:]
	return first
}

// done drops the head of a lane that was taken.
func (l *lanes) done(ln *lane) {
	l.loaded--
	key := ln.items[0].Key
	ln.items[0] = nil
	ln.items = ln.items[1:]
	if len(ln.items) > 0 {
		l.ready = append(l.ready, ln)
	} else if key != "" {
		delete(l.byKey, key)
	}
}

// again puts back a lane that was taken, its head to be handled at once.
func (l *lanes) again(ln *lane) { l.ready = append(l.ready, ln) }

// wait puts back a lane that was taken, its head to be handled from due on.
func (l *lanes) wait(ln *lane, due time.Time) {
	ln.due = due
	heap.Push(&l.waiting, ln)
}

// waiting is a heap of lanes by due.
type waiting []*lane

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].due.Before(w[j].due) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)        { ln := x.(*lane); *w = append(*w, ln) }
func (w *waiting) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return last
}
