// Package memory is the presence cache of one process.
package memory

import (
	"cmp"
	"container/list"
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"hongyan/internal/presence"
)

// shards spread the locks; a power of two.
const shards = 64

// Cache implements presence.Cache. It has no goroutine: what has been forgotten goes away
// with later writes.
type Cache struct {
	ttl, remember time.Duration
	seed          maphash.Seed
	shard         [shards]shard
}

type shard struct {
	mu     sync.Mutex
	closed bool
	users  map[presence.User]*list.Element // of *record
	order  *list.List                      // *record, by the time of the last write
}

type record struct {
	user    presence.User
	written time.Time
	routes  []route // one a device: few, and a map costs ten times their memory
}

// at is the index of the device's route, -1 where it has none.
func (r *record) at(device string) int {
	return slices.IndexFunc(r.routes, func(in route) bool { return in.Device == device })
}

type route struct {
	presence.Route
	expires time.Time
}

// Config of a cache; zero fields take their defaults.
type Config struct {
	// TTL is how long a route is believed without being put again.
	TTL time.Duration `koanf:"ttl"`
	// Remember is how long a user's last word is kept.
	Remember time.Duration `koanf:"remember"`
}

// DefaultConfig is presence.TTL and presence.Remember.
func DefaultConfig() Config { return Config{TTL: presence.TTL, Remember: presence.Remember} }

// New returns an empty cache.
func New(cfg Config) *Cache {
	c := &Cache{ttl: cmp.Or(cfg.TTL, presence.TTL), remember: cmp.Or(cfg.Remember, presence.Remember), seed: maphash.MakeSeed()}
	for i := range c.shard {
		c.shard[i].reset()
	}
	return c
}

// Put implements presence.Cache.
func (c *Cache) Put(ctx context.Context, user presence.User, routes ...presence.Route) error {
	return c.write(ctx, user, func(r *record, now time.Time) {
		for _, in := range routes {
			next := route{in, now.Add(c.ttl)}
			switch i := r.at(in.Device); {
			case i < 0:
				r.routes = append(r.routes, next)
			case r.routes[i].SessionEpoch <= in.SessionEpoch:
				r.routes[i] = next
			}
		}
	})
}

// Remove implements presence.Cache.
func (c *Cache) Remove(ctx context.Context, user presence.User, device string, sessionEpoch uint64) error {
	return c.write(ctx, user, func(r *record, _ time.Time) {
		if i := r.at(device); i >= 0 && r.routes[i].SessionEpoch <= sessionEpoch {
			r.routes = slices.Delete(r.routes, i, i+1)
		}
	})
}

// Apply implements presence.Cache.
func (c *Cache) Apply(ctx context.Context, changes []presence.Change) error {
	for _, ch := range changes {
		var err error
		if len(ch.Routes) > 0 {
			err = c.Put(ctx, ch.User, ch.Routes...)
		} else {
			err = c.Remove(ctx, ch.User, ch.Device, ch.SessionEpoch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Get implements presence.Cache.
func (c *Cache) Get(ctx context.Context, users []presence.User) ([]presence.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	entries := make([]presence.Entry, len(users))
	for i, user := range users {
		entry, err := c.of(user).get(user, now, c.remember)
		if err != nil {
			return nil, err
		}
		entries[i] = entry
	}
	return entries, nil
}

// Flush forgets everything, as a restarted Redis would.
func (c *Cache) Flush() {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		s.reset()
		s.mu.Unlock()
	}
}

// Close implements presence.Cache.
func (c *Cache) Close() error {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		s.closed = true
		s.reset()
		s.mu.Unlock()
	}
	return nil
}

func (c *Cache) of(user presence.User) *shard {
	return &c.shard[maphash.Comparable(c.seed, user)%shards]
}

// write changes the record of a user, which it makes where there is none.
func (c *Cache) write(ctx context.Context, user presence.User, change func(*record, time.Time)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	s := c.of(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return presence.ErrClosed
	}
	s.forgetLocked(now.Add(-c.remember))
	e, ok := s.users[user]
	if !ok {
		e = s.order.PushBack(&record{user: user})
		s.users[user] = e
	}
	s.order.MoveToBack(e)
	r := e.Value.(*record)
	r.written = now
	r.routes = slices.DeleteFunc(r.routes, func(old route) bool { return !now.Before(old.expires) })
	change(r, now)
	return nil
}

func (s *shard) reset() {
	s.users = map[presence.User]*list.Element{}
	s.order = list.New()
}

// forgetLocked drops the records last written at or before a time.
func (s *shard) forgetLocked(before time.Time) {
	for e := s.order.Front(); e != nil; e = s.order.Front() {
		r := e.Value.(*record)
		if r.written.After(before) {
			return
		}
		s.order.Remove(e)
		delete(s.users, r.user)
	}
}

func (s *shard) get(user presence.User, now time.Time, remember time.Duration) (presence.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return presence.Entry{}, presence.ErrClosed
	}
	e, ok := s.users[user]
	if !ok {
		return presence.Entry{}, nil
	}
	r := e.Value.(*record)
	if now.Sub(r.written) >= remember {
		return presence.Entry{}, nil
	}
	entry := presence.Entry{Known: true}
	for _, in := range r.routes {
		if now.Before(in.expires) {
			entry.Routes = append(entry.Routes, in.Route)
		}
	}
	slices.SortFunc(entry.Routes, func(a, b presence.Route) int { return cmp.Compare(a.Device, b.Device) })
	return entry, nil
}
