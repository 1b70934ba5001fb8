package shards

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
)

// Deps are what the store is given.
type Deps struct {
	// Open opens a member by its DSN. It is called again as long as it fails, and must not
	// wait longer than ctx.
	Open func(ctx context.Context, dsn string) (Database, error)
	// Map is the first map. The zero Map: all buckets in the only shard.
	Map     Map
	Log     *slog.Logger          // nil = none
	Metrics prometheus.Registerer // nil = none
}

// Store implements store.Store over the shards.
type Store struct {
	cfg     Config
	open    func(context.Context, string) (Database, error)
	log     *slog.Logger
	metrics *metrics
	names   []string
	shards  []*shard
	opened  bool // the first looks are done

	applying sync.Mutex // one Apply at a time
	placed   atomic.Pointer[place]

	life   context.Context // ends with Close
	end    context.CancelFunc
	work   sync.WaitGroup // every goroutine of the store
	closed atomic.Bool
}

var (
	_ store.Placed     = (*Store)(nil)
	_ store.Replicated = (*Store)(nil)
)

// Open looks at every member once and follows them until Close. A shard of which no member
// takes writes is waited for, unless they all are so: then something is set up wrongly.
func Open(ctx context.Context, cfg Config, deps Deps) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	met, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics of shards: %w", err)
	}
	s := &Store{cfg: cfg, open: deps.Open, log: deps.Log, metrics: met, names: cfg.Names()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if len(deps.Map.Buckets) == 0 && len(s.names) == 1 {
		deps.Map = Even(s.names...)
	}
	if err := s.Apply(deps.Map); err != nil {
		return nil, err
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	for _, c := range cfg.Shards {
		s.shards = append(s.shards, newShard(s, c))
	}
	if err := s.firstLook(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.opened = true
	for _, sh := range s.shards {
		s.work.Go(func() { sh.follow(s.life) })
	}
	return s, nil
}

// firstLook fails if no shard takes writes. A database that is slow is asked again: it may be
// starting too.
func (s *Store) firstLook(ctx context.Context) error {
	for range missedLooks {
		var looks sync.WaitGroup
		for _, sh := range s.shards {
			looks.Go(func() { sh.look(ctx) })
		}
		looks.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		if !slices.ContainsFunc(s.shards, (*shard).slow) {
			break
		}
	}
	var errs []error
	for _, sh := range s.shards {
		if sh.primary.Load() != nil {
			continue
		}
		err := fmt.Errorf("shard %s: %w", sh.name, errNoPrimary)
		for _, m := range sh.members {
			if _, why := m.last(); why != nil {
				err = fmt.Errorf("%w; member %d: %w", err, m.number, why)
			}
		}
		errs = append(errs, err)
	}
	if len(errs) == len(s.shards) {
		return errors.Join(errs...)
	}
	for _, err := range errs {
		s.log.Error("a shard is not there", slog.Any("error", err))
	}
	return nil
}

// Apply puts a map in force, if its version is higher than that of the one in force. It is
// validated against the shards that are configured.
func (s *Store) Apply(m Map) error {
	p, err := m.place(s.names)
	if err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	if old := s.placed.Load(); old != nil {
		switch {
		case m.Version < old.Version:
			return fmt.Errorf("map of shards has version %d, %d is in force", m.Version, old.Version)
		case m.Version == old.Version && p.of != old.of:
			return fmt.Errorf("map of shards differs from the one in force, which has version %d too", m.Version)
		case m.Version == old.Version:
			return nil
		}
	}
	s.placed.Store(p)
	s.metrics.version.Set(float64(m.Version))
	s.log.Info("map of shards in force", "version", m.Version)
	return nil
}

// Map is the map in force.
func (s *Store) Map() Map { return s.placed.Load().Map }

// Databases implements store.Placed.
func (s *Store) Databases() int { return len(s.shards) }

// Database implements store.Placed.
func (s *Store) Database(bucket uint32) int { return int(s.placed.Load().of[bucket]) }

// Part implements store.Placed.
func (s *Store) Part(database int) store.Store { return &part{s, database} }

// Commit implements store.Store. All keys of the batch are in one database; one without
// keys goes to that of bucket 0, but for its finished ranges: those are for all.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Validate(); err != nil {
		return err
	}
	p := s.placed.Load()
	db, fence := p.databaseOf(b)
	if fence != nil {
		return fence
	}
	if err := s.commit(ctx, db, b); err != nil || len(s.shards) == 1 || len(b.FanOutDone)+len(b.DeliverDone) == 0 {
		return err
	}
	rest := &store.Batch{FanOutDone: b.FanOutDone, DeliverDone: b.DeliverDone}
	for i := range s.shards {
		if i != db {
			if err := s.commit(ctx, i, rest); err != nil { // losing it only repeats work
				s.log.Warn("finished rows were not deleted", "shard", s.names[i], slog.Any("error", err))
			}
		}
	}
	return nil
}

