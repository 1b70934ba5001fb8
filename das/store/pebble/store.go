// Package pebblestore keeps a store in one directory with Pebble: the durable default
// of a single process, with no server to install.
//
// A message costs four small keys (message, dedupe key, a member row each), a group
// commit one Pebble batch and one flush. Heads are no keys of their own: the head of a
// conversation is its last message, the head of a user the highest version among his
// member rows. Both are read once and then kept by the single committer, which checks
// fences against them. So no member row and no last message is ever deleted (R15), and
// only one process may use a directory.
//
//	Commit   verify (beliefs against heads) -> encode (rows into a batch) -> apply -> wait for its flush
//	View     an iterator -> wait for the flush of all it may show (R14) -> reads
package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hongyan/das/store"
)

// ErrLocked: another process, or another Store of this one, uses the data directory.
var ErrLocked = errors.New("in use by another process")

// format is the number of the layout in keys.go. A directory with a higher one is refused.
const format = 1

// Store implements store.Store. It is exclusive.
type Store struct {
	db      *pebble.DB
	lock    *pebble.Lock
	log     *slog.Logger
	flushes *flushes

	life   sync.RWMutex // held for reading by every call, for writing by Close
	closed bool
	views  atomic.Int64 // open

	// turn is held by the one commit that is being verified, encoded and applied. Waiting
	// for the flush happens outside of it, so the next commit overlaps with that.
	turn    chan struct{} // capacity 1; a token in it = taken
	heads   *heads
	buckets [store.Buckets]store.BucketState
	work    work

	headCount atomic.Int64 // heads held, for metrics
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the database in cfg.Dir. An error that wraps ErrLocked tells that
// the directory is in use.
func Open(cfg Config, deps Deps) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{
		log:     deps.Log,
		flushes: newFlushes(),
		turn:    make(chan struct{}, 1),
		heads:   newHeads(cfg.HeadConvs, cfg.HeadRows),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	metrics := newCollector(s)
	opt := cfg.options(deps.FS, &pebbleLog{log: s.log, fatal: s.fail, stalled: func() { metrics.stalls.Add(1) }})
	if opt.FS == nil {
		opt.WithFSDefaults()
	}
	opt.FS = &logFS{opt.FS, s.fail}
	var err error
	if s.lock, err = lockDir(cfg.Dir, opt.FS); err != nil {
		return nil, err
	}
	opt.Lock = s.lock
	if s.db, err = pebble.Open(cfg.Dir, opt); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", cfg.Dir, err), s.lock.Close())
	}
	if err := s.load(cfg.Dir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics of the store: %w", err), s.Close())
		}
	}
	return s, nil
}

// lockDir creates the directory and takes its lock.
func lockDir(dir string, fs vfs.FS) (*pebble.Lock, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	switch {
	case err == nil:
		return lock, nil
	case errors.Is(err, syscall.EAGAIN), // by another process
		strings.Contains(err.Error(), "lock held by current process"): // Pebble has no error for it
		return nil, fmt.Errorf("data directory %s is %w", dir, ErrLocked)
	}
	return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
}

// load checks the format of the database and reads the bucket rows.
func (s *Store) load(dir string) error {
	r := rowReader{db: s.db}
	defer r.close()
	val, err := r.get([]byte{tableFormat})
	switch {
	case errors.Is(err, store.ErrNotFound):
		if err := s.db.Set([]byte{tableFormat}, appendSeq(nil, format), pebble.Sync); err != nil {
			return fmt.Errorf("write to database %s: %w", dir, err)
		}
	case err != nil:
		return fmt.Errorf("read database %s: %w", dir, err)
	default:
		if n, err := decodeSeq(val); err != nil || n > format {
			return fmt.Errorf("database %s has format %d, this program knows up to %d", dir, n, format)
		}
	}
	for id := range s.buckets {
		s.buckets[id] = store.BucketState{Epoch: 1, Open: true}
	}
	err = r.scan([]byte{tableBucket}, []byte{tableBucket + 1}, false, func(key, val []byte) (err error) {
		id, ok := bucketOf(key)
		if !ok {
			return errCorrupt
		}
		s.buckets[id], err = decodeBucket(val)
		return err
	})
	if err != nil {
		return fmt.Errorf("read database %s: %w", dir, err)
	}
	return s.flushes.broke()
}

// Now implements store.Store: the clock of the one process that writes is the store's.
func (s *Store) Now(context.Context) (int64, error) { return time.Now().UnixMilli(), nil }

// Exclusive implements store.Store.
func (s *Store) Exclusive() bool { return true }

// Broken is closed when a flush has failed: the process must end, since what is in memory
// may not be on disk (R14). Err tells the reason.
func (s *Store) Broken() <-chan struct{} { return s.flushes.broken }

// Err is why the store is broken, wrapping store.ErrBroken, or nil.
func (s *Store) Err() error { return s.flushes.broke() }

// fail breaks the store.
func (s *Store) fail(reason error) {
	if s.flushes.fail(reason) {
		s.log.Error("the store is broken, the process must end", "err", reason)
	}
}

// enter begins a call: it is refused when the store is closed or broken.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return store.ErrClosed
	}
	if err := s.flushes.broke(); err != nil {
		s.life.RUnlock()
		return err
	}
	return nil
}

// Close implements store.Store. Views must be closed before.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if n := s.views.Load(); n > 0 {
		return fmt.Errorf("close database: %d views are open", n)
	}
	err := errors.Join(s.db.Close(), s.lock.Close())
	if broken := s.flushes.broke(); broken != nil {
		return broken
	}
	if err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}
