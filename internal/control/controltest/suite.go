// Package controltest is the suite that every control.Center passes.
package controltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"hongyan/internal/control"
)

// patience bounds how long a change may take to show.
const patience = 15 * time.Second

// Run runs the suite. open returns a new, empty control centre.
func Run(t *testing.T, open func(t *testing.T) control.Center) {
	cases := []struct {
		name string
		run  func(*testing.T, control.Center)
	}{
		{"unknown tier is empty", unknownTier},
		{"ZZ-15 register is seen by callers at once", registerIsSeen},
		{"slots are granted densely", denseSlots},
		{"concurrent registrations get distinct slots", concurrentRegister},
		{"a dead instance keeps its slot", deadKeepsSlot},
		{"an address gets its slot back", sameAddressSameSlot},
		{"a live slot is refused to others", takenSlot},
		{"a restarted instance takes its own slot over", takeOver},
		{"bad instances are refused", badInstances},
		{"watch shows states in order, the newest always", watchInOrder},
		{"watch of one tier is not called for another", watchOneTier},
		{"watch ends with its context", watchEnds},
		{"closed", closed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			center := open(t)
			t.Cleanup(func() { _ = center.Close() })
			c.run(t, center)
		})
	}
}

func unknownTier(t *testing.T, c control.Center) {
	if m := members(t, c, "nobody"); m.Slots != 0 || len(m.Instances) != 0 {
		t.Fatalf("members of an unknown tier: %+v", m)
	}
}

func registerIsSeen(t *testing.T, c control.Center) {
	w := watch(t, c, "logic")
	w.until(func(m control.Members) bool { return m.Slots == 0 })
	register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: 2, Addr: "a:1", Boot: "b1", Serves: "session,open", Shards: "a,b"})
	got := w.until(func(m control.Members) bool { return len(m.Instances) == 1 })
	want := control.Instance{Tier: "logic", Slot: 2, Addr: "a:1", Boot: "b1", Serves: "session,open", Shards: "a,b"}
	if got.Slots != 3 || got.Instances[0] != want {
		t.Fatalf("watched %+v, want 3 slots with %+v", got, want)
	}
	if m := members(t, c, "logic"); !m.Equal(got) {
		t.Fatalf("Members %+v differs from what was watched %+v", m, got)
	}
}

func denseSlots(t *testing.T, c control.Center) {
	for i := range 4 {
		in := register(t, c, t.Context(), control.Instance{Tier: "das", Slot: -1, Addr: fmt.Sprintf("a:%d", i)})
		if in.Slot != i {
			t.Fatalf("registration %d got slot %d", i, in.Slot)
		}
	}
	m := members(t, c, "das")
	if m.Slots != 4 || !slices.IsSortedFunc(m.Instances, bySlot) {
		t.Fatalf("members %+v", m)
	}
}

func concurrentRegister(t *testing.T, c control.Center) {
	const n = 16
	var wg sync.WaitGroup
	slots := make([]int, n)
	for i := range n {
		wg.Go(func() {
			in, err := c.Register(t.Context(), control.Instance{Tier: "logic", Slot: -1, Addr: fmt.Sprintf("a:%d", i)})
			if err != nil {
				t.Error(err)
			}
			slots[i] = in.Slot
		})
	}
	wg.Wait()
	slices.Sort(slots)
	for i, slot := range slots {
		if slot != i {
			t.Fatalf("granted slots %v", slots)
		}
	}
}

func deadKeepsSlot(t *testing.T, c control.Center) {
	for i := range 3 {
		ctx, die := context.WithCancel(t.Context())
		register(t, c, ctx, control.Instance{Tier: "logic", Slot: i, Addr: fmt.Sprintf("a:%d", i)})
		if i == 1 {
			die()
		}
		defer die()
	}
	w := watch(t, c, "logic")
	m := w.until(func(m control.Members) bool { return len(m.Instances) == 2 })
	if m.Slots != 3 || m.Instances[0].Slot != 0 || m.Instances[1].Slot != 2 {
		t.Fatalf("after slot 1 died: %+v", m)
	}
	ctx, die := context.WithCancel(t.Context())
	in := register(t, c, ctx, control.Instance{Tier: "logic", Slot: -1, Addr: "new:1"})
	die()
	if in.Slot != 1 {
		t.Fatalf("a new instance got slot %d, want the dead one's", in.Slot)
	}
}

func sameAddressSameSlot(t *testing.T, c control.Center) {
	ctxA, dieA := context.WithCancel(t.Context())
	ctxB, dieB := context.WithCancel(t.Context())
	register(t, c, ctxA, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1", Boot: "1"})
	register(t, c, ctxB, control.Instance{Tier: "logic", Slot: -1, Addr: "b:1", Boot: "1"})
	dieA()
	dieB()
	w := watch(t, c, "logic")
	w.until(func(m control.Members) bool { return len(m.Instances) == 0 })
	if in := register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: -1, Addr: "b:1", Boot: "2"}); in.Slot != 1 {
		t.Fatalf("b came back to slot %d, want 1", in.Slot)
	}
}

