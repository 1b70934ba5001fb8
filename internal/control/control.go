// Package control is the control centre: who runs where, and live configuration. etcd in
// a cluster, memory and a file in one process. Losing it stops nothing that runs.
package control

import "context"

// Instance is one process of a tier. A dead instance keeps its slot.
type Instance struct {
	Tier string `json:"tier"` // logic, das, entry, ...
	Slot int    `json:"slot"` // 0..n-1, stable
	Addr string `json:"addr"`
	Boot string `json:"boot"` // empty when configured statically
}

// Members is the state of a tier at one moment.
type Members struct {
	// Slots is n of hash % n: it counts dead instances too.
	Slots     int
	Instances []Instance // ascending slot, at most one a slot
}

// Center is safe for concurrent use.
type Center interface {
	// Register announces an instance until ctx ends. Slot -1 asks for a free one; the
	// instance that was granted is returned.
	Register(ctx context.Context, in Instance) (Instance, error)
	// Members returns the state of a tier.
	Members(ctx context.Context, tier string) (Members, error)
	// Watch calls fn with the state of a tier, at once and after every change, in order, on
	// one goroutine at a time, until ctx ends.
	Watch(ctx context.Context, tier string, fn func(Members)) error
	Close() error
}
