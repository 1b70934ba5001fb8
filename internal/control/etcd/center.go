// Package etcd is the control centre of a cluster. A process keeps what it last saw in memory
// and in a file: with etcd away it serves on, and even starts. What is gone from etcd because
// etcd was away is not taken for dead: see mirror.held.
//
// Open -> follow (list, watch) -> Members, Value, ...: read from memory only
// Register -> claim (a slot, by transaction) -> keep (the lease, for ever) -> leave
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// Center implements control.Center, Values, Services and Reports on etcd.
type Center struct {
	cfg     Config
	log     *slog.Logger
	metrics metrics

	life    context.Context // of all goroutines
	stop    context.CancelFunc
	wg      sync.WaitGroup
	client  atomic.Pointer[clientv3.Client] // nil until a password could be presented
	reports *reporter
	// claiming holds a token while a slot is claimed; capacity 1: the next waits.
	claiming chan struct{}

	mu       sync.Mutex
	closed   bool
	change   chan struct{} // closed and replaced at every change
	members  *mirror
	values   *mirror
	services map[string]*mirror           // those that are watched, by name
	tiers    map[string]control.Members   // read from members
	bad      map[string]unreadable        // by whole key
	lives    map[registrant]*registration // the newest of each address
	saved    map[string]map[string]stored // services of the snapshot that nobody has watched yet

	// away: etcd does not answer. backSince: the last time it came back.
	away      bool
	backSince time.Time
	epoch     context.Context // ends when everything is to be listed anew
	endEpoch  context.CancelFunc
}

type unreadable struct {
	revision int64
	err      error
}

var errAway = errors.New("control centre is away")

