// Package memory keeps a store in plain maps: the dumb twin that tests trust and that
// simulations break on purpose. It is obviously correct rather than fast, runs in a
// testing/synctest bubble, and may be shared by several das.
package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hongyan/das/store"
)

// Options say how the store behaves towards those who use it. The zero value is a
// database that several das share.
type Options struct {
	// Exclusive is what Store.Exclusive answers.
	Exclusive bool
	// Strict panics when an entry without MayRepeat turns out to be a duplicate although its
	// conversation's fence holds: its writer vouched for a key that is stored.
	Strict bool
	// Unfenced believes what a writer says of a user's head, right or wrong: simulations prove
	// with it that they would notice a missing fence (R01).
	Unfenced bool
	// BeforeCommit may refuse a batch: its error is returned and nothing is written. It may
	// sleep, and sees the batch before anybody else does.
	BeforeCommit func(*store.Batch) error
	// AfterCommit may hide a commit: its error is returned although the batch is written, an
	// unknown outcome. It may sleep; others see the rows meanwhile.
	AfterCommit func(*store.Batch) error
	// Barrier is called for every barrier and may refuse it, or sleep.
	Barrier func() error
}

// Store implements store.Store in memory.
type Store struct {
	opt Options

	mu      sync.Mutex
	closed  bool
	commits uint64         // the number of the last commit
	views   map[*view]bool // open
	rep     replication

	buckets *[store.Buckets]store.BucketState // replaced, never changed: views share it
	convs   table[store.Key, convLog]
	users   table[store.Key, userLog]
	fanOut  table[string, rows[store.FanOutRow]] // by owner
	deliver table[string, rows[store.DeliverRow]]
}

var _ store.Store = (*Store)(nil)

// New returns an empty store. At most one Options is looked at.
func New(opts ...Options) *Store {
	s := &Store{
		views:   make(map[*view]bool),
		convs:   make(table[store.Key, convLog]),
		users:   make(table[store.Key, userLog]),
		fanOut:  make(table[string, rows[store.FanOutRow]]),
		deliver: make(table[string, rows[store.DeliverRow]]),
	}
	if len(opts) > 0 {
		s.opt = opts[0]
	}
	s.buckets = new([store.Buckets]store.BucketState)
	for i := range s.buckets {
		s.buckets[i] = store.BucketState{Epoch: 1, Open: true}
	}
	return s
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.opt.BeforeCommit != nil {
		if err := s.opt.BeforeCommit(b); err != nil {
			return err
		}
	}
	if err := s.commit(b); err != nil {
		return err
	}
	if s.opt.AfterCommit != nil {
		return s.opt.AfterCommit(b)
	}
	return nil
}

func (s *Store) commit(b *store.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	if s.rep.readOnly {
		return errReadOnly
	}
	if fence := s.verifyLocked(b); !fence.Empty() {
		return fence
	}
	if err := s.checkRewritesLocked(b); err != nil {
		return err
	}
	s.applyLocked(b)
	if s.rep.copy == nil {
		return s.confirmedLocked()
	}
	b = b.Clone()
	return s.replicateLocked(func(to *Store) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.applyLocked(b)
	})
}

// View implements store.Store.
func (s *Store) View(ctx context.Context) (store.View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	v := &view{s: s, at: s.commits, buckets: s.buckets}
	s.views[v] = true
	return v, nil
}

// Now implements store.Store by the clock of the process or of its bubble.
func (s *Store) Now(context.Context) (int64, error) {
	return time.Now().UnixMilli(), nil
}

// Exclusive implements store.Store.
func (s *Store) Exclusive() bool { return s.opt.Exclusive }

// Close implements store.Store. It complains of views that nobody closed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if n := len(s.views); n > 0 {
		return fmt.Errorf("%d views were not closed", n)
	}
	return nil
}

// oldestLocked is the commit up to which no open view looks behind the newest row.
func (s *Store) oldestLocked() uint64 {
	oldest := s.commits
	for v := range s.views {
		oldest = min(oldest, v.at)
	}
	return oldest
}