// databaseOf is where the keys of a batch are. A FenceError names the buckets that are not
// where the first one is.
func (p *place) databaseOf(b *store.Batch) (int, error) {
	db, first := int(p.of[0]), true
	var left []uint32
	add := func(bucket uint32) {
		switch {
		case first:
			db, first = int(p.of[bucket]), false
		case int(p.of[bucket]) != db && !slices.Contains(left, bucket):
			left = append(left, bucket)
		}
	}
	for _, f := range b.Buckets {
		add(f.ID)
	}
	if len(b.Buckets) == 0 { // without fences the keys themselves say it
		eachKey(b, func(k store.Key) { add(k.Bucket()) })
	}
	if len(left) > 0 {
		return 0, &store.FenceError{Buckets: left}
	}
	return db, nil
}

func eachKey(b *store.Batch, fn func(store.Key)) {
	for _, x := range b.Convs {
		fn(x.Key)
	}
	for _, x := range b.Users {
		fn(x.Key)
	}
	for _, x := range b.Sessions {
		fn(x.User)
	}
	for _, x := range b.Pushes {
		fn(x.User)
	}
	for _, x := range b.Cursors {
		fn(x.User)
	}
	for _, x := range b.Woken {
		fn(x.User)
	}
}

// commit writes to one database.
func (s *Store) commit(ctx context.Context, db int, b *store.Batch) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	sh := s.shards[db]
	m, err := sh.writer()
	if err != nil {
		return err
	}
	err = m.database().Commit(ctx, b)
	if fence := (*store.FenceError)(nil); err != nil && !errors.As(err, &fence) && !errors.Is(err, store.ErrInvalid) {
		sh.poke()
	}
	return err
}

// View implements store.Store. Each database is read in a snapshot of its own, of its
// primary, opened at the first read.
func (s *Store) View(ctx context.Context) (store.View, error) {
	return s.view(ctx, everywhere, nil)
}

// Now implements store.Store: the clock of the first database that answers.
func (s *Store) Now(ctx context.Context) (ms int64, err error) {
	for i := range s.shards {
		if ms, err = s.now(ctx, i); err == nil || ctx.Err() != nil {
			return ms, err
		}
	}
	return ms, err
}

func (s *Store) now(ctx context.Context, db int) (int64, error) {
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	m, err := s.shards[db].writer()
	if err != nil {
		return 0, err
	}
	ms, err := m.database().Now(ctx)
	if err != nil {
		s.shards[db].poke()
	}
	return ms, err
}

// Exclusive implements store.Store: of one database without copies, what it says itself.
func (s *Store) Exclusive() bool {
	if len(s.shards) != 1 || len(s.shards[0].members) != 1 {
		return false
	}
	db := s.shards[0].members[0].database()
	return db != nil && db.Exclusive()
}

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.end()
	s.work.Wait()
	var errs []error
	for _, sh := range s.shards {
		for _, m := range sh.members {
			errs = append(errs, m.close())
		}
	}
	return errors.Join(errs...)
}

// part is one database as a store.
type part struct {
	s  *Store
	db int
}

// Commit implements store.Store. Buckets that are elsewhere by the map of the moment are
// fenced here already; by an older map, the database does it (R17).
func (p *part) Commit(ctx context.Context, b *store.Batch) error {
	placed := p.s.placed.Load()
	var left []uint32
	for _, f := range b.Buckets {
		if f.ID < store.Buckets && int(placed.of[f.ID]) != p.db {
			left = append(left, f.ID)
		}
	}
	if len(left) > 0 {
		return &store.FenceError{Buckets: left}
	}
	return p.s.commit(ctx, p.db, b)
}

func (p *part) View(ctx context.Context) (store.View, error) { return p.s.view(ctx, p.db, nil) }
func (p *part) Now(ctx context.Context) (int64, error)       { return p.s.now(ctx, p.db) }
func (p *part) Exclusive() bool                              { return p.s.Exclusive() }

// Close does nothing: the parts end with their store.
func (p *part) Close() error { return nil }