func takenSlot(t *testing.T, c control.Center) {
	register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	_, err := c.Register(t.Context(), control.Instance{Tier: "logic", Slot: 0, Addr: "b:1"})
	if !errors.Is(err, control.ErrSlotTaken) {
		t.Fatalf("second holder of slot 0: error %v, want ErrSlotTaken", err)
	}
	if m := members(t, c, "logic"); len(m.Instances) != 1 || m.Instances[0].Addr != "a:1" {
		t.Fatalf("members %+v", m)
	}
}

func takeOver(t *testing.T, c control.Center) {
	ctx, die := context.WithCancel(t.Context())
	register(t, c, ctx, control.Instance{Tier: "logic", Slot: 0, Addr: "a:1", Boot: "old"})
	register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: 0, Addr: "a:1", Boot: "new"})
	die()
	register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: 1, Addr: "z:1"}) // something to wait for after die
	w := watch(t, c, "logic")
	m := w.until(func(m control.Members) bool { return len(m.Instances) == 2 })
	if m.Instances[0].Boot != "new" {
		t.Fatalf("the end of the old life removed the new one: %+v", m)
	}
}

func badInstances(t *testing.T, c control.Center) {
	for name, in := range map[string]control.Instance{
		"no tier":       {Addr: "a:1"},
		"no address":    {Tier: "logic"},
		"blank address": {Tier: "logic", Addr: "a b"},
		"slot below -1": {Tier: "logic", Addr: "a:1", Slot: -2},
		"slot too high": {Tier: "logic", Addr: "a:1", Slot: control.MaxSlots},
	} {
		if _, err := c.Register(t.Context(), in); err == nil {
			t.Errorf("%s: registered", name)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := c.Register(ended, control.Instance{Tier: "logic", Addr: "a:1"}); err == nil {
		t.Error("registered with an ended context")
	}
}

func watchInOrder(t *testing.T, c control.Center) {
	const n = 50
	w := watch(t, c, "logic")
	for i := range n {
		register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: i, Addr: fmt.Sprintf("a:%d", i)})
	}
	w.until(func(m control.Members) bool { return m.Slots == n })
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 1; i < len(w.seen); i++ {
		if w.seen[i].Slots <= w.seen[i-1].Slots {
			t.Fatalf("state %d has %d slots after %d", i, w.seen[i].Slots, w.seen[i-1].Slots)
		}
	}
}

func watchOneTier(t *testing.T, c control.Center) {
	w := watch(t, c, "logic")
	w.until(func(control.Members) bool { return true })
	register(t, c, t.Context(), control.Instance{Tier: "das", Slot: 0, Addr: "d:1"})
	register(t, c, t.Context(), control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	w.until(func(m control.Members) bool { return m.Slots == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) != 2 {
		t.Fatalf("watch of logic was called %d times, want 2: %+v", len(w.seen), w.seen)
	}
}

func watchEnds(t *testing.T, c control.Center) {
	endsWithItsContext(t, func(ctx context.Context) error { return c.Watch(ctx, "logic", func(control.Members) {}) })
}

func endsWithItsContext(t *testing.T, watch func(context.Context) error) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- watch(ctx) }()
	end()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("watch ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("watch goes on after its context ended")
	}
}

func closed(t *testing.T, c control.Center) {
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Register(t.Context(), control.Instance{Tier: "logic", Addr: "a:1"}); !errors.Is(err, control.ErrClosed) {
		t.Errorf("Register: %v", err)
	}
	if _, err := c.Members(t.Context(), "logic"); !errors.Is(err, control.ErrClosed) {
		t.Errorf("Members: %v", err)
	}
	if err := c.Watch(t.Context(), "logic", func(control.Members) {}); !errors.Is(err, control.ErrClosed) {
		t.Errorf("Watch: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func bySlot(a, b control.Instance) int { return a.Slot - b.Slot }

func members(t *testing.T, c control.Center, tier string) control.Members {
	t.Helper()
	m, err := c.Members(t.Context(), tier)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func register(t *testing.T, c control.Center, ctx context.Context, in control.Instance) control.Instance {
	t.Helper()
	got, err := c.Register(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// watcher collects what Watch shows.
type watcher struct {
	t    *testing.T
	mu   sync.Mutex
	seen []control.Members
	news chan struct{} // capacity 1: one wake-up for any number of states
}

func watch(t *testing.T, c control.Center, tier string) *watcher {
	w := &watcher{t: t, news: make(chan struct{}, 1)}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Watch(ctx, tier, w.show)
	}()
	t.Cleanup(func() { end(); <-done })
	return w
}

func (w *watcher) show(m control.Members) {
	w.mu.Lock()
	w.seen = append(w.seen, m)
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// until waits for a newest state that satisfies ok.
func (w *watcher) until(ok func(control.Members) bool) control.Members {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		if n := len(w.seen); n > 0 && ok(w.seen[n-1]) {
			defer w.mu.Unlock()
			return w.seen[n-1]
		}
		w.mu.Unlock()
		select {
		case <-w.news:
		case <-deadline:
			w.t.Fatalf("the awaited state was not shown; seen %+v", w.seen)
		}
	}
}
