package rocketmq

import (
	"sync"
	"time"
)

// lanes let messages of one key be handled one after the other, in the order in which they
// were pulled. A message enters when it is pulled (in order, by one goroutine a queue), and
// is claimed by the goroutine that the client starts for it: those start in any order.
type lanes struct {
	mu      sync.Mutex
	last    map[string]*ticket    // the youngest of each key
	entered map[messageID]*ticket // not claimed yet
	swept   time.Time
}

// messageID is a place in a queue of the broker.
type messageID struct {
	topic, broker string
	queue         int
	offset        int64
}

// ticket is a message's place in its lane.
type ticket struct {
	key     string
	id      messageID
	at      time.Time
	before  *ticket       // nil: first
	behind  *ticket       // nil: last
	claimed chan struct{} // closed when its goroutine is there
	done    chan struct{} // closed when it is handled, or given up
}

func newLanes() *lanes {
	return &lanes{last: map[string]*ticket{}, entered: map[messageID]*ticket{}, swept: time.Now()}
}

const (
	// claimWithin is how long a message is waited for that was pulled earlier and does not
	// turn up: the client dropped it, because its queue went to another consumer.
	claimWithin = 2 * time.Second
	// sweepEvery and keepEntered bound the memory of those.
	sweepEvery  = time.Minute
	keepEntered = 5 * time.Minute
)

// enter puts a pulled message behind those of its key. An empty key has no order.
func (l *lanes) enter(key string, id messageID) {
	if key == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.entered[id]; twice {
		return // pulled again before its goroutine came
	}
	l.entered[id] = l.appendLocked(key, id)
	if now := time.Now(); now.Sub(l.swept) > sweepEvery {
		l.swept = now
		for id, t := range l.entered {
			if now.Sub(t.at) > keepEntered {
				delete(l.entered, id)
				l.leaveLocked(t)
			}
		}
	}
}

func (l *lanes) appendLocked(key string, id messageID) *ticket {
	t := &ticket{key: key, id: id, at: time.Now(), before: l.last[key], claimed: make(chan struct{}), done: make(chan struct{})}
	if t.before != nil {
		t.before.behind = t
	}
	l.last[key] = t
	return t
}

// claim returns the ticket of a message; one that is not known, because it is handled once
// more, takes its place at the end.
func (l *lanes) claim(key string, id messageID) *ticket {
	if key == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.entered[id]
	if ok {
		delete(l.entered, id)
	} else {
		t = l.appendLocked(key, id)
	}
	close(t.claimed)
	return t
}

// wait returns true when nothing is before the message, false when stop is closed first.
func (l *lanes) wait(t *ticket, stop <-chan struct{}) bool {
	if t == nil {
		return true
	}
	for {
		l.mu.Lock()
		before := t.before
		l.mu.Unlock()
		if before == nil {
			return true
		}
		late := time.NewTimer(claimWithin)
		select {
		case <-before.claimed:
			late.Stop()
			select {
			case <-before.done:
			case <-stop:
				return false
			}
		case <-before.done:
			late.Stop()
		case <-stop:
			late.Stop()
			return false
		case <-late.C:
			l.abandon(before)
		}
	}
}

// abandon lets go of a message that was pulled and never came.
func (l *lanes) abandon(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.entered[t.id]; !there {
		return // claimed, or given up, a moment ago
	}
	delete(l.entered, t.id)
	l.leaveLocked(t)
}

// leave ends a message's turn.
func (l *lanes) leave(t *ticket) {
	if t == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(t)
}

// leaveLocked takes the ticket out of its lane. Who is behind one that was given up waits
// for those before it.
func (l *lanes) leaveLocked(t *ticket) {
	close(t.done)
	if t.before != nil {
		t.before.behind = t.behind
	}
	switch {
	case t.behind != nil:
		t.behind.before = t.before
	case t.before != nil:
		l.last[t.key] = t.before
	default:
		delete(l.last, t.key)
	}
}
