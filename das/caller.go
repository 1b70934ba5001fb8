package das

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// caller is one life of a Logic: who submits, owns outbox rows and is told.
type caller struct {
	boot string
	out  sink
}

// sink takes results. It never blocks and copies what it keeps of the slices.
type sink interface {
	put(settled []*tier.Settled, changes []*tier.Change)
}

// Bounds of what waits for one Logic. What is over it, or cannot be delivered after the
// tries, is dropped: an unknown outcome for the Logic; the outbox rows are driven again.
const (
	senderBound = 1 << 16 // results waiting
	senderBatch = 2048    // results per call; those of one commit are never parted
	senderTries = 3
	senderPause = 50 * time.Millisecond // before the second try, doubled before the third
	senderCall  = 5 * time.Second       // a call may take
)

// sender gathers results for one Logic: a call goes out at once, what comes meanwhile
// goes with the next (law 4). Its goroutine lives while there is something to send.
type sender struct {
	addr string
	das  *Das

	mu      sync.Mutex
	waiting tier.SettledBatch
	units   []unit // what of waiting came together
	sending bool
	used    time.Duration // last, since the das was made
}

// unit counts the results of one commit: the Logic explains its changes by its outcomes.
type unit struct{ settled, changes int }

func (s *sender) put(settled []*tier.Settled, changes []*tier.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = s.das.since()
	if n := len(settled) + len(changes); len(s.waiting.Items)+len(s.waiting.Changes)+n > senderBound {
		s.das.metrics.dropped(n)
		return
	}
	s.waiting.Items = append(s.waiting.Items, settled...)
	s.waiting.Changes = append(s.waiting.Changes, changes...)
	s.units = append(s.units, unit{len(settled), len(changes)})
	if !s.sending {
		s.sending = true
		s.das.senders.Go(s.run)
	}
}

func (s *sender) run() {
	for {
		b := s.take()
		if b == nil {
			return
		}
		if err := s.send(b); err != nil {
			s.das.metrics.dropped(len(b.Items) + len(b.Changes))
			s.das.log.Warn("results dropped: their outcome is unknown to the caller", "logic", s.addr,
				"settled", len(b.Items), "changes", len(b.Changes), slog.Any("error", err))
		}
	}
}

// take cuts the next batch off; nil ends the goroutine.
func (s *sender) take() *tier.SettledBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.units) == 0 {
		s.sending = false
		return nil
	}
	var n unit
	taken := 0
	for taken < len(s.units) && (taken == 0 || n.settled+n.changes < senderBatch) {
		n.settled += s.units[taken].settled
		n.changes += s.units[taken].changes
		taken++
	}
	s.units = append(s.units[:0], s.units[taken:]...)
	b := &tier.SettledBatch{Das: s.das.self.Addr}
	b.Items, s.waiting.Items = cut(s.waiting.Items, n.settled)
	b.Changes, s.waiting.Changes = cut(s.waiting.Changes, n.changes)
	return b
}

// cut parts a list; what is given away shares no room with the rest.
func cut[T any](s []T, n int) (head, rest []T) {
	if len(s) == n {
		return s, nil
	}
	return s[:n:n], s[n:]
}

func (s *sender) send(b *tier.SettledBatch) error {
	pause := senderPause
	for try := 1; ; try++ {
		err := s.call(b)
		if err == nil || try == senderTries {
			return err
		}
		time.Sleep(pause)
		pause *= 2
	}
}

func (s *sender) call(b *tier.SettledBatch) error {
	logic, err := s.das.logics(s.addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), senderCall)
	defer cancel()
	_, err = logic.Settled(ctx, b)
	return err
}

// callers finds the caller of a batch by address and life.
type callers struct {
	das  *Das
	mu   sync.Mutex
	list map[callerKey]*caller
}

type callerKey struct{ addr, boot string }

// callersKept is how many lives of Logics are remembered before idle ones are forgotten.
const callersKept = 256

func (c *callers) of(addr, boot string) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.list[callerKey{addr, boot}]
	if found == nil {
		addr, boot = strings.Clone(addr), strings.Clone(boot)
		if len(c.list) >= callersKept {
			c.forgetIdleLocked()
		}
		found = &caller{boot: boot, out: &sender{addr: addr, das: c.das, used: c.das.since()}}
		c.list[callerKey{addr, boot}] = found
	}
	return found
}

func (c *callers) forgetIdleLocked() {
	for k, x := range c.list {
		s := x.out.(*sender)
		s.mu.Lock()
		idle := !s.sending && c.das.since()-s.used > time.Minute
		s.mu.Unlock()
		if idle {
			delete(c.list, k)
		}
	}
}

// waiter collects the results of a Write.
type waiter struct {
	done chan struct{} // closed when all are there

	mu    sync.Mutex
	open  int
	batch tier.SettledBatch
}

func (w *waiter) put(settled []*tier.Settled, changes []*tier.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == 0 {
		return // it has gone
	}
	w.batch.Items = append(w.batch.Items, settled...)
	w.batch.Changes = append(w.batch.Changes, changes...)
	if w.open -= len(settled); w.open == 0 {
		close(w.done)
	}
}

// wait returns what was collected when all is there.
func (w *waiter) wait(ctx context.Context, stopped <-chan struct{}) (*tier.SettledBatch, error) {
	select {
	case <-w.done:
		return &w.batch, nil
	case <-ctx.Done():
		return nil, code.Errorf(code.Expired, "the caller did not wait for the outcome: %w", ctx.Err())
	case <-stopped:
		return nil, code.Errorf(code.UnknownOutcome, "das has stopped")
	}
}
