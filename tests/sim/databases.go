package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/das/store/shards"
)

// databases are those of a cluster with several: each a primary and a copy, of which either may
// fail, and buckets move between them. Every das has its own view of the map and of who is the
// primary.
type databases struct {
	cluster *cluster
	pairs   []*pair
	strikes sync.WaitGroup
	struck  atomic.Bool // one database at a time

	mu      sync.Mutex
	moving  bool
	pending *uint32 // a move of this bucket has died
	there   string  // where it was to go
}

// pair is a database: two servers, one of which is the primary.
type pair struct {
	name    string
	servers [2]*dbServer
	primary int
}

// dbServer is an address at which a database server is, or is not just now.
type dbServer struct {
	store atomic.Pointer[memory.Store]
	down  atomic.Bool
}

var errDown = fmt.Errorf("%w: the database server is down", store.ErrNotWritten)

func (s *dbServer) up() (*memory.Store, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.store.Load(), nil
}

func (c *cluster) newDatabases() (*databases, error) {
	d := &databases{cluster: c}
	var names []string
	for i := range c.profile.databases {
		p := &pair{name: fmt.Sprintf("db%d", i)}
		for n := range p.servers {
			p.servers[n] = &dbServer{}
			p.servers[n].store.Store(d.newStore())
		}
		p.servers[0].store.Load().Replicate(p.servers[1].store.Load())
		d.pairs = append(d.pairs, p)
		names = append(names, p.name)
	}
	data, err := json.Marshal(shards.Even(names...))
	if err == nil {
		_, err = c.center.PutValue(c.ctx, shards.MapKey, data, 0)
	}
	return d, err
}

func (d *databases) newStore() *memory.Store {
	return memory.New(memory.Options{Unfenced: d.cluster.rules.unfenced})
}

// open makes a store of all databases that follows the map while ctx lives and awake says so.
func (d *databases) open(ctx context.Context, awake func() error) (*shards.Store, error) {
	c := d.cluster
	v, err := c.center.Value(ctx, shards.MapKey)
	if err != nil {
		return nil, err
	}
	placed, err := shards.ParseMap(v.Data)
	if err != nil {
		return nil, err
	}
	cfg := shards.DefaultConfig()
	servers := map[string]*dbServer{}
	for _, p := range d.pairs {
		s := shards.ShardConfig{Name: p.name}
		for n, server := range p.servers {
			dsn := fmt.Sprintf("%s.%d", p.name, n)
			servers[dsn] = server
			s.Members = append(s.Members, dsn)
		}
		cfg.Shards = append(cfg.Shards, s)
	}
	st, err := shards.Open(ctx, cfg, shards.Deps{Map: placed, Log: c.log, Open: func(_ context.Context, dsn string) (shards.Database, error) {
		return simDB{servers[dsn]}, nil
	}})
	if err != nil {
		return nil, err
	}
	c.work.Go(func() {
		_ = c.center.WatchValues(ctx, shards.MapKey, func([]controlValue) {
			v, err := c.center.Value(ctx, shards.MapKey)
			if err != nil || awake() != nil {
				return
			}
			next, err := shards.ParseMap(v.Data)
			if err == nil {
				err = st.Apply(next)
			}
			if err != nil {
				c.history.violate("a map was refused: %v", err)
			}
		})
		<-ctx.Done()
		_ = st.Close()
	})
	return st, nil
}

// strike lets one database fail: for a while its commits are not confirmed. Then either the
// copy catches up, or the primary dies and the copy is promoted; the old primary comes back as it
// was, and later as a copy of the new one.
func (d *databases) strike(ctx context.Context, pick, kind, length float64) {
	if d.struck.Swap(true) {
		return
	}
	c, p := d.cluster, d.pairs[int(pick*float64(len(d.pairs)))]
	d.strikes.Go(func() {
		defer d.struck.Store(false)
		old, next := p.servers[p.primary], p.servers[1-p.primary]
		old.store.Load().Cut()
		_ = sleep(ctx, scaled(length, 4*time.Second))
		if kind < 0.3 || ctx.Err() != nil {
			c.stats.count("replica lost")
			old.store.Load().Heal()
			return
		}
		c.stats.count("database failover")
		old.down.Store(true)
		_ = sleep(ctx, scaled(pick, 2*time.Second))
		next.store.Load().Promote(old.store.Load())
		d.mu.Lock()
		p.primary = 1 - p.primary
		d.mu.Unlock()
		_ = sleep(ctx, scaled(kind, 2*time.Second))
		old.down.Store(false) // it says that it takes writes
		_ = sleep(ctx, scaled(length, 6*time.Second))
		fresh := d.newStore()
		next.store.Load().Replicate(fresh)
		old.store.Store(fresh)
	})
}

// move moves a bucket of somebody to another database. The mover may die on its way; then the
// next one goes on.
func (d *databases) move(key store.Key, dies int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moving {
		return
	}
	d.moving = true
	d.strikes.Go(func() {
		_ = d.moveOne(key.Bucket(), &mortal{left: dies})
		d.mu.Lock()
		d.moving = false
		d.mu.Unlock()
	})
}

var errDead = errors.New("the mover has died")

// mortal ends a mover at its n-th write, done or not; 0 = never.
type mortal struct{ left, made int }

func (m *mortal) write(do func() error) error {
	if m.left == 0 {
		return do()
	}
	if m.made++; m.made < m.left {
		return do()
	}
	if m.made == m.left && m.left%2 == 0 {
		_ = do()
	}
	return errDead
}

func (d *databases) moveOne(bucket uint32, life *mortal) error {
	c := d.cluster
	v, err := c.center.Value(c.ctx, shards.MapKey)
	if err != nil {
		return err
	}
	placed, err := shards.ParseMap(v.Data)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.pending != nil {
		bucket = *d.pending
	}
	from, to := d.pairs[0], d.pairs[1]
	if placed.Shard(bucket) != from.name {
		from, to = to, from
	}
	if d.pending != nil && to.name != d.there { // it came there, and died before it could say so
		from, to = to, from
	}
	d.pending, d.there = &bucket, to.name
	m := shards.Mover{
		From: mortalDB{simDB{from.servers[from.primary]}, life}, To: mortalDB{simDB{to.servers[to.primary]}, life},
		FromName: from.name, ToName: to.name, Values: c.center, Page: 3, Resume: true,
		Progress: func(shards.MoveProgress) { time.Sleep(5 * time.Millisecond) },
	}
	d.mu.Unlock()
	if err := m.Move(c.ctx, bucket); err != nil {
		c.stats.count("move failed")
		c.log.Info("a move failed", "bucket", bucket, "err", err)
		return err
	}
	c.stats.count("bucket moved")
	d.mu.Lock()
	d.pending = nil
	d.mu.Unlock()
	return nil
}

// heal ends all that is under way, and the move that died.
func (d *databases) heal() {
	d.strikes.Wait()
	d.mu.Lock()
	pending := d.pending
	d.mu.Unlock()
	if pending == nil {
		return
	}
	if err := d.moveOne(*pending, &mortal{}); err != nil {
		d.cluster.history.violate("a move cannot be ended in a healed world: %v", err)
	}
}