// Open connects. Where etcd cannot be reached it goes on from the snapshot; without one that
// is an error, as is etcd refusing the credentials.
func Open(ctx context.Context, cfg Config, deps Deps) (*Center, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("control centre: %w", err)
	}
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("control centre: endpoints name no etcd")
	}
	c := newCenter(cfg, deps)
	err := c.metrics.register(deps.Metrics)
	if err == nil {
		err = c.start(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func newCenter(cfg Config, deps Deps) *Center {
	c := &Center{
		cfg: cfg, log: deps.Log, metrics: newMetrics(),
		change:   make(chan struct{}),
		claiming: make(chan struct{}, 1),
		members:  newMirror(cfg.Prefix+membersDir, cfg.Lease),
		values:   newMirror(cfg.Prefix+valuesDir, 0),
		services: map[string]*mirror{},
		tiers:    map[string]control.Members{},
		bad:      map[string]unreadable{},
		lives:    map[registrant]*registration{},
	}
	c.members.gone = c.leftLocked
	c.values.keep = true
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.life, c.stop = context.WithCancel(context.Background())
	c.epoch, c.endEpoch = context.WithCancel(c.life)
	c.reports = newReporter(c)
	return c
}

func (c *Center) start(ctx context.Context) error {
	snapErr := c.loadSnapshot()
	c.away = false // what etcd does not list now has been gone for good
	err := c.firstLook(ctx)
	c.mu.Lock()
	c.away = err != nil
	c.mu.Unlock()
	if err != nil && refused(err) {
		return fmt.Errorf("control centre %v: %w", c.cfg.Endpoints, err)
	}
	if err != nil && snapErr != nil {
		return fmt.Errorf("control centre %v cannot be reached, and there is no snapshot to start from: %w",
			c.cfg.Endpoints, errors.Join(err, snapErr))
	}
	if err != nil {
		c.log.Warn("control centre cannot be reached: starting from the snapshot", "endpoints", c.cfg.Endpoints, "snapshot", c.cfg.Snapshot, "err", err)
	}
	c.metrics.up.Set(bit(err == nil))
	c.wg.Go(func() { c.follow(c.life, c.members) })
	c.wg.Go(func() { c.follow(c.life, c.values) })
	c.wg.Go(func() { c.pulse(c.life) })
	c.wg.Go(func() { c.saveSnapshots(c.life) })
	return nil
}

// firstLook lists everything once, so that Open returns with what is known.
func (c *Center) firstLook(ctx context.Context) error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.list(ctx, c.members); err != nil {
		return err
	}
	return c.list(ctx, c.values)
}

// refused tells that etcd answered, and that asking again will not help.
func refused(err error) bool {
	for _, e := range []error{rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken} {
		if errors.Is(err, e) {
			return true
		}
	}
	var file *fileError
	return errors.As(err, &file)
}

// fileError is a mistake in the TLS files: no matter of reaching anybody.
type fileError struct{ error }

// connect makes the client, unless there is one.
func (c *Center) connect() error {
	if c.client.Load() != nil {
		return nil
	}
	if _, err := c.cfg.TLS.load(); err != nil {
		return &fileError{err}
	}
	client, err := c.cfg.dial()
	if err != nil {
		return err
	}
	c.client.Store(client)
	return nil
}

func (c *Center) connected() (*clientv3.Client, error) {
	if client := c.client.Load(); client != nil {
		return client, nil
	}
	return nil, errAway
}

// pulse watches whether etcd answers.
func (c *Center) pulse(ctx context.Context) {
	every := c.cfg.beatEvery()
	for ctx.Err() == nil {
		began := time.Now()
		at, err := c.beat(ctx, every)
		if ctx.Err() != nil {
			return
		}
		c.beaten(at, err)
		pause(ctx, max(every/10, every-time.Since(began)))
	}
}

// beat asks etcd where it stands.
func (c *Center) beat(ctx context.Context, timeout time.Duration) (position, error) {
	if err := c.connect(); err != nil {
		return position{}, err
	}
	client, err := c.connected()
	if err != nil {
		return position{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := client.Get(ctx, c.cfg.Prefix+idKey)
	if err != nil {
		return position{}, err
	}
	at := position{Revision: resp.Header.Revision}
	if len(resp.Kvs) == 1 {
		at.Cluster = string(resp.Kvs[0].Value)
	}
	return at, nil
}

func (c *Center) beaten(at position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && !c.away:
		c.away = true
		c.log.Warn("control centre is away: what was last seen stays in use", "endpoints", c.cfg.Endpoints, "err", err)
	case err == nil && c.away:
		c.log.Info("control centre is back", "endpoints", c.cfg.Endpoints)
		c.graceLocked()
		c.relistLocked()
	case err == nil && c.members.replaced(at):
		c.relistLocked()
	}
	c.metrics.up.Set(bit(err == nil))
	c.releaseLocked(c.members)
	for _, m := range c.services {
		c.releaseLocked(m)
	}
}

// graceLocked starts the time in which everybody may come back.
func (c *Center) graceLocked() { c.away, c.backSince = false, time.Now() }

// relistLocked has every mirror listed anew.
func (c *Center) relistLocked() {
	c.endEpoch()
	c.epoch, c.endEpoch = context.WithCancel(c.life)
}

func (c *Center) currentEpoch() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// isAway tells whether a request is worth waiting for.
func (c *Center) isAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

func (c *Center) wakeLocked() {
	if c.closed {
		return
	}
	close(c.change)
	c.change = make(chan struct{})
}

// awaitRevision waits, for a while, until m shows a write of our own.
func (c *Center) awaitRevision(ctx context.Context, m *mirror, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	for {
		c.mu.Lock()
		shown, change := m.seen.Revision >= revision, c.change
		c.mu.Unlock()
		if shown {
			return
		}
		select {
		case <-change:
		case <-ctx.Done():
			return
		case <-c.life.Done():
			return
		}
	}
}

// show runs the loop of all watches: read is called under the lock at every change, and what
// it says to show is called outside of it.
func (c *Center) show(ctx context.Context, read func() (show func())) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return control.ErrClosed
		}
		show, change := read(), c.change
		c.mu.Unlock()
		if show != nil {
			show()
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *Center) check(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return control.ErrClosed
	}
	return ctx.Err()
}

// Close leaves what was registered, ends all watches and writes the snapshot.
func (c *Center) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if first {
		close(c.change)
	}
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
	if !first {
		return nil
	}
	if client := c.client.Load(); client != nil {
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("close control centre: %w", err)
		}
	}
	return nil
}

// Unreadable lists the keys that are ignored because nobody can tell what they mean.
func (c *Center) Unreadable() map[string]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]error, len(c.bad))
	for key, u := range c.bad {
		out[key] = u.err
	}
	return out
}

// badLocked remembers a key that cannot be read, and tells of it once.
func (c *Center) badLocked(m *mirror, key string, e entry, err error) {
	whole := m.prefix + key
	if was, ok := c.bad[whole]; ok && was.revision == e.revision {
		return
	}
	c.bad[whole] = unreadable{e.revision, err}
	c.log.Error("key of the control centre cannot be read and is ignored", "key", whole, "err", err)
}

// sweepLocked forgets the bad keys of m that are gone or readable now.
func (c *Center) sweepLocked(m *mirror, bad map[string]bool) {
	for whole := range c.bad {
		if len(whole) >= len(m.prefix) && whole[:len(m.prefix)] == m.prefix && !bad[whole[len(m.prefix):]] {
			delete(c.bad, whole)
		}
	}
}
