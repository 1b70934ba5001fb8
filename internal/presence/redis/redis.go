// Package redis is the presence cache of a cluster: a Redis hash a user, a field a device.
// It holds hints only: flushed, failed over or down, it says "not known", never "offline",
// and the gateways' renewals fill it again.
//
//	Apply -> change -> run(write.lua) -> one round trip a server -> circuit
//	Get   ->           run(read.lua)
package redis

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"hongyan/internal/presence"
)

var (
	//go:embed write.lua
	writeScript string
	//go:embed read.lua
	readScript string
)

// callMax is how many users' scripts go to Redis together. While it runs them it serves nobody
// else: some 2 ms.
const callMax = 256

// Deps are what a Cache works with.
type Deps struct {
	Log     *slog.Logger          // nil: discarded
	Metrics prometheus.Registerer // nil: none
}

// Cache implements presence.Cache.
type Cache struct {
	cfg     Config
	options rueidis.ClientOption
	log     *slog.Logger
	met     *metrics
	circuit circuit
	write   *script
	read    *script

	mu     sync.Mutex // held while connecting
	client rueidis.Client
	closed bool
}

var _ presence.Cache = (*Cache)(nil)

// Open returns the cache. That Redis is down is no error: it is asked again with later calls,
// and until then nothing is known.
func Open(ctx context.Context, cfg Config, deps Deps) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	options, err := cfg.options()
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	c := &Cache{
		cfg: cfg, options: options, log: deps.Log, circuit: circuit{pause: cfg.Pause},
		write: newScript(writeScript), read: newScript(readScript),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.met, err = newMetrics(deps.Metrics, &c.circuit); err != nil {
		return nil, fmt.Errorf("presence: metrics: %w", err)
	}
	_ = c.Ping(ctx) // its failure has been logged
	return c, nil
}

// Ping asks Redis whether it is there: one round trip, to one server.
func (c *Cache) Ping(ctx context.Context) error {
	_, err := c.Get(ctx, []presence.User{{}})
	return err
}

// Put implements presence.Cache.
func (c *Cache) Put(ctx context.Context, user presence.User, routes ...presence.Route) error {
	if len(routes) == 0 {
		return ctx.Err()
	}
	return c.Apply(ctx, []presence.Change{{User: user, Routes: routes}})
}

// Remove implements presence.Cache.
func (c *Cache) Remove(ctx context.Context, user presence.User, device string, sessionEpoch uint64) error {
	return c.Apply(ctx, []presence.Change{{User: user, Device: device, SessionEpoch: sessionEpoch}})
}

// Apply implements presence.Cache.
func (c *Cache) Apply(ctx context.Context, changes []presence.Change) error {
	var errs []error
	for part := range slices.Chunk(changes, callMax) {
		calls := make([]call, 0, len(part))
		for _, ch := range part {
			one, err := c.change(ch)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			calls = append(calls, one)
		}
		failed := 0
		results, err := c.run(ctx, c.write, calls)
		for _, r := range results {
			// The script returns nothing.
			if rerr := r.Error(); rerr != nil && !rueidis.IsRedisNil(rerr) {
				failed, err = failed+1, rerr
			}
		}
		if failed > 0 {
			err = fmt.Errorf("presence cache refused %d of %d writes: %w", failed, len(calls), err)
		}
		if errs = append(errs, err); err != nil {
			break // the rest would fare no better
		}
	}
	return errors.Join(errs...)
}

// Get implements presence.Cache. Of users whose server does not answer, while others do,
// nothing is known.
func (c *Cache) Get(ctx context.Context, users []presence.User) ([]presence.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries := make([]presence.Entry, 0, len(users))
	for part := range slices.Chunk(users, callMax) {
		calls := make([]call, len(part))
		for i, u := range part {
			calls[i] = call{key: c.key(u)}
		}
		results, err := c.run(ctx, c.read, calls)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			entries = append(entries, entry(r))
		}
	}
	return entries, nil
}

// entry is what a read said of one user.
func entry(r rueidis.RedisResult) presence.Entry {
	texts, err := r.AsStrSlice()
	if err != nil { // nil, too: not known
		return presence.Entry{}
	}
	e := presence.Entry{Known: true}
	if len(texts) > 0 {
		e.Routes = decodeRoutes(texts)
		slices.SortFunc(e.Routes, func(a, b presence.Route) int { return cmp.Compare(a.Device, b.Device) })
	}
	return e
}

// Close implements presence.Cache.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
