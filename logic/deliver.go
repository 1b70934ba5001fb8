package logic

import (
	"context"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/duty"
	"hongyan/internal/route"
)

// parcel is one thing for another Logic; exactly one of the pointers is set.
type parcel struct {
	change *tier.Change
	order  *tier.FanOutOrder // for the members it names
	typing *tier.TypingTo
	fanned *tier.FannedOut
	left   *tier.UplinkBatch // of connections that ended while they were logged in here
	tries  int
}

// home returns the home of a user, by his hash; here: it is this Logic. With no Logic
// known, not even this one, it is here: better than nowhere.
func (l *Logic) home(hash uint64) (peer route.Peer[tier.Logic], here bool) {
	if l.deps.Logics.Slots() <= 1 {
		return peer, true
	}
	peer, err := l.deps.Logics.PickFor(duty.Message, hash)
	return peer, err != nil || peer.Addr == l.self.Addr
}

// homes names the members whose home is another Logic: das makes out the delivery rows to
// them. A Logic whose boot is not known owns rows by its address.
func (l *Logic) homes(tenant string, id conv.ID) []*tier.Home {
	if l.deps.Logics.Slots() <= 1 {
		return nil
	}
	var homes []*tier.Home
	for _, uid := range id.Members() {
		if peer, here := l.home(route.Hash(tenant, uid)); !here {
			boot := peer.Boot
			if boot == "" {
				boot = peer.Addr
			}
			homes = append(homes, &tier.Home{Uid: uid, Boot: boot})
		}
	}
	return homes
}

// pass puts a parcel into the batch for another Logic.
func (l *Logic) pass(to route.Peer[tier.Logic], p parcel) {
	l.peers.add(lineKey{to.Addr, to.Boot}, to, p)
}

// parcelTries is how often a change is passed on before it is left to its outbox row.
const parcelTries = 6

// sendParcels is one Deliver call to another Logic, and one FannedOut.
func (l *Logic) sendParcels(ctx context.Context, to route.Peer[tier.Logic], items []parcel) {
	b := &tier.DeliverBatch{Logic: l.self.Addr, Boot: l.self.Boot}
	f := &tier.FannedOutBatch{}
	for _, p := range items {
		switch {
		case p.change != nil:
			b.Changes = append(b.Changes, p.change)
		case p.order != nil:
			b.Orders = append(b.Orders, p.order)
		case p.typing != nil:
			b.Typing = append(b.Typing, p.typing)
		case p.fanned != nil:
			f.Items = append(f.Items, p.fanned)
		}
	}
	l.tellLeft(ctx, to, items)
	if len(f.Items) > 0 {
		if _, err := to.Client.FannedOut(ctx, f); err != nil {
			// Its rows are driven once more, which moves nothing.
			l.log.Warn("fan-out could not be reported", "logic", to.Addr, "items", len(f.Items), "err", err)
		}
	}
	if len(b.Changes)+len(b.Orders)+len(b.Typing) == 0 {
		return
	}
	if _, err := to.Client.Deliver(ctx, b); err != nil {
		l.log.Warn("deliver failed", "logic", to.Addr, "changes", len(b.Changes), "orders", len(b.Orders), "err", err)
		l.deps.Logics.Failed(to)
		for _, p := range items {
			l.passAgain(p)
		}
	}
}

// passAgain passes on what could not be delivered: the pool may name another home now.
// Orders are repeated by the owner of their row, as long as it takes.
func (l *Logic) passAgain(p parcel) {
	p.tries++
	if p.change == nil && p.order == nil || p.tries > parcelTries {
		return
	}
	send := func() {
		if p.order != nil {
			l.sendOrder(p.order, p.tries)
			return
		}
		home, here := l.home(route.Hash(p.change.Tenant, p.change.Uid))
		if here {
			l.push(p.change, &encoder{}, time.Now())
			return
		}
		l.pass(home, p)
	}
	if p.tries == 1 {
		send()
		return
	}
	l.later.after(backoff(p.tries-1, resubmitFirst, resubmitMost), send)
}

// Deliver takes what other Logics have for users whose home this is. Whoever asks is
// believed: during a failover two Logics may think differently, and both are right enough.
// The changes, orders and their rows belong to this Logic from now on.
func (l *Logic) Deliver(_ context.Context, b *tier.DeliverBatch) (*tier.Accepted, error) {
	if err := l.accepts(); err != nil {
		return nil, err
	}
	now := time.Now()
	e := &encoder{}
	for _, c := range b.Changes {
		if c.Row == nil {
			return nil, code.Errorf(code.BadRequest, "a change without a row")
		}
		l.push(c, e, now)
	}
	for _, o := range b.Orders {
		l.takeOrder(o, b.Logic, now)
	}
	for _, t := range b.Typing {
		l.pushTyping(t)
	}
	return accepted(), nil
}

// FannedOut takes reports that users have been reached; they belong to rows that this
// Logic owns or drives.
func (l *Logic) FannedOut(_ context.Context, b *tier.FannedOutBatch) (*tier.Accepted, error) {
	if l.state.Load() == created {
		return nil, l.accepts()
	}
	for _, f := range b.Items {
		l.fans.done(rowKey{f.Owner, f.Shard, f.Row}, f.Entry, f.Uid)
	}
	return accepted(), nil
}
