package gate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/batch"
	"hongyan/internal/duty"
	"hongyan/internal/route"
	"hongyan/internal/wire"
)

// renewer renews sessions with their users' home Logics: each every RenewEvery, and those
// whose home has changed at once. It finds connections that lost their slot and those that
// are connected but behind (P30, R21).
type renewer struct {
	gate   *Gate
	queues map[string]*batch.Sender[*Conn] // by address of the Logic; run's alone, as below
	ctx    context.Context
	work   sync.WaitGroup
}

const (
	renewMax = 512 // sessions in one call
	// homesEvery is how often homes are compared while instances come and go, homesFor how
	// long after the last change: a mark as down ends without a sign.
	homesEvery = 500 * time.Millisecond
	homesFor   = 5 * time.Second
)

func newRenewer(g *Gate) *renewer {
	return &renewer{gate: g, queues: map[string]*batch.Sender[*Conn]{}}
}

// run goes through the registry, a shard at a time, until ctx ends.
func (r *renewer) run(ctx context.Context) {
	r.ctx = ctx
	defer r.work.Wait()
	period := time.NewTicker(max(time.Millisecond, r.gate.cfg.RenewEvery/shards))
	defer period.Stop()
	homes := time.NewTicker(homesEvery)
	defer homes.Stop()
	var until time.Time // homes are compared until then
	changed := r.gate.deps.Logics.Changed()
	for shard := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-period.C:
			r.sweep(shard, true)
			shard = (shard + 1) % shards
		case <-changed:
			changed = r.gate.deps.Logics.Changed()
			until = time.Now().Add(homesFor)
		case <-homes.C:
			if time.Now().Before(until) {
				r.sweepAll()
			}
		}
	}
}

func (r *renewer) sweepAll() {
	for shard := range shards {
		r.sweep(shard, false)
	}
}

// sweep queues the sessions of a shard for renewal: all, or those whose home is another now.
func (r *renewer) sweep(shard int, all bool) {
	for _, c := range r.gate.conns.of(shard) {
		c.mu.Lock()
		r.considerLocked(c, all)
		c.mu.Unlock()
	}
}

func (r *renewer) considerLocked(c *Conn, all bool) {
	if c.phase != online || c.renew {
		return
	}
	peer, err := r.gate.home(c)
	if err != nil || !all && homeKey(peer) == c.home {
		return
	}
	c.renew = r.queue(peer.Addr).Add(c)
}

// queue of a Logic: one call at a time to each, so that a slow one delays only its own.
func (r *renewer) queue(addr string) *batch.Sender[*Conn] {
	q := r.queues[addr]
	if q == nil {
		q = batch.New(renewMax, 0, r.send)
		r.queues[addr] = q
		r.work.Go(func() { q.Run(r.ctx) })
	}
	return q
}

// send renews connections that were one Logic's when they were queued.
func (r *renewer) send(ctx context.Context, conns []*Conn) {
	byHome := map[uint64]*renewal{}
	var order []*renewal
	for _, c := range conns {
		peer, err := r.gate.home(c)
		if err != nil {
			c.renewed(0, false)
			continue
		}
		key := homeKey(peer)
		rn := byHome[key]
		if rn == nil {
			rn = &renewal{peer: peer, home: key}
			byHome[key] = rn
			order = append(order, rn)
		}
		rn.add(c)
	}
	for _, rn := range order {
		r.call(ctx, rn)
	}
}

// renewal is one call of Renew in the making.
type renewal struct {
	peer  route.Peer[tier.Logic]
	home  uint64
	conns []*Conn
	items []*tier.Renewal
}

func (rn *renewal) add(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != online {
		return
	}
	rn.conns = append(rn.conns, c)
	rn.items = append(rn.items, &tier.Renewal{
		Conn:         c.id,
		Tenant:       c.tenant,
		Uid:          c.uid,
		Device:       c.device,
		Class:        c.class,
		SessionEpoch: c.session,
		Epoch:        c.epoch,
		Cursor:       c.cursor,
		Platform:     c.platform,
		Ip:           c.ip,
		LoginMs:      c.loginMS,
	})
}

func (r *renewer) call(ctx context.Context, rn *renewal) {
	if len(rn.items) == 0 {
		return
	}
	g := r.gate
	call, cancel := context.WithTimeout(ctx, g.cfg.CallTimeout)
	defer cancel()
	reply, err := rn.peer.Client.Renew(call, &tier.RenewBatch{
		Gateway: g.deps.Self.Addr, Boot: g.deps.Self.Boot, Items: rn.items,
	})
	if err != nil {
		if refusal := (*code.Error)(nil); ctx.Err() == nil && !refused(err, &refusal) {
			g.deps.Logics.Failed(rn.peer)
		}
		g.deps.Log.Warn("sessions could not be renewed", "logic", rn.peer.Addr, "sessions", len(rn.items), "err", err)
	}
	for _, c := range rn.conns {
		c.renewed(rn.home, err == nil)
	}
	if err == nil && reply != nil {
		r.apply(rn, reply)
	}
}

// apply acts on what the Logic found.
func (r *renewer) apply(rn *renewal, reply *tier.RenewReply) {
	for i, c := range rn.conns {
		switch {
		case slices.Contains(reply.Replaced, c.id):
			c.kick(rn.items[i].SessionEpoch, code.CloseReplaced, "replaced")
		case slices.Contains(reply.Stale, c.id):
			c.kick(rn.items[i].SessionEpoch, code.CloseStaleLogin, "this device has logged in once more")
		}
	}
	for _, b := range reply.Behind {
		if c := r.gate.conns.get(b.Conn); c != nil {
			c.mu.Lock()
			c.behindLocked(b.Epoch, b.Head)
			c.unlock()
		}
	}
}

// renewed: the renewal is over. When it failed at what was the home, the session is known
// nowhere, and the next comparison of homes finds who stands in.
func (c *Conn) renewed(home uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew = false
	switch {
	case ok:
		c.home = home
	case c.home == home:
		c.home = 0
	}
}

// kick ends a session that lost its slot, unless it has become another meanwhile.
func (c *Conn) kick(session uint64, closing code.Code, reason string) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase != online || c.session != session {
		return
	}
	body, _ := (&im.Kick{
		Code: uint32(closing), Reason: reason, AtMs: time.Now().UnixMilli(),
	}).Marshal(nil)
	c.sendLocked(wire.Frame{Cmd: im.Cmd_KICK, Flags: wire.FlagOneWay, Body: body})
	c.kicked = true
	c.endLocked(code.Errorf(closing, "%s", reason))
}

// home of a connection's user.
func (g *Gate) home(c *Conn) (route.Peer[tier.Logic], error) {
	return g.deps.Logics.PickFor(duty.Message, c.hash)
}

// homeKey names one life of an instance.
func homeKey(peer route.Peer[tier.Logic]) uint64 {
	return xxhash.Sum64String(peer.Addr) ^ xxhash.Sum64String(peer.Boot)<<1 | 1
}
