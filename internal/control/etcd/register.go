package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// registrant is who holds slots: one address of a tier.
type registrant struct{ tier, addr string }

// registration is one life of an instance.
type registration struct {
	in       control.Instance
	life     string
	settled  bool // in.Slot is final: an instance never moves while it lives
	lived    bool // it has been in etcd
	patience patience
	end      context.CancelFunc
}

// Register implements control.Center. With etcd away an instance whose slot is given or
// known is registered as soon as etcd is back, and listed in this process until then.
func (c *Center) Register(ctx context.Context, in control.Instance) (control.Instance, error) {
	if err := in.Validate(); err != nil {
		return in, err
	}
	if err := c.check(ctx); err != nil {
		return in, fmt.Errorf("register %s %s: %w", in.Tier, in.Addr, err)
	}
	r := &registration{in: in, life: rand.Text()[:10], settled: in.Slot >= 0}
	t := c.tenureOf(r)
	if err := c.enter(ctx, r, t); err != nil {
		return in, fmt.Errorf("register %s %s: %w", in.Tier, in.Addr, err)
	}
	granted := r.in // from here on r belongs to keep
	return granted, c.hold(ctx, r, t)
}

// enterAttempts is how often a slot is asked for before what is remembered must do.
const enterAttempts = 3

// enter claims a slot, or settles for the one that is remembered.
func (c *Center) enter(ctx context.Context, r *registration, t *tenure) error {
	err := errAway
	for range enterAttempts { // etcd may be slow; away it is when the pulse says so
		if c.isAway() {
			break
		}
		err = c.obtain(ctx, t)
		if err == nil || ctx.Err() != nil || errors.Is(err, control.ErrSlotTaken) {
			return err
		}
		pause(ctx, c.retryAfter())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rememberLocked(r) {
		return fmt.Errorf("%w, and what slot it held before is not known", err)
	}
	r.settled = true
	live := encode(liveRecord{r.in, r.life})
	c.members.held[seat{r.in.Tier, r.in.Slot}.liveKey()] = entry{data: []byte(live)}
	delete(c.members.entries, seat{r.in.Tier, r.in.Slot}.liveKey())
	c.changedLocked(c.members)
	c.log.Warn("control centre is away: registered when it is back", "tier", r.in.Tier, "slot", r.in.Slot, "addr", r.in.Addr)
	return nil
}

// rememberLocked finds the slot that the address held in the last known state.
func (c *Center) rememberLocked(r *registration) bool {
	if r.in.Slot >= 0 {
		return true
	}
	for key, e := range c.members.all() {
		s, live, err := parseMember(key)
		if err != nil || s.tier != r.in.Tier || live {
			continue
		}
		if rec, err := decodeSlot(e.data); err == nil && rec.Addr == r.in.Addr {
			r.in.Slot = s.slot
			return true
		}
	}
	return false
}

// hold keeps the registration until ctx ends. An older one of this process at the same
// address ends.
func (c *Center) hold(ctx context.Context, r *registration, t *tenure) error {
	ctx, r.end = context.WithCancel(ctx)
	who := registrant{r.in.Tier, r.in.Addr}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		r.end()
		return control.ErrClosed
	}
	if old := c.lives[who]; old != nil {
		old.end()
	}
	c.lives[who] = r
	c.wg.Go(func() {
		defer r.end()
		c.keep(ctx, t)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.lives[who] == r {
			delete(c.lives, who)
		}
		c.unholdLocked(r)
	})
	return nil
}

// unholdLocked forgets what enter listed in this process.
func (c *Center) unholdLocked(r *registration) {
	key := seat{r.in.Tier, r.in.Slot}.liveKey()
	if e, ok := c.members.held[key]; ok && strings.Contains(string(e.data), r.life) {
		delete(c.members.held, key)
		c.changedLocked(c.members)
	}
}

func (c *Center) tenureOf(r *registration) *tenure {
	return &tenure{
		what: fmt.Sprintf("%s %s", r.in.Tier, r.in.Addr),
		claim: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
			return c.claim(ctx, client, r, lease)
		},
		holds: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) (bool, error) {
			resp, err := client.Get(ctx, c.members.prefix+seat{r.in.Tier, r.in.Slot}.liveKey())
			return err == nil && len(resp.Kvs) == 1 && resp.Kvs[0].Lease == int64(lease), err
		},
		leave: func(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
			return c.leaveSlot(ctx, client, r, lease)
		},
	}
}

