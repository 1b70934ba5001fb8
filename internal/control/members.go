package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxSlots bounds the instances of one tier: more slots than buckets would stay idle.
const MaxSlots = 1024

// Validate tells what is wrong with an instance that asks to be registered.
func (in Instance) Validate() error {
	switch {
	case in.Tier == "":
		return fmt.Errorf("instance %q: tier is empty", in.Addr)
	case in.Addr == "":
		return fmt.Errorf("instance of %s: address is empty", in.Tier)
	case strings.ContainsAny(in.Addr, " \t\r\n\x00"):
		return fmt.Errorf("instance of %s: address %q holds blanks", in.Tier, in.Addr)
	case strings.ContainsAny(in.Serves, " \t\r\n\x00"):
		return fmt.Errorf("%s %s: its duties %q hold blanks", in.Tier, in.Addr, in.Serves)
	case strings.ContainsAny(in.Shards, " \t\r\n\x00"):
		return fmt.Errorf("%s %s: its shards %q hold blanks", in.Tier, in.Addr, in.Shards)
	case in.Slot < -1 || in.Slot >= MaxSlots:
		return fmt.Errorf("%s %s: slot %d is not within 0..%d", in.Tier, in.Addr, in.Slot, MaxSlots-1)
	}
	return nil
}

// Normalize returns the members of tier as Center promises them: sorted, with the tier
// filled in and Slots at least the highest slot + 1. Two instances in one slot or at one
// address are an error.
func Normalize(tier string, m Members) (Members, error) {
	out := Members{Slots: m.Slots, Instances: slices.Clone(m.Instances)}
	if m.Slots < 0 || m.Slots > MaxSlots {
		return Members{}, fmt.Errorf("%s: %d slots, want 0..%d", tier, m.Slots, MaxSlots)
	}
	addrs := make(map[string]bool, len(out.Instances))
	for i := range out.Instances {
		in := &out.Instances[i]
		if in.Tier == "" {
			in.Tier = tier
		}
		if in.Tier != tier {
			return Members{}, fmt.Errorf("%s: instance %s belongs to tier %s", tier, in.Addr, in.Tier)
		}
		if err := in.Validate(); err != nil {
			return Members{}, err
		}
		if in.Slot < 0 {
			return Members{}, fmt.Errorf("%s %s: slot is missing", tier, in.Addr)
		}
		if addrs[in.Addr] {
			return Members{}, fmt.Errorf("%s: address %s is listed twice", tier, in.Addr)
		}
		addrs[in.Addr] = true
		out.Slots = max(out.Slots, in.Slot+1)
	}
	slices.SortFunc(out.Instances, func(a, b Instance) int { return cmp.Compare(a.Slot, b.Slot) })
	for i := 1; i < len(out.Instances); i++ {
		if a, b := out.Instances[i-1], out.Instances[i]; a.Slot == b.Slot {
			return Members{}, fmt.Errorf("%s: slot %d is given to both %s and %s", tier, a.Slot, a.Addr, b.Addr)
		}
	}
	return out, nil
}

// Equal tells whether two states are the same.
func (m Members) Equal(o Members) bool {
	return m.Slots == o.Slots && slices.Equal(m.Instances, o.Instances)
}
