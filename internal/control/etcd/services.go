package etcd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// servicesGrace is for how long endpoints are held after etcd was away: stock registries
// look after their keys every 30 s.
const servicesGrace = time.Minute

// Announce implements control.Services: in the layout of Kitex's stock etcd registry, so that
// outsiders find us with its resolver.
func (c *Center) Announce(ctx context.Context, service string, e control.Endpoint) error {
	if err := control.ValidService(service); err != nil {
		return err
	}
	e, err := e.Normalize()
	if err != nil {
		return err
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	key, value := c.serviceDir(service)+e.Addr, encode(e)
	t := &tenure{
		what: "service " + service + " at " + e.Addr,
		claim: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
			ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
			defer cancel()
			_, err := client.Put(ctx, key, value, clientv3.WithLease(lease))
			return err
		},
		holds: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) (bool, error) {
			resp, err := client.Get(ctx, key)
			if err != nil || len(resp.Kvs) == 0 {
				return false, err
			}
			if resp.Kvs[0].Lease != int64(lease) {
				return false, errSuperseded
			}
			return true, nil
		},
		leave: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
			_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(key), "=", lease)).Then(clientv3.OpDelete(key)).Commit()
			return err
		},
	}
	if !c.isAway() {
		if err := c.obtain(ctx, t); err != nil {
			c.log.Warn("announced later", "service", service, "addr", e.Addr, "err", err)
		}
	}
	return c.spawn(func() { c.keep(ctx, t) })
}

// spawn starts a goroutine that Close waits for.
func (c *Center) spawn(run func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return control.ErrClosed
	}
	c.wg.Go(run)
	return nil
}

// WatchService implements control.Services: it shows what any Kitex server has registered
// under the name.
func (c *Center) WatchService(ctx context.Context, service string, fn func([]control.Endpoint)) error {
	if err := control.ValidService(service); err != nil {
		return err
	}
	m, err := c.mirrorOf(ctx, service)
	if err != nil {
		return err
	}
	var shown []control.Endpoint
	first := true
	return c.show(ctx, func() func() {
		now := c.readEndpointsLocked(m)
		if !first && reflect.DeepEqual(now, shown) {
			return nil
		}
		first, shown = false, now
		return func() { fn(now) }
	})
}

// mirrorOf returns the mirror of a service. It stays: services are named by configuration.
func (c *Center) mirrorOf(ctx context.Context, service string) (*mirror, error) {
	c.mu.Lock()
	m, ok := c.services[service]
	if !ok && !c.closed {
		m = newMirror(c.serviceDir(service), servicesGrace)
		m.restore(c.saved[service])
		c.services[service] = m
	}
	closed, away := c.closed, c.away
	c.mu.Unlock()
	if closed {
		return nil, control.ErrClosed
	}
	if ok {
		return m, nil
	}
	if !away {
		if err := c.list(ctx, m); err != nil && !errors.Is(err, context.Canceled) {
			c.log.Warn("service is not known yet", "service", service, "err", err)
		}
	}
	return m, c.spawn(func() { c.follow(c.life, m) })
}

func (c *Center) serviceDir(service string) string { return c.cfg.ServicesPrefix + "/" + service + "/" }

func (c *Center) readEndpointsLocked(m *mirror) []control.Endpoint {
	var out []control.Endpoint
	bad, seen := map[string]bool{}, map[string]bool{}
	for key, e := range m.all() {
		endpoint, err := decodeEndpoint(e.data)
		if err == nil && seen[endpoint.Addr] {
			err = fmt.Errorf("address %s is registered twice", endpoint.Addr)
		}
		if err != nil {
			bad[key] = true
			c.badLocked(m, key, e, err)
			continue
		}
		seen[endpoint.Addr] = true
		out = append(out, endpoint)
	}
	c.sweepLocked(m, bad)
	slices.SortFunc(out, func(a, b control.Endpoint) int { return strings.Compare(a.Addr, b.Addr) })
	return out
}
