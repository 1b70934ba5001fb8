package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
)

// Deps are what the store is given. All may be nil.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Store implements store.Store over one database.
type Store struct {
	cfg     Config
	dialect *dialect
	log     *slog.Logger
	metrics *metrics

	writes, lazy, reads *sql.DB

	buffers  sync.Pool // *text, of scripts that are done
	packet   int       // bytes a packet may hold
	closed   atomic.Bool
	offs     atomic.Uint64 // how often waiting for a replica had ended, when last asked
	barriers atomic.Uint64 // picks a barrier row
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Movable = (*Store)(nil)
)

// Open connects to a database and looks whether it can serve: the kind of server, the
// version of the schema.
func Open(ctx context.Context, cfg Config, deps Deps) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, err
	}
	d, err := cfg.driver()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: deps.Log, metrics: m}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ReadTimeout)
	defer cancel()
	if err := s.open(ctx, d); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s at %s: %w", d.DBName, d.Addr, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, d *mysql.Config) (err error) {
	if s.writes, err = newPool(d, readCommitted, s.cfg.WriteConns, &s.cfg); err != nil {
		return err
	}
	if s.lazy, err = newPool(d, readCommitted, s.cfg.LazyConns, &s.cfg); err != nil {
		return err
	}
	if s.reads, err = newPool(d, repeatableRead, s.cfg.ReadConns, &s.cfg); err != nil {
		return err
	}
	var version string
	if err := s.writes.QueryRowContext(ctx, "SELECT VERSION(), @@max_allowed_packet").Scan(&version, &s.packet); err != nil {
		return err
	}
	if s.packet = min(s.packet, d.MaxAllowedPacket) - 1024; s.packet < minPacket {
		return fmt.Errorf("max_allowed_packet is below %d bytes: raise it on the server", minPacket+1024)
	}
	if s.dialect, err = dialectOf(version); err != nil {
		return err
	}
	if err := checkSchema(ctx, s.writes); err != nil {
		return err
	}
	if s.waits() {
		_, err = s.askReplica(ctx)
	}
	return err
}

// Now implements store.Store by the server's clock.
func (s *Store) Now(ctx context.Context) (int64, error) {
	if s.closed.Load() {
		return 0, store.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	var ms int64
	err := s.reads.QueryRowContext(ctx, "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)").Scan(&ms)
	if err != nil {
		return 0, fmt.Errorf("ask the database for its time: %w", err)
	}
	return ms, nil
}

// Exclusive implements store.Store: others may write a database of a server.
func (s *Store) Exclusive() bool { return false }

// Close implements store.Store. Views that are open end with their reads.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, db := range []*sql.DB{s.writes, s.lazy, s.reads} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
