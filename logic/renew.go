package logic

import (
	"context"
	"slices"
	"time"

	"hongyan/idl/tier"
	"hongyan/internal/presence"
)

// pushGrace is how long after a push a connection is not told that it is behind: its ack
// may be on the way. Beyond it, the push may be lost, and the next renewal says so.
const pushGrace = 3 * time.Second

// Renew refreshes the sessions of a gateway: it makes routes that are missing, takes the
// connections' cursors, and answers who has lost his slot and who is behind his head.
// Heads and sessions are read from the store (R16): whatever was lost on the way, a
// connection that is connected but behind is found within one period.
func (l *Logic) Renew(ctx context.Context, b *tier.RenewBatch) (*tier.RenewReply, error) {
	if err := l.accepts(); err != nil {
		return nil, err
	}
	l.live.heard(b.Boot)
	if b.Login {
		return l.takeArrivals(b), nil
	}
	now := time.Now()
	users := make([]presence.User, 0, len(b.Items))
	for _, it := range b.Items {
		users = append(users, presence.User{Tenant: it.Tenant, UID: it.Uid})
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	progress := l.progress(ctx, users, true)
	reply := &tier.RenewReply{}
	for i, it := range b.Items {
		p := progress[users[i]]
		if p != nil && !holds(it, p, it.SessionEpoch) {
			if holds(it, p, 0) {
				reply.Stale = append(reply.Stale, it.Conn) // to its own device (R27)
			} else {
				reply.Replaced = append(reply.Replaced, it.Conn)
			}
			l.drop(it, b.Boot)
			continue
		}
		l.renewOne(b, it, p, now, reply)
	}
	return reply, nil
}

// routeOf is the route that a renewal tells of.
func routeOf(b *tier.RenewBatch, it *tier.Renewal) presence.Route {
	return presence.Route{
		Device: it.Device, Class: it.Class, Platform: it.Platform, Gateway: b.Gateway, Boot: b.Boot,
		Conn: it.Conn, SessionEpoch: it.SessionEpoch, IP: it.Ip, LoginMS: it.LoginMs,
	}
}

// holds tells that the device of a renewal has a slot, in this session; 0 = in any.
func holds(it *tier.Renewal, p *tier.UserProgress, session uint64) bool {
	return slices.ContainsFunc(p.Sessions, func(s *tier.Session) bool {
		return s.Device == it.Device && (session == 0 || s.SessionEpoch == session)
	})
}

// renewOne refreshes one connection.
func (l *Logic) renewOne(b *tier.RenewBatch, it *tier.Renewal, p *tier.UserProgress, now time.Time, reply *tier.RenewReply) {
	s, hash := l.users.lock(it.Tenant, it.Uid)
	defer s.Unlock()
	u := s.getLocked(it.Tenant, it.Uid, hash)
	c, _, ok := u.put(routeOf(b, it))
	if !ok { // a later connection of the same device is known here
		reply.Stale = append(reply.Stale, it.Conn)
		return
	}
	c.renewed = now
	claimed := position{it.Epoch, it.Cursor}
	head := u.head
	if p != nil {
		head = position{p.Epoch, p.Head}
		u.saw(head)
		if u.pushed.epoch == 0 {
			u.pushed = head
		}
		l.reachedLocked(u, u.claims(position{p.Epoch, p.Woken}))
	}
	if !c.syncing {
		l.cursorLocked(s, c, claimed)
	}
	s.dirtyLocked(c) // persisting the cursor also renews the session row
	// Under the lock: the removal of what closes from now on comes behind it.
	l.routes.Add(presence.Change{User: u.User, Routes: []presence.Route{c.Route}})
	if len(u.waiting) > 0 {
		l.waitingLocked(u, now)
	}
	level := claimed == head || claimed.n == 0 && head.n == 0
	fresh := !c.pushed.less(head) && now.Sub(c.pushedAt) < pushGrace
	if p != nil && !level && !fresh && !c.syncing {
		reply.Behind = append(reply.Behind, &tier.Behind{Conn: it.Conn, Epoch: head.epoch, Head: head.n})
	}
}

// drop forgets the route of a connection that lost its slot.
func (l *Logic) drop(it *tier.Renewal, boot string) {
	s, _ := l.users.lock(it.Tenant, it.Uid)
	defer s.Unlock()
	u := s.all[presence.User{Tenant: it.Tenant, UID: it.Uid}]
	if u == nil {
		return
	}
	if c := u.at(boot, it.Conn); c != nil && c.SessionEpoch <= it.SessionEpoch {
		u.remove(c)
		l.forget(u.User, c.Device, c.SessionEpoch)
	}
}
