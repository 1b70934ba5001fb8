package shards

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hongyan/das/store"
)

// everywhere is a view of all databases.
const everywhere = -1

// view reads the databases, each in one snapshot that is opened at its first read, by the
// map of the moment at which it was made.
type view struct {
	s      *Store
	ctx    context.Context
	placed *place
	only   int     // the database, or everywhere
	copy   *member // read instead of the primary; nil = none
	parts  []partView
	closed bool
}

// partView is the snapshot of one database.
type partView struct {
	store.View         // nil = not opened
	from       *member // stays after Close
}

func (s *Store) view(ctx context.Context, only int, copy *member) (store.View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	return &view{s: s, ctx: ctx, placed: s.placed.Load(), only: only, copy: copy, parts: make([]partView, len(s.shards))}, nil
}

// Replica implements store.Replicated.
func (s *Store) Replica(ctx context.Context, bucket uint32) (store.View, error) {
	db := s.Database(bucket)
	m := s.shards[db].replica()
	if m == nil {
		return nil, store.ErrNotFound
	}
	v, err := s.view(ctx, db, m)
	if err != nil {
		return nil, err
	}
	if _, err := v.(*view).open(db); err != nil {
		return nil, err
	}
	return v, nil
}

// of is the database of a bucket.
func (v *view) of(bucket uint32) int {
	if v.only != everywhere {
		return v.only
	}
	return int(v.placed.of[bucket])
}

func (v *view) open(db int) (store.View, error) {
	p := &v.parts[db]
	switch {
	case v.closed || v.s.closed.Load():
		return nil, store.ErrClosed
	case p.View != nil:
		return p.View, nil
	}
	m, err := v.copy, error(nil)
	if m == nil {
		if m, err = v.s.shards[db].writer(); err != nil {
			return nil, err
		}
	}
	opened, err := m.database().View(v.ctx)
	if err != nil {
		v.failed(m)
		return nil, fmt.Errorf("shard %s: %w", m.shard.name, err)
	}
	p.View, p.from = opened, m
	v.s.metrics.views.WithLabelValues(m.shard.name, v.role()).Inc()
	return opened, nil
}

func (v *view) role() string {
	if v.copy != nil {
		return roleReplica
	}
	return rolePrimary
}

// failed notes that a member could not be read: a copy is avoided for a while (DD-08), and
// the roles are looked at.
func (v *view) failed(m *member) {
	if v.ctx.Err() != nil {
		return // that was the reader
	}
	v.s.metrics.failures.WithLabelValues(m.shard.name, v.role()).Inc()
	if v.copy != nil {
		m.avoid.Store(time.Now().Add(v.s.cfg.Avoid).UnixMilli())
	}
	m.shard.poke()
}

// ask reads from the database of a bucket.
func ask[T any](v *view, bucket uint32, read func(store.View) (T, error)) (T, error) {
	return askPart(v, v.of(bucket), read)
}

func askPart[T any](v *view, db int, read func(store.View) (T, error)) (T, error) {
	part, err := v.open(db)
	if err != nil {
		var none T
		return none, err
	}
	got, err := read(part)
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrClosed) {
		v.failed(v.parts[db].from)
	}
	return got, err
}

// Barrier implements store.Barrier: it asks those members that were read.
func (v *view) Barrier(ctx context.Context) error {
	var errs []error
	for i := range v.parts {
		if m := v.parts[i].from; m != nil && v.copy == nil {
			errs = append(errs, m.barriers.wait(ctx, &v.s.work, v.s.life))
		}
	}
	return errors.Join(errs...)
}

func (v *view) Close() {
	v.closed = true
	for i := range v.parts {
		if p := &v.parts[i]; p.View != nil {
			p.View.Close()
			p.View = nil
		}
	}
}

func (v *view) Bucket(id uint32) (store.BucketState, error) {
	if id >= store.Buckets {
		return store.BucketState{}, store.ErrNotFound
	}
	return ask(v, id, func(p store.View) (store.BucketState, error) { return p.Bucket(id) })
}

