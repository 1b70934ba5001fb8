package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"hongyan/das/store"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
	"hongyan/internal/control"
	"hongyan/internal/control/etcd"
	"hongyan/internal/control/local"
	"hongyan/internal/mq"
	"hongyan/internal/mq/embedded"
	"hongyan/internal/mq/remote"
	"hongyan/internal/mq/rocketmq"
	"hongyan/internal/presence"
	"hongyan/internal/presence/memory"
	"hongyan/internal/presence/redis"
)

// Every part has an embedded form and one of a cluster. The configuration chooses by naming
// servers, or none: etcd in control.endpoints, RocketMQ in queue.name_servers, Redis in
// presence.addrs, databases in databases.shards.

// openTimeout bounds the opening of one part.
const openTimeout = 20 * time.Second

func opening() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), openTimeout)
}

// centre is everything a control centre offers.
type centre interface {
	control.Center
	control.Values
	control.Services
	control.Reports
}

// openCenter opens the control centre: etcd, or what the configuration lists.
func (p *process) openCenter(members map[string]control.Members) (centre, error) {
	if !p.cfg.usesEtcd() {
		values, err := p.openValues()
		if err != nil {
			return nil, err
		}
		c, err := local.NewWithValues(members, values)
		if err != nil {
			return nil, fmt.Errorf("cluster members: %w", err)
		}
		return c, nil
	}
	cfg := p.cfg.Control
	if cfg.Snapshot == "" {
		if err := makeDir(p.cfg.Data); err != nil {
			return nil, err
		}
		cfg.Snapshot = filepath.Join(p.cfg.Data, p.name+".control.json")
	}
	ctx, cancel := opening()
	defer cancel()
	return etcd.Open(ctx, cfg, etcd.Deps{Log: p.log, Metrics: p.metrics})
}

// openValues reads the file of live values, which need not be there.
func (p *process) openValues() (*local.Values, error) {
	cfg := p.cfg.Values
	if cfg.Path == "" {
		cfg.Path = filepath.Join(p.cfg.Data, "values.yaml")
	}
	values, err := local.OpenValues(cfg, p.log)
	if err != nil {
		return nil, fmt.Errorf("live values: %w", err)
	}
	p.add(stageInfra, "live values", values.Run)
	return values, nil
}

// openPresence opens the presence cache: Redis, or memory.
func (p *process) openPresence() (presence.Cache, error) {
	if len(p.cfg.Presence.Addrs) == 0 {
		return memory.New(memory.DefaultConfig()), nil
	}
	ctx, cancel := opening()
	defer cancel()
	c, err := redis.Open(ctx, p.cfg.Presence, redis.Deps{Log: p.log, Metrics: p.metrics})
	if err != nil {
		return nil, err
	}
	p.onClose(c.Close)
	return c, nil
}

// openQueue opens the queue: RocketMQ, or the embedded one, which this process then hosts.
func (p *process) openQueue() (mq.Queue, error) {
	if p.cfg.usesRocketMQ() {
		return p.openRocketMQ()
	}
	if err := makeDir(p.cfg.Data); err != nil {
		return nil, err
	}
	q, err := embedded.Open(filepath.Join(p.cfg.Data, "queue"), embedded.Options{Log: p.log, Metrics: p.metrics})
	if err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	p.onClose(q.Close)
	return q, nil
}

// reachQueue is the queue as a process sees it that does not host it.
func (p *process) reachQueue() (mq.Queue, error) {
	if p.cfg.usesRocketMQ() {
		return p.openRocketMQ()
	}
	return remote.NewPublisher(newPool(p, p.center, tierExtLogic, p.fabric.Queue)), nil
}

// openRocketMQ opens the client of this process, once: whoever publishes and whoever consumes
// share its connections.
func (p *process) openRocketMQ() (mq.Queue, error) {
	if p.rocket != nil {
		return p.rocket, nil
	}
	ctx, cancel := opening()
	defer cancel()
	q, err := rocketmq.Open(ctx, p.cfg.Queue, rocketmq.Deps{Log: p.log, Metrics: p.metrics})
	if err != nil {
		return nil, err
	}
	p.onClose(q.Close)
	p.rocket = q
	return q, nil
}

// openStore opens the store: databases, or the embedded one.
func (p *process) openStore() (store.Store, error) {
	if p.cfg.usesDatabases() {
		return p.openDatabases()
	}
	if err := makeDir(p.cfg.Data); err != nil {
		return nil, err
	}
	st, err := pebblestore.Open(p.cfg.storeConfig(), pebblestore.Deps{Log: p.log})
	if errors.Is(err, pebblestore.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", p.cfg.Data)
	}
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	p.onClose(st.Close)
	return st, nil
}

// openDatabases opens every database, and follows the map that says what is where.
func (p *process) openDatabases() (store.Store, error) {
	ctx, cancel := opening()
	defer cancel()
	first, err := p.firstMap(ctx)
	if err != nil {
		return nil, err
	}
	st, err := shards.Open(ctx, p.cfg.Databases, shards.Deps{
		Open: func(ctx context.Context, dsn string) (shards.Database, error) {
			db, err := sqlstore.Open(ctx, p.cfg.sqlConfig(dsn), sqlstore.Deps{Log: p.log, Metrics: p.metrics})
			if err != nil {
				return nil, err // not a database that is a nil *Store
			}
			return db, nil
		},
		Map: first, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("open the databases: %w", err)
	}
	p.onClose(st.Close)
	live, err := control.NewLive(p.center, shards.MapKey, control.LiveOptions[shards.Map]{
		Default: first, Decode: shards.ParseMap, Apply: st.Apply,
		Tier: tierDas, Addr: p.name, Reports: p.center, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return nil, err
	}
	p.add(stageInfra, "map of the shards", live.Run)
	return st, nil
}

// firstMap is the map to begin with: the one that hongyan db migrate has published. Without a
// control centre nothing moves, and the buckets stay in equal pieces.
func (p *process) firstMap(ctx context.Context) (shards.Map, error) {
	v, err := p.center.Value(ctx, shards.MapKey)
	switch {
	case err != nil:
		return shards.Map{}, fmt.Errorf("map of the shards: %w", err)
	case v.Data != nil:
		return shards.ParseMap(v.Data)
	case p.cfg.usesEtcd() && len(p.cfg.Databases.Shards) > 1:
		return shards.Map{}, errors.New("the control centre has no map of the shards: run hongyan db migrate first")
	}
	return shards.Even(p.cfg.Databases.Names()...), nil
}
