package store

import (
	"context"

	"hongyan/internal/route"
)

// Bucket is the logical bucket of a key, for all time.
func (k Key) Bucket() uint32 { return route.Bucket(route.Hash(k.Tenant, k.ID)) }

// Barrier is implemented by a store whose rows may be visible before they can survive a
// failover, and by a view that knows which database it has read.
type Barrier interface {
	// Barrier returns when a write that began after the call was committed cleanly: then
	// everything that was visible before the call survives a failover, whoever committed it,
	// and may be acked or pushed (R19). A view's asks the databases that it has read, and those
	// very servers; it may be called after Close.
	Barrier(ctx context.Context) error
}

// Confirm waits until what a view showed survives a failover: it asks the view, or else the
// store. Where neither is a Barrier, nothing is visible that could be lost.
func Confirm(ctx context.Context, s Store, v View) error {
	if b, ok := v.(Barrier); ok {
		return b.Barrier(ctx)
	}
	if b, ok := s.(Barrier); ok {
		return b.Barrier(ctx)
	}
	return nil
}

// Role is what one server of a database is at a moment.
type Role struct {
	// Writable tells that the server takes writes: it is not read-only.
	Writable bool
	// Epoch is the highest epoch of its bucket rows, open or not. A promotion raises all of
	// them, so that of two servers that take writes the one with the lower Epoch is outdated.
	Epoch uint64
}

// Placed is implemented by a store over several databases. No commit spans two: one that
// would is refused with a FenceError that names the buckets of the others.
type Placed interface {
	Store

	// Databases is how many there are; they are numbered from 0. It never changes.
	Databases() int
	// Database is where a bucket is now, by the map of this moment: fences say who is right.
	Database(bucket uint32) int
	// Part is one of the databases. Its Commit refuses buckets that are elsewhere; finished
	// ranges are for its own outbox rows. Its View shows its rows only, whatever the map says.
	Part(database int) Store
}

// Replicated is implemented by a store that can read copies of its databases.
type Replicated interface {
	// Replica gives a snapshot of a copy of the database of a bucket. It may lag behind, or be
	// a copy that was left behind for good: who reads it checks the bucket's epoch and the head
	// of the log against what the primary says (R23). ErrNotFound: there is none now. The view
	// of a copy that fails is avoided for a while.
	Replica(ctx context.Context, bucket uint32) (View, error)
}
