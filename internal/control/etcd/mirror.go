package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// mirror is what this process last saw of the keys under one prefix. Center.mu guards it.
type mirror struct {
	prefix  string
	grace   time.Duration    // for which what ran out is held after etcd was away
	entries map[string]entry // by key without the prefix
	// held are entries that are gone in etcd but still in use: while etcd is away, and for a
	// grace period after, nobody could renew a lease.
	held map[string]entry
	// seen is the state of etcd that entries show; the zero position before the first list.
	seen position
	// listed in this life of the process: entries are not just those of the snapshot.
	listed bool
	// gone tells whether an entry that is deleted was given up by its owner. nil = never.
	gone func(key string, e entry) bool
	// keep says that entries missing in another etcd than the one they came from are held until
	// they are set again.
	keep bool
}

// position in the history of one etcd. Its own cluster id does not tell an emptied one from
// what it was.
type position struct {
	Cluster  string `json:"cluster"` // value of idKey
	Revision int64  `json:"revision"`
}

type entry struct {
	data     []byte
	revision int64
}

func newMirror(prefix string, grace time.Duration) *mirror {
	return &mirror{prefix: prefix, grace: grace, entries: map[string]entry{}, held: map[string]entry{}}
}

// all is entries and what is held.
func (m *mirror) all() map[string]entry {
	if len(m.held) == 0 {
		return m.entries
	}
	all := maps.Clone(m.held)
	maps.Copy(all, m.entries)
	return all
}

// replaced tells that p belongs to another history than what is shown: etcd lost its data.
func (m *mirror) replaced(p position) bool {
	return m.seen.Revision > 0 && (p.Cluster != m.seen.Cluster || p.Revision < m.seen.Revision)
}

// follow keeps m level with etcd until ctx ends.
func (c *Center) follow(ctx context.Context, m *mirror) {
	for ctx.Err() == nil {
		epoch := c.currentEpoch()
		err := c.list(epoch, m)
		if err == nil {
			err = c.watch(epoch, m)
		}
		if epoch.Err() != nil {
			continue // to be listed anew at once
		}
		c.log.Debug("following the control centre", "prefix", m.prefix, "err", err)
		pause(ctx, c.cfg.beatEvery()/4)
	}
}

// list replaces what is known by what etcd holds.
func (c *Center) list(ctx context.Context, m *mirror) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	id := c.cfg.Prefix + idKey
	resp, err := client.Txn(ctx). // a new etcd is given its id before anything is believed of it
					If(clientv3.Compare(clientv3.CreateRevision(id), "=", 0)).
					Then(clientv3.OpPut(id, rand.Text())).
					Commit()
	if err == nil {
		resp, err = client.Txn(ctx).Then(clientv3.OpGet(id), clientv3.OpGet(m.prefix, clientv3.WithPrefix())).Commit()
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", m.prefix, err)
	}
	named, listed := resp.Responses[0].GetResponseRange(), resp.Responses[1].GetResponseRange()
	if len(named.Kvs) == 0 {
		return fmt.Errorf("list %s: %s was removed", m.prefix, id)
	}
	entries := make(map[string]entry, len(listed.Kvs))
	for _, kv := range listed.Kvs {
		entries[strings.TrimPrefix(string(kv.Key), m.prefix)] = entry{kv.Value, kv.ModRevision}
	}
	at := position{string(named.Kvs[0].Value), resp.Header.Revision}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeLocked(m, entries, at)
	return nil
}

// takeLocked puts a whole list in place.
func (c *Center) takeLocked(m *mirror, entries map[string]entry, at position) {
	if m.replaced(at) {
		c.log.Warn("etcd has lost its data or is another one", "prefix", m.prefix, "was_at", m.seen.Revision, "is_at", at.Revision)
		c.graceLocked()
		if m.keep {
			for key, e := range m.entries {
				if _, ok := entries[key]; !ok {
					c.log.Warn("a value is gone in etcd and stays in use here until it is set again", "key", key)
					m.held[key] = e
				}
			}
		}
	}
	before := m.entries
	m.entries, m.seen, m.listed = entries, at, true
	for key, e := range before {
		if _, ok := entries[key]; !ok {
			c.lostLocked(m, key, e)
		}
	}
	c.changedLocked(m)
}

// watch applies what changes after the list, until that fails.
func (c *Center) watch(ctx context.Context, m *mirror) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	c.mu.Lock()
	from := m.seen.Revision + 1
	c.mu.Unlock()
	for resp := range client.Watch(ctx, m.prefix, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if err := resp.Err(); err != nil { // compacted, no leader: list anew
			return fmt.Errorf("watch %s from %d: %w", m.prefix, from, err)
		}
		c.mu.Lock()
		c.applyLocked(m, resp.Events, resp.Header.Revision)
		c.mu.Unlock()
	}
	return errors.New("watch has ended")
}

// applyLocked puts changes in force. Those of one transaction come together.
func (c *Center) applyLocked(m *mirror, events []*clientv3.Event, revision int64) {
	lost := map[string]entry{}
	for _, ev := range events {
		key := strings.TrimPrefix(string(ev.Kv.Key), m.prefix)
		if ev.Type == mvccpb.Event_DELETE {
			if e, ok := m.entries[key]; ok {
				lost[key] = e
			}
			delete(m.entries, key)
			continue
		}
		m.entries[key] = entry{ev.Kv.Value, ev.Kv.ModRevision}
		delete(lost, key)
	}
	m.seen.Revision = max(m.seen.Revision, revision)
	for key, e := range lost {
		c.lostLocked(m, key, e)
	}
	c.changedLocked(m)
}

// lostLocked decides about an entry that is gone in etcd: if nobody could have renewed it
// lately it is held.
func (c *Center) lostLocked(m *mirror, key string, e entry) {
	if m.keep || m.gone != nil && m.gone(key, e) {
		return
	}
	if c.away || time.Since(c.backSince) < m.grace {
		m.held[key] = e
	}
}

// releaseLocked drops what is held, once the grace period is over.
func (c *Center) releaseLocked(m *mirror) {
	if c.away || len(m.held) == 0 || time.Since(c.backSince) < m.grace {
		return
	}
	c.log.Warn("not back since etcd is, and dropped", "prefix", m.prefix, "count", len(m.held))
	clear(m.held)
	c.changedLocked(m)
}

// changedLocked shows a change to whoever waits.
func (c *Center) changedLocked(m *mirror) {
	for key := range m.held {
		if _, ok := m.entries[key]; ok {
			delete(m.held, key)
		}
	}
	switch m {
	case c.members:
		c.tiers = c.readMembersLocked()
	case c.values:
		c.checkValuesLocked()
	}
	c.countLocked()
	c.wakeLocked()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
