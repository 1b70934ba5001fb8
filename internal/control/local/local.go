// Package local is the control centre of one process: members given at the start, and whatever
// registers; values in memory and a file (Values), services in memory (Services). It depends on
// nothing outside the process.
package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"hongyan/internal/control"
)

// Center keeps the state of all tiers in memory.
//
// An instance that was listed stays listed whether it lives or
// not: only its callers find out. One that registered is listed until its context ends;
// its slot then counts on, and is the first it gets when it comes back.
type Center struct {
	*Values
	*Services
	reports

	mu     sync.Mutex
	tiers  map[string]*tier
	change chan struct{} // closed and replaced at every change: wakes all watchers
	closed bool
	wg     sync.WaitGroup // one goroutine for each registration
	done   chan struct{}  // closed by Close
}

type tier struct {
	listed control.Members       // from New or List
	slots  int                   // highest slot ever registered + 1
	live   map[int]*registration // by slot
	home   map[string]int        // address -> the slot it held last
	state  control.Members       // what Members returns; replaced, never changed
}

type registration struct{ control.Instance }

// New returns a control centre that lists members, by tier, and keeps values in memory.
func New(members map[string]control.Members) (*Center, error) {
	return NewWithValues(members, NewValues())
}

// NewWithValues is New with values kept elsewhere. Close closes them.
func NewWithValues(members map[string]control.Members, values *Values) (*Center, error) {
	c := &Center{
		Values: values, Services: NewServices(),
		tiers: map[string]*tier{}, change: make(chan struct{}), done: make(chan struct{}),
	}
	if err := c.List(members); err != nil {
		return nil, err
	}
	return c, nil
}

// List replaces what is listed, for all tiers. Registrations stay. Bad members change nothing.
func (c *Center) List(members map[string]control.Members) error {
	listed := make(map[string]control.Members, len(members))
	for name, m := range members {
		n, err := control.Normalize(name, m)
		if err != nil {
			return err
		}
		listed[name] = n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for name := range listed {
		c.tierLocked(name)
	}
	for name, t := range c.tiers {
		t.listed = listed[name]
		changed = t.refresh() || changed
	}
	if changed {
		c.announceLocked()
	}
	return nil
}

// Register implements control.Center.
func (c *Center) Register(ctx context.Context, in control.Instance) (control.Instance, error) {
	if err := in.Validate(); err != nil {
		return in, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return in, control.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return in, fmt.Errorf("register %s %s: %w", in.Tier, in.Addr, err)
	}
	t := c.tierLocked(in.Tier)
	if in.Slot < 0 {
		in.Slot = t.free(in.Addr)
	}
	if held, ok := t.live[in.Slot]; ok && held.Addr != in.Addr {
		return in, fmt.Errorf("register %s %s: slot %d is held by %s: %w", in.Tier, in.Addr, in.Slot, held.Addr, control.ErrSlotTaken)
	}
	if in.Slot >= control.MaxSlots {
		return in, fmt.Errorf("register %s %s: all %d slots are taken: %w", in.Tier, in.Addr, control.MaxSlots, control.ErrSlotTaken)
	}
	for slot, r := range t.live { // the same address in another slot: it moved
		if r.Addr == in.Addr {
			delete(t.live, slot)
		}
	}
	reg := &registration{in}
	t.live[in.Slot] = reg
	t.home[in.Addr] = in.Slot
	t.slots = max(t.slots, in.Slot+1)
	if t.refresh() {
		c.announceLocked()
	}
	c.wg.Go(func() { c.withdraw(ctx, reg) })
	return in, nil
}

// withdraw waits for the end of a registration and takes it back, unless a newer one of
// the same address stands in its place.
func (c *Center) withdraw(ctx context.Context, reg *registration) {
	select {
	case <-ctx.Done():
	case <-c.done:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tiers[reg.Tier]
	if t.live[reg.Slot] != reg {
		return
	}
	delete(t.live, reg.Slot)
	if t.refresh() {
		c.announceLocked()
	}
}

// Members implements control.Center.
func (c *Center) Members(ctx context.Context, name string) (control.Members, error) {
	if err := ctx.Err(); err != nil {
		return control.Members{}, err
	}
	state, _, err := c.look(name)
	return state, err
}

// Watch implements control.Center.
func (c *Center) Watch(ctx context.Context, name string, fn func(control.Members)) error {
	return follow(ctx, func() (control.Members, <-chan struct{}, error) { return c.look(name) }, control.Members.Equal, fn)
}

// Close ends all watches and registrations.
func (c *Center) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.done)
		c.announceLocked()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return errors.Join(c.Values.Close(), c.Services.Close())
}

func (c *Center) look(name string) (control.Members, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return control.Members{}, nil, control.ErrClosed
	}
	if t, ok := c.tiers[name]; ok {
		return t.state, c.change, nil
	}
	return control.Members{}, c.change, nil
}

func (c *Center) announceLocked() {
	close(c.change)
	c.change = make(chan struct{})
}

func (c *Center) tierLocked(name string) *tier {
	t, ok := c.tiers[name]
	if !ok {
		t = &tier{live: map[int]*registration{}, home: map[string]int{}}
		c.tiers[name] = t
	}
	return t
}

// free picks the slot of an instance that has no wish of its own.
func (t *tier) free(addr string) int {
	taken := make(map[int]bool, t.slots)
	for slot, r := range t.live {
		taken[slot] = r.Addr != addr
	}
	for _, in := range t.listed.Instances {
		if in.Addr == addr {
			return in.Slot
		}
		taken[in.Slot] = true
	}
	if slot, ok := t.home[addr]; ok && !taken[slot] {
		return slot
	}
	slot := 0
	for taken[slot] {
		slot++
	}
	return slot
}

// refresh computes the state anew and tells whether it changed.
func (t *tier) refresh() bool {
	bySlot := make(map[int]control.Instance, len(t.live)+len(t.listed.Instances))
	alive := make(map[string]bool, len(t.live))
	for slot, r := range t.live {
		bySlot[slot] = r.Instance
		alive[r.Addr] = true
	}
	for _, in := range t.listed.Instances {
		if _, taken := bySlot[in.Slot]; !taken && !alive[in.Addr] {
			bySlot[in.Slot] = in
		}
	}
	next := control.Members{Slots: max(t.slots, t.listed.Slots)}
	for _, in := range bySlot {
		next.Instances = append(next.Instances, in)
	}
	slices.SortFunc(next.Instances, func(a, b control.Instance) int { return a.Slot - b.Slot })
	if next.Equal(t.state) {
		return false
	}
	t.state = next
	return true
}
