package etcd

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"hongyan/internal/control"
)

// Members implements control.Center, from memory.
func (c *Center) Members(ctx context.Context, tier string) (control.Members, error) {
	if err := c.check(ctx); err != nil {
		return control.Members{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tiers[tier], nil
}

// Watch implements control.Center.
func (c *Center) Watch(ctx context.Context, tier string, fn func(control.Members)) error {
	var shown control.Members
	first := true
	return c.show(ctx, func() func() {
		now := c.tiers[tier]
		if !first && now.Equal(shown) {
			return nil
		}
		first, shown = false, now
		return func() { fn(now) }
	})
}

// Tiers lists the tiers that have slots, by name.
func (c *Center) Tiers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.tiers))
}

// listing is one live record as it was found.
type listing struct {
	control.Instance
	key  string
	from entry
	held bool
}

// readMembersLocked makes sense of the keys under members/. What makes none is ignored.
func (c *Center) readMembersLocked() map[string]control.Members {
	m, bad := c.members, map[string]bool{}
	slots := map[string]int{}
	var found []listing
	for key, e := range m.all() {
		s, in, live, err := readMember(key, e.data)
		if err != nil {
			bad[key] = true
			c.badLocked(m, key, e, err)
			continue
		}
		slots[s.tier] = max(slots[s.tier], s.slot+1)
		if live {
			_, current := m.entries[key]
			found = append(found, listing{in, key, e, !current})
		}
	}
	tiers := map[string]control.Members{}
	for tier, n := range slots {
		tiers[tier] = control.Members{Slots: n}
	}
	for _, l := range c.oneEachLocked(found, bad) {
		t := tiers[l.Tier]
		t.Instances = append(t.Instances, l.Instance)
		tiers[l.Tier] = t
	}
	for _, t := range tiers {
		slices.SortFunc(t.Instances, func(a, b control.Instance) int { return cmp.Compare(a.Slot, b.Slot) })
	}
	c.sweepLocked(m, bad)
	return tiers
}

func readMember(key string, data []byte) (s seat, in control.Instance, live bool, err error) {
	if s, live, err = parseMember(key); err != nil {
		return s, in, live, err
	}
	if live {
		_, in, err = decodeLive(s, data)
		return s, in, live, err
	}
	_, err = decodeSlot(data)
	return s, in, live, err
}

// oneEachLocked lets an address stand once in its tier: what is in etcd before what is held,
// then the newest.
func (c *Center) oneEachLocked(found []listing, bad map[string]bool) []listing {
	slices.SortFunc(found, func(a, b listing) int {
		if a.held && !b.held {
			return 1
		}
		if b.held && !a.held {
			return -1
		}
		return cmp.Compare(b.from.revision, a.from.revision)
	})
	seen := map[registrant]bool{}
	out := found[:0]
	for _, l := range found {
		who := registrant{l.Tier, l.Addr}
		if !seen[who] {
			seen[who] = true
			out = append(out, l)
			continue
		}
		if !l.held {
			bad[l.key] = true
			c.badLocked(c.members, l.key, l.from, errors.New("address "+l.Addr+" holds a newer slot"))
		}
	}
	return out
}

// leftLocked tells whether a live record ended because its owner left.
func (c *Center) leftLocked(key string, e entry) bool {
	s, live, err := parseMember(key)
	if err != nil || !live {
		return false
	}
	was, _, err := decodeLive(s, e.data)
	if err != nil {
		return true
	}
	now, err := decodeSlot(c.members.entries[s.slotKey()].data)
	return err == nil && was.Life != "" && now.Left == was.Life
}
