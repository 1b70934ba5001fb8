package pebblestore

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"hongyan/das/store"
)

// Commit implements store.Store. Commits are verified and applied one at a time, in the
// order of their calls; several may wait for their flush together.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	p, err := s.commitInTurn(b)
	s.endTurn()
	if err != nil {
		// What the refusal tells may be of a commit whose flush is under way (R14).
		if broken := s.flushes.wait(ctx); broken != nil {
			return broken
		}
		return err
	}
	return s.await(p)
}

// takeTurn waits until the commit in front is applied.
func (s *Store) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.flushes.broken:
		return s.flushes.broke()
	}
	if err := s.flushes.broke(); err != nil {
		s.endTurn()
		return err
	}
	return nil
}

func (s *Store) endTurn() { <-s.turn }

func (s *Store) commitInTurn(b *store.Batch) (applied, error) {
	s.work.begin(s)
	defer s.work.end()
	defer func() { s.headCount.Store(int64(s.heads.convs.len() + s.heads.users.len())) }()
	if err := s.verify(b); err != nil {
		return applied{}, err
	}
	rows := s.db.NewBatch()
	if err := s.encode(rows, b); err != nil {
		s.heads.forget(b)
		return applied{}, discard(rows, err)
	}
	return s.apply(rows, !b.Lazy())
}

func discard(rows *pebble.Batch, why error) error {
	if err := rows.Close(); err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	return why
}

// applied is a batch that is visible and on its way to the disk.
type applied struct {
	rows *pebble.Batch // nil when there is no flush to wait for
	n    uint64        // of flushes
}

// apply makes the rows visible and, with sync, starts their flush. Without it they are
// flushed along with the next.
func (s *Store) apply(rows *pebble.Batch, sync bool) (applied, error) {
	if rows.Empty() {
		return applied{}, rows.Close()
	}
	var p applied
	var err error
	if sync {
		p = applied{rows, s.flushes.begin()}
		err = s.db.ApplyNoSyncWait(rows, pebble.Sync)
	} else {
		err = s.db.Apply(rows, pebble.NoSync)
	}
	if err != nil {
		s.fail(err)
	}
	if broken := s.flushes.broke(); broken != nil {
		return applied{}, broken
	}
	if !sync {
		return applied{}, rows.Close()
	}
	return p, nil
}

// await returns when the batch is flushed.
func (s *Store) await(p applied) error {
	if p.rows == nil {
		return nil
	}
	if err := p.rows.SyncWait(); err != nil {
		s.fail(fmt.Errorf("flush: %w", err))
	}
	if broken := s.flushes.broke(); broken != nil {
		return broken
	}
	s.flushes.end(p.n)
	if err := p.rows.Close(); err != nil {
		s.log.Error("a batch that was committed did not close", "err", err)
	}
	return nil
}

// SetBucket writes a bucket's row, as a restore does when it raises the epochs.
func (s *Store) SetBucket(ctx context.Context, id uint32, state store.BucketState) error {
	if id >= store.Buckets {
		return fmt.Errorf("%w: bucket %d", store.ErrInvalid, id)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.life.RUnlock()
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	rows := s.db.NewBatch()
	err := rows.Set(appendBucketKey(nil, id), appendBucket(nil, state), nil)
	var p applied
	if err == nil {
		s.buckets[id] = state
		p, err = s.apply(rows, true)
	}
	s.endTurn()
	if err != nil {
		return err
	}
	return s.await(p)
}

// work is what the committer needs for one batch and uses again for the next.
type work struct {
	batch    uint64 // number of the batch at hand
	reader   rowReader
	convs    []*convState // of Batch.Convs
	users    []*userState // of Batch.Members
	ids      []clientID   // of Batch.Messages
	seen     map[dedupeKey]struct{}
	key, val []byte
}

type dedupeKey struct {
	conv                store.Key
	sender, clientMsgID string
}

func (w *work) begin(s *Store) {
	s.heads.turn()
	w.batch++
	w.reader.db = s.db
	w.convs, w.users, w.ids = w.convs[:0], w.users[:0], w.ids[:0]
}

// end lets go of the snapshot and of everything that belongs to the batch.
func (w *work) end() {
	_ = w.reader.close() // its reads have reported their errors
	clear(w.convs[:cap(w.convs)])
	clear(w.users[:cap(w.users)])
	clear(w.ids[:cap(w.ids)])
	clear(w.seen)
	const keep = 1 << 20
	if cap(w.val) > keep {
		w.val = nil
	}
}
