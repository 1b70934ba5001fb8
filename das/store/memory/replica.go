package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hongyan/das/store"
)

// ErrUnconfirmed: the rows are written and visible, but no copy has them.
var ErrUnconfirmed = errors.New("no copy has confirmed the commit")

// errReadOnly: the store is a copy, or was demoted.
var errReadOnly = fmt.Errorf("%w: the store is read-only", store.ErrNotWritten)

// replication is how a store is copied, like a database that waits for its replica.
type replication struct {
	readOnly bool
	copy     *Store
	cut      bool           // commits stay unconfirmed
	pending  []func(*Store) // what the copy lacks, in order; only while cut
}

// Replicate makes a new store a read-only copy of s: it gets what s holds, and every commit of
// s from now on before that is answered.
func (s *Store) Replicate(to *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	to.rep.readOnly = true
	to.buckets, to.commits = s.buckets, s.commits
	to.convs = copyOf(s.convs, s.commits, func(l convLog) convLog {
		return convLog{l.head, slices.Clone(l.entries), maps.Clone(l.keys)}
	})
	to.users = copyOf(s.users, s.commits, userLog.clone)
	to.fanOut = copyOf(s.fanOut, s.commits, rows[store.FanOutRow].clone)
	to.deliver = copyOf(s.deliver, s.commits, rows[store.DeliverRow].clone)
	s.rep.copy = to
}

func copyOf[K comparable, T any](t table[K, T], at uint64, clone func(T) T) table[K, T] {
	to := make(table[K, T], len(t))
	for k := range t {
		to[k] = &state[T]{at: at, val: clone(t.get(k, at))}
	}
	return to
}

// Cut stops the copying: until Heal, commits are visible and answered ErrUnconfirmed, and
// barriers fail.
func (s *Store) Cut() { s.mu.Lock(); s.rep.cut = true; s.mu.Unlock() }

// Heal lets the copy catch up.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rep.cut = false
	for _, do := range s.rep.pending {
		do(s.rep.copy)
	}
	s.rep.pending = nil
}

// Promote makes a copy the one that takes writes, as an operator does it: what the old
// primary has not confirmed is lost with it, and every bucket's epoch rises (R17, R18).
// The old primary may go on; see Demote.
func (s *Store) Promote(old *Store) {
	old.mu.Lock()
	old.rep.copy, old.rep.pending, old.rep.cut = nil, nil, true // nobody confirms it any more
	old.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rep.readOnly = false
	next := *s.buckets
	highest := s.roleLocked().Epoch
	for i := range next {
		next[i].Epoch = highest + 1
	}
	s.buckets = &next
}

// Demote makes the store read-only.
func (s *Store) Demote() { s.mu.Lock(); s.rep.readOnly = true; s.mu.Unlock() }

// Role tells whether the store takes writes and the highest epoch of its buckets.
func (s *Store) Role(ctx context.Context) (store.Role, error) {
	if err := ctx.Err(); err != nil {
		return store.Role{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.Role{}, store.ErrClosed
	}
	return s.roleLocked(), nil
}

func (s *Store) roleLocked() store.Role {
	r := store.Role{Writable: !s.rep.readOnly}
	for _, b := range s.buckets {
		r.Epoch = max(r.Epoch, b.Epoch)
	}
	return r
}

// Barrier implements store.Barrier.
func (s *Store) Barrier(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.opt.Barrier != nil {
		if err := s.opt.Barrier(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return store.ErrClosed
	case s.rep.readOnly:
		return errReadOnly
	}
	return s.confirmedLocked()
}

func (s *Store) confirmedLocked() error {
	if s.rep.cut {
		return ErrUnconfirmed
	}
	return nil
}

// replicateLocked hands a write to the copy.
func (s *Store) replicateLocked(do func(*Store)) error {
	switch {
	case s.rep.copy == nil:
	case s.rep.cut:
		s.rep.pending = append(s.rep.pending, do)
	default:
		do(s.rep.copy)
	}
	return s.confirmedLocked()
}

// SetBucket writes a bucket's row, as a promotion, a restore or a move does.
func (s *Store) SetBucket(_ context.Context, id uint32, state store.BucketState) error {
	if id >= store.Buckets {
		return fmt.Errorf("%w: bucket %d", store.ErrInvalid, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rep.readOnly {
		return errReadOnly
	}
	s.setBucketLocked(id, state)
	return s.replicateLocked(func(to *Store) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.setBucketLocked(id, state)
	})
}

func (s *Store) setBucketLocked(id uint32, state store.BucketState) {
	next := *s.buckets
	next[id] = state
	s.buckets = &next
}