func (v *view) Conv(k store.Key) (store.ConvHead, error) {
	return ask(v, k.Bucket(), func(p store.View) (store.ConvHead, error) { return p.Conv(k) })
}

func (v *view) User(k store.Key) (store.UserHead, error) {
	return ask(v, k.Bucket(), func(p store.View) (store.UserHead, error) { return p.User(k) })
}

func (v *view) Message(conv store.Key, seq uint64) (*store.Message, error) {
	return ask(v, conv.Bucket(), func(p store.View) (*store.Message, error) { return p.Message(conv, seq) })
}

func (v *view) Range(conv store.Key, from, to uint64, limit int) ([]*store.Message, error) {
	return ask(v, conv.Bucket(), func(p store.View) ([]*store.Message, error) { return p.Range(conv, from, to, limit) })
}

func (v *view) Last(conv store.Key, before uint64, limit int) ([]*store.Message, error) {
	return ask(v, conv.Bucket(), func(p store.View) ([]*store.Message, error) { return p.Last(conv, before, limit) })
}

func (v *view) Modified(conv store.Key, after uint64, limit int) ([]*store.Message, error) {
	return ask(v, conv.Bucket(), func(p store.View) ([]*store.Message, error) { return p.Modified(conv, after, limit) })
}

func (v *view) ByClientID(conv store.Key, sender, clientMsgID string) (*store.Message, error) {
	return ask(v, conv.Bucket(), func(p store.View) (*store.Message, error) { return p.ByClientID(conv, sender, clientMsgID) })
}

func (v *view) Member(user store.Key, conv string) (store.Member, error) {
	return ask(v, user.Bucket(), func(p store.View) (store.Member, error) { return p.Member(user, conv) })
}

func (v *view) Changes(user store.Key, after uint64, limit int) ([]store.Member, error) {
	return ask(v, user.Bucket(), func(p store.View) ([]store.Member, error) { return p.Changes(user, after, limit) })
}

func (v *view) Members(user store.Key, before uint64, limit int) ([]store.Member, error) {
	return ask(v, user.Bucket(), func(p store.View) ([]store.Member, error) { return p.Members(user, before, limit) })
}

func (v *view) Devices(user store.Key) ([]store.Device, error) {
	return ask(v, user.Bucket(), func(p store.View) ([]store.Device, error) { return p.Devices(user) })
}

func (v *view) Sessions(user store.Key) ([]store.Session, error) {
	return ask(v, user.Bucket(), func(p store.View) ([]store.Session, error) { return p.Sessions(user) })
}

func (v *view) Pushes(user store.Key, limit int) ([]store.Push, error) {
	return ask(v, user.Bucket(), func(p store.View) ([]store.Push, error) { return p.Pushes(user, limit) })
}

func (v *view) FanOutRows(after store.RowKey, created store.Created, limit int) ([]store.FanOutRow, error) {
	return merged(v, limit, func(r *store.FanOutRow) store.RowKey { return r.RowKey }, func(p store.View) ([]store.FanOutRow, error) {
		return p.FanOutRows(after, created, limit)
	})
}

func (v *view) DeliverRows(after store.RowKey, created store.Created, limit int) ([]store.DeliverRow, error) {
	return merged(v, limit, func(r *store.DeliverRow) store.RowKey { return r.RowKey }, func(p store.View) ([]store.DeliverRow, error) {
		return p.DeliverRows(after, created, limit)
	})
}

// merged reads outbox rows of all databases, or of the only one, in key order.
func merged[R any](v *view, limit int, key func(*R) store.RowKey, read func(store.View) ([]R, error)) ([]R, error) {
	if v.only != everywhere {
		return askPart(v, v.only, read)
	}
	var all []R
	for db := range v.parts {
		rows, err := askPart(v, db, read)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	slices.SortFunc(all, func(a, b R) int {
		ka, kb := key(&a), key(&b)
		return cmp.Or(strings.Compare(ka.Owner, kb.Owner), cmp.Compare(ka.N, kb.N))
	})
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}
