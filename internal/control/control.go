// Package control is the control centre: who runs where, and live configuration. etcd in
// a cluster, memory and a file in one process. Losing it stops nothing that runs.
package control

import (
	"context"
	"errors"
)

// Instance is one process of a tier. A dead instance keeps its slot.
type Instance struct {
	Tier string `json:"tier"` // logic, das, entry, ...
	Slot int    `json:"slot"` // 0..n-1, stable
	Addr string `json:"addr"`
	Boot string `json:"boot"` // empty when configured statically
	// Serves lists the duties of an instance of logic, comma-separated (internal/duty); empty
	// = all of them, and for every other tier.
	Serves string `json:"serves,omitempty"`
	// Shards names the databases that an instance of das was started with (das/store/shards).
	Shards string `json:"shards,omitempty"`
}

// Members is the state of a tier at one moment. It is shared: nobody changes it.
type Members struct {
	// Slots is n of hash % n: it counts dead instances too.
	Slots     int
	Instances []Instance // ascending slot, at most one a slot
}

// Center is safe for concurrent use.
type Center interface {
	// Register announces an instance until ctx ends. Slot -1 asks for a free one: the slot
	// this address held before if it is free, otherwise the lowest free one, otherwise a new
	// one. A slot held by a live instance of another address is refused with ErrSlotTaken; the
	// same address takes its own slot over. The instance that was granted is returned.
	Register(ctx context.Context, in Instance) (Instance, error)
	// Members returns the state of a tier; the zero Members for one nobody knows.
	Members(ctx context.Context, tier string) (Members, error)
	// Watch calls fn with the state of a tier, at once and after changes, in order, on the
	// calling goroutine, and returns nil when ctx ends. Changes that come faster than fn
	// returns are shown as one; the newest state is always shown. ErrClosed ends it early.
	Watch(ctx context.Context, tier string, fn func(Members)) error
	Close() error
}

var (
	// ErrClosed: the control centre is closed.
	ErrClosed = errors.New("control centre is closed")
	// ErrSlotTaken: another live instance holds the slot.
	ErrSlotTaken = errors.New("slot is taken")
)
