package main

import (
	"fmt"
	"slices"
	"strings"

	"hongyan/internal/duty"
)

// takeDuties takes the duties out of the list of logics, where an entry may read
// address=duty+duty, and returns them in slot order as control.Instance.Serves. Those of this
// process, if it is a logic, must be what logic.serve says, or become that.
func (c *Config) takeDuties(tierName string) (serves []string, err error) {
	addrs := slices.Clone(c.Cluster.Logic)
	for slot, entry := range addrs {
		addr, duties, some := strings.Cut(entry, "=")
		said := ""
		if some {
			if said, err = duty.Join(strings.Split(duties, "+")); err != nil {
				return nil, fmt.Errorf("cluster.logic: %s: %w", entry, err)
			}
		}
		addrs[slot], serves = addr, append(serves, said)
	}
	c.Cluster.Logic = addrs
	slot := max(c.Cluster.Slot, 0)
	if tierName != tierLogic || slot >= len(serves) {
		return serves, nil
	}
	switch {
	case len(c.Logic.Serve) == 0 && serves[slot] != "":
		c.Logic.Serve = strings.Split(serves[slot], ",")
	case c.Logic.Duties() != serves[slot]:
		return nil, fmt.Errorf("logic.serve is %s, but slot %d of cluster.logic says otherwise: everybody else goes by the list, like %s=%s",
			strings.Join(c.Logic.Serve, ","), slot, addrs[slot], strings.Join(c.Logic.Serve, "+"))
	}
	return serves, nil
}

// withoutDuties are the addresses of a list of logics.
func withoutDuties(entries []string) []string {
	addrs := slices.Clone(entries)
	for i, entry := range addrs {
		addrs[i], _, _ = strings.Cut(entry, "=")
	}
	return addrs
}
