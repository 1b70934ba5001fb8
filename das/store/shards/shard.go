package shards

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/das/store"
)

// Database is one server of a shard.
type Database interface {
	store.Store
	store.Barrier
	// Role asks the server what it is now.
	Role(ctx context.Context) (store.Role, error)
}

// errNoPrimary: no member of a shard takes writes.
var errNoPrimary = errors.New("no member takes writes")

// member is one server of a shard.
type member struct {
	shard    *shard
	number   int
	dsn      string
	barriers barriers
	avoid    atomic.Int64 // time in Unix milliseconds until which it is not read as a copy

	mu   sync.Mutex
	db   Database   // nil = not opened yet
	role store.Role // of the last look
	err  error      // of the last look
}

// shard is one database and its copies. It follows the member that takes writes: by a look
// from time to time, and at once when something failed.
type shard struct {
	name    string
	store   *Store
	members []*member
	poked   chan struct{} // capacity 1: a token that is there says enough
	turn    atomic.Uint32 // of the copies, for reads

	primary atomic.Pointer[member] // nil = none
	epoch   atomic.Uint64          // highest that was seen: a member with a lower one is outdated
	missed  int                    // looks in a row in which the primary did not answer
}

func newShard(s *Store, cfg ShardConfig) *shard {
	sh := &shard{name: cfg.Name, store: s, poked: make(chan struct{}, 1)}
	for i, dsn := range cfg.Members {
		m := &member{shard: sh, number: i, dsn: dsn}
		m.barriers.write = m.barrier
		sh.members = append(sh.members, m)
	}
	return sh
}

// follow looks at the members until ctx ends.
func (s *shard) follow(ctx context.Context) {
	ticker := time.NewTicker(s.store.cfg.Look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.poked:
		}
		s.look(ctx)
	}
}

// poke asks for a look now.
func (s *shard) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// look asks all members for their role and decides whom to follow.
func (s *shard) look(ctx context.Context) {
	var asked sync.WaitGroup
	for _, m := range s.members {
		asked.Go(func() { m.look(ctx) })
	}
	asked.Wait()
	highest := s.highest()
	for _, m := range s.members {
		// They were not asked at the same moment: a bucket of a higher epoch may have been loaded in
		// between, and a copy told of it that was asked later. The source of a copy knows it by now;
		// one that was left behind by a promotion still does not.
		if role, err := m.last(); err == nil && role.Writable && role.Epoch < highest {
			m.look(ctx)
		}
	}
	if ctx.Err() == nil {
		s.decide()
	}
}

// highest is the highest epoch ever seen on any member.
func (s *shard) highest() uint64 {
	epoch := s.epoch.Load()
	for _, m := range s.members {
		if role, err := m.last(); err == nil {
			epoch = max(epoch, role.Epoch)
		}
	}
	return epoch
}

// decide follows the member that takes writes and has the highest epoch. One whose epoch is
// below the highest ever seen was left behind by a promotion, whatever it says of itself.
func (s *shard) decide() {
	now := s.primary.Load()
	epoch := s.highest()
	s.epoch.Store(epoch)
	var best *member
	for _, m := range s.members {
		role, err := m.last()
		if err == nil && role.Writable && role.Epoch == epoch && (best == nil || m == now) {
			best = m
		}
	}
	if best == nil && now != nil && s.bearsWith(now) {
		return
	}
	s.missed = 0
	if best != now {
		s.follows(now, best)
	}
}

// missedLooks is how many looks a primary may leave unanswered while nobody takes its place:
// it may just be busy, and its commits tell for themselves how they fare.
const missedLooks = 3

func (s *shard) bearsWith(m *member) bool {
	_, err := m.last()
	s.missed++
	return err != nil && s.missed < missedLooks
}

// slow tells whether a member has not answered in time, and nobody takes writes.
func (s *shard) slow() bool {
	return s.primary.Load() == nil && slices.ContainsFunc(s.members, func(m *member) bool {
		_, err := m.last()
		return errors.Is(err, context.DeadlineExceeded)
	})
}

func (s *shard) follows(old, now *member) {
	s.primary.Store(now)
	log := s.store.log.With("shard", s.name, "epoch", s.epoch.Load())
	gauge := s.store.metrics.writable.WithLabelValues(s.name)
	if now == nil {
		gauge.Set(0)
		_, err := old.last()
		log.Error("no member takes writes any more", "member", old.number, slog.Any("error", err))
		return
	}
	gauge.Set(1)
	if s.store.opened {
		s.store.metrics.switches.WithLabelValues(s.name).Inc()
		log.Warn("another member takes writes", "member", now.number)
	}
}

// writer is the member that takes writes.
func (s *shard) writer() (*member, error) {
	if m := s.primary.Load(); m != nil {
		return m, nil
	}
	s.poke()
	return nil, fmt.Errorf("shard %s: %w: %w", s.name, store.ErrNotWritten, errNoPrimary)
}

// replica is a copy that may be read, each in turn. nil: there is none.
func (s *shard) replica() *member {
	if len(s.members) < 2 {
		return nil
	}
	primary, epoch, now := s.primary.Load(), s.epoch.Load(), time.Now().UnixMilli()
	turn := int(s.turn.Add(1) % uint32(len(s.members)))
	for i := range s.members {
		m := s.members[(turn+i)%len(s.members)]
		role, err := m.last()
		if m != primary && err == nil && role.Epoch == epoch && m.avoid.Load() <= now {
			return m
		}
	}
	return nil
}

// last is what the last look has found.
func (m *member) last() (store.Role, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.db == nil && m.err == nil {
		return store.Role{}, errNotLooked
	}
	return m.role, m.err
}

var errNotLooked = errors.New("not looked at yet")

// look opens the database if need be and asks for its role.
func (m *member) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.shard.store.cfg.LookTimeout)
	defer cancel()
	m.mu.Lock()
	db := m.db
	m.mu.Unlock()
	var err error
	if db == nil {
		db, err = m.shard.store.open(ctx, m.dsn)
	}
	opened := err == nil // db may be a nil of some type otherwise
	var role store.Role
	if err == nil {
		role, err = db.Role(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if errors.Is(err, store.ErrBroken) || m.err == nil && err != nil {
		m.shard.store.log.Warn("a member does not answer", "shard", m.shard.name, "member", m.number, slog.Any("error", err))
	}
	m.role, m.err = role, err
	if m.db == nil && opened {
		m.db = db
	}
}

// database is the open database of a member that was chosen.
func (m *member) database() Database {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db
}

func (m *member) barrier(ctx context.Context) error {
	m.shard.store.metrics.barriers.Inc()
	err := m.database().Barrier(ctx)
	if err != nil {
		m.shard.poke()
		return fmt.Errorf("barrier of shard %s: %w", m.shard.name, err)
	}
	if m.shard.primary.Load() != m { // its rows may be lost all the same
		return fmt.Errorf("barrier of shard %s: another member takes writes now", m.shard.name)
	}
	return nil
}

func (m *member) close() error {
	if db := m.database(); db != nil {
		return db.Close()
	}
	return nil
}
