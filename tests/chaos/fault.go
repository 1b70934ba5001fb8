package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"hongyan/tests/e2e/cluster"
)

// Fault is something that happens to a system and is healed again.
type Fault interface {
	Name() string
	Do(ctx context.Context) error
	Undo(ctx context.Context) error
}

// Kill is kill -9 of a process; it is started again.
type Kill struct{ *cluster.Process }

func (k Kill) Name() string               { return "kill " + k.Process.Name }
func (k Kill) Do(context.Context) error   { k.Process.Kill(); return nil }
func (k Kill) Undo(context.Context) error { k.Restart(); return nil }

// Pause is SIGSTOP of a process (P2, P29).
type Pause struct{ *cluster.Process }

func (p Pause) Name() string               { return "pause " + p.Process.Name }
func (p Pause) Do(context.Context) error   { return syscall.Kill(p.PID(), syscall.SIGSTOP) }
func (p Pause) Undo(context.Context) error { return syscall.Kill(p.PID(), syscall.SIGCONT) }

// Func makes a fault of functions.
type Func struct {
	Called   string
	On, Over func(context.Context) error // Over nil: it heals itself
}

func (f Func) Name() string                 { return f.Called }
func (f Func) Do(ctx context.Context) error { return f.On(ctx) }
func (f Func) Undo(ctx context.Context) error {
	if f.Over == nil {
		return nil
	}
	return f.Over(ctx)
}

// Event is a fault of a schedule: it begins After the one before was healed, and lasts Hold.
type Event struct {
	After, Hold time.Duration
	Fault       Fault
}

// Schedule is what happens, one fault at a time.
type Schedule []Event

// Random draws a schedule of about a length. Faults of one seed are the same for the same
// list of faults.
func Random(seed uint64, length time.Duration, faults []Fault) (s Schedule) {
	r := rand.New(rand.NewPCG(seed, 0))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(r.Int64N(int64(high-low))) }
	for used := time.Duration(0); used < length; {
		e := Event{
			After: between(500*time.Millisecond, 2*time.Second), Hold: between(100*time.Millisecond, 4*time.Second),
			Fault: faults[r.IntN(len(faults))],
		}
		s = append(s, e)
		used += e.After + e.Hold
	}
	return s
}

func (s Schedule) String() string {
	var b strings.Builder
	for _, e := range s {
		fmt.Fprintf(&b, "\n  after %v: %s for %v", e.After.Round(time.Millisecond), e.Fault.Name(), e.Hold.Round(time.Millisecond))
	}
	return b.String()
}

// Run does what the schedule says. What was begun is healed, also when ctx ends.
func (s Schedule) Run(ctx context.Context) error {
	for _, e := range s {
		if !sleep(ctx, e.After) {
			return nil
		}
		if err := e.Fault.Do(ctx); err != nil {
			return fmt.Errorf("%s: %w", e.Fault.Name(), err)
		}
		sleep(ctx, e.Hold)
		if err := e.Fault.Undo(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("heal: %s: %w", e.Fault.Name(), err)
		}
	}
	return nil
}

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