// claim takes a slot with a lease, in one transaction that fails if the slot was touched
// since it was read; then it is read again.
func (c *Center) claim(ctx context.Context, client *clientv3.Client, r *registration, lease clientv3.LeaseID) error {
	select {
	case c.claiming <- struct{}{}: // those of one process do not race each other
		defer func() { <-c.claiming }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for renewed := time.Now(); ; {
		if time.Since(renewed) > c.cfg.Lease/3 { // among many racers this may take a while
			c.keepLease(ctx, client, lease)
			renewed = time.Now()
		}
		seats, err := c.readSeats(ctx, client, r.in.Tier)
		if err != nil {
			return err
		}
		slot, err := choose(seats, r, time.Now(), c.cfg.Lease)
		if errors.Is(err, errWait) {
			// A lease may have run out while its owner lives: it gets the time to come back.
			if pause(ctx, c.cfg.beatEvery()/4); ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if err != nil {
			return err
		}
		revision, err := c.sit(ctx, client, r, slot, seats, lease)
		if err != nil {
			return err
		}
		if revision > 0 {
			r.in.Slot, r.settled, r.lived = slot, true, true
			c.awaitRevision(ctx, c.members, revision)
			return nil
		}
	}
}

// keepLease renews a lease that nothing hangs on yet.
func (c *Center) keepLease(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	_, _ = client.KeepAliveOnce(ctx, lease) // if that fails, so does the claim
}

// readSeats reads the slots of a tier as they are now.
func (c *Center) readSeats(ctx context.Context, client *clientv3.Client, tier string) (seats, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := client.Get(ctx, c.members.prefix+tier+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read the slots: %w", err)
	}
	out := seats{}
	for _, kv := range resp.Kvs {
		out.add(strings.TrimPrefix(string(kv.Key), c.members.prefix), kv)
	}
	return out, nil
}

// sit writes both records of a slot, and ends an older life of the address elsewhere. It
// returns the revision of the write, 0 if somebody was faster.
func (c *Center) sit(ctx context.Context, client *clientv3.Client, r *registration, slot int, seats seats, lease clientv3.LeaseID) (int64, error) {
	at, have, in := seat{r.in.Tier, slot}, seats[slot], r.in
	in.Slot = slot
	slotKey, liveKey := c.members.prefix+at.slotKey(), c.members.prefix+at.liveKey()
	unchanged := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(slotKey), "=", have.slotRev),
		clientv3.Compare(clientv3.ModRevision(liveKey), "=", have.liveRev),
	}
	ops := []clientv3.Op{
		clientv3.OpPut(slotKey, encode(slotRecord{Addr: r.in.Addr})),
		clientv3.OpPut(liveKey, encode(liveRecord{in, r.life}), clientv3.WithLease(lease)),
	}
	for other, s := range seats {
		if other != slot && s.live.Addr == r.in.Addr {
			key := c.members.prefix + seat{r.in.Tier, other}.liveKey()
			unchanged = append(unchanged, clientv3.Compare(clientv3.ModRevision(key), "=", s.liveRev))
			ops = append(ops,
				clientv3.OpPut(c.members.prefix+seat{r.in.Tier, other}.slotKey(), encode(slotRecord{Addr: r.in.Addr, Left: s.live.Life})),
				clientv3.OpDelete(key))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := client.Txn(ctx).If(unchanged...).Then(ops...).Commit()
	if err != nil {
		return 0, fmt.Errorf("claim slot %d: %w", slot, err)
	}
	if !resp.Succeeded {
		return 0, nil
	}
	return resp.Header.Revision, nil
}

// leaveSlot removes the live record, if it still is ours, and marks the slot as given up.
func (c *Center) leaveSlot(ctx context.Context, client *clientv3.Client, r *registration, lease clientv3.LeaseID) error {
	at := seat{r.in.Tier, r.in.Slot}
	slotKey, liveKey := c.members.prefix+at.slotKey(), c.members.prefix+at.liveKey()
	_, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.LeaseValue(liveKey), "=", lease)).
		Then(clientv3.OpPut(slotKey, encode(slotRecord{Addr: r.in.Addr, Left: r.life})), clientv3.OpDelete(liveKey)).
		Commit()
	return err
}
