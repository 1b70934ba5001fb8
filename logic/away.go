package logic

import (
	"context"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/duty"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// Where the tier is split by duty (ZZ-21), logins are served beside the homes of users. An
// instance that logs a user in keeps nothing of him: his home takes the route, and ends what
// it replaces, before the changes are read; so what is committed after the reading is pushed
// (P11). docs/decisions/0007-logic-by-duty.md says what could go wrong, and why it does not.

// arrival is a login on its way to the home of its user.
type arrival struct {
	item          *tier.Renewal
	gateway, boot string                 // of the connection
	home          route.Peer[tier.Logic] // that took it
	done          chan error             // capacity 1
}

// away tells that another Logic is the user's home, or none that can be reached. A tier that
// is not split says no: whoever is asked stands in.
func (l *Logic) away(hash uint64) bool {
	if !l.deps.Logics.Split() {
		return false
	}
	home, err := l.deps.Logics.PickFor(duty.Message, hash)
	return err != nil || home.Addr != l.self.Addr
}

// authAway goes on with a login, once das has decided, of a user whose home is elsewhere.
func (l *Logic) authAway(ctx context.Context, r *request, to presence.Route, req *im.Auth, login *tier.LoggedIn) (message, error) {
	a, err := l.arrive(ctx, r, to, req, login)
	if err != nil {
		return nil, l.refuseLogin(r, err)
	}
	r.arrived = a
	by := &conn{user: &user{User: presence.User{Tenant: r.up.Tenant, UID: r.up.Uid}}, Route: to}
	if len(login.Replaced) > 0 { // of which the home may know nothing
		l.replaceElsewhere(ctx, by, login.Replaced)
	}
	l.remember(ctx, by)
	sync, err := l.readLogin(ctx, r, req)
	if err != nil {
		return nil, err // the gateway closes the connection and tells the home
	}
	l.respond(r, code.OK, l.authAck(r, to, sync), &tier.Down{SessionEpoch: to.SessionEpoch, Home: a.home.Addr})
	return nil, nil
}

// arrive has the user's home take the route of a login. StaleLogin: it knows a later one of
// the device.
func (l *Logic) arrive(ctx context.Context, r *request, to presence.Route, req *im.Auth, login *tier.LoggedIn) (*arrival, error) {
	a := &arrival{gateway: r.gateway, boot: r.boot, done: make(chan error, 1), item: &tier.Renewal{
		Conn: to.Conn, Tenant: r.up.Tenant, Uid: r.up.Uid, Device: to.Device, Class: to.Class,
		SessionEpoch: to.SessionEpoch, Epoch: req.Epoch, Cursor: req.Cursor,
		Platform: to.Platform, Ip: to.IP, LoginMs: to.LoginMS, Replaced: login.Replaced,
	}}
	for try := 1; ; try++ {
		home, err := l.deps.Logics.PickFor(duty.Message, r.user())
		if err != nil {
			return nil, err
		}
		a.home = home
		if !l.arrivals.add(lineKey{home.Addr, home.Boot}, home, a) {
			return nil, l.accepts()
		}
		select {
		case err = <-a.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err == nil || answered(err) || try == arriveTries {
			return a, err
		}
	}
}

// arriveTries is how many homes are asked to take a route.
const arriveTries = 3

// sendArrivals has a home take routes: one Renew for each gateway that is in the batch.
func (l *Logic) sendArrivals(ctx context.Context, home route.Peer[tier.Logic], items []*arrival) {
	var failed error
	for len(items) > 0 {
		b := &tier.RenewBatch{Gateway: items[0].gateway, Boot: items[0].boot, Login: true}
		var of, rest []*arrival
		for _, a := range items {
			if a.gateway == b.Gateway && a.boot == b.Boot {
				of, b.Items = append(of, a), append(b.Items, a.item)
			} else {
				rest = append(rest, a)
			}
		}
		reply := &tier.RenewReply{}
		if failed == nil {
			reply, failed = home.Client.Renew(ctx, b)
		}
		for _, a := range of {
			switch {
			case failed != nil:
				a.done <- code.Errorf(code.Unavailable, "the home of the user cannot be reached: %w", failed)
			case slices.Contains(reply.Stale, a.item.Conn):
				a.done <- code.Errorf(code.StaleLogin, "a later connection of device %s has logged in", a.item.Device)
			default:
				a.done <- nil
			}
		}
		items = rest
	}
	if failed != nil {
		l.log.Warn("logins could not be registered", "logic", home.Addr, "err", failed)
		l.deps.Logics.Failed(home)
	}
}

// takeArrivals registers the routes of logins that another Logic serves. Their gateway holds
// pushes back until they are answered.
func (l *Logic) takeArrivals(b *tier.RenewBatch) *tier.RenewReply {
	now := time.Now()
	reply := &tier.RenewReply{}
	for _, it := range b.Items {
		s, hash := l.users.lock(it.Tenant, it.Uid)
		u := s.getLocked(it.Tenant, it.Uid, hash)
		c, _, ok := l.enterLocked(u, routeOf(b, it), position{it.Epoch, it.Cursor}, now)
		if ok {
			l.endLocked(c, it.Replaced)
		} else {
			reply.Stale = append(reply.Stale, it.Conn)
		}
		s.Unlock()
	}
	return reply
}

// left tells a home that a connection had ended before its login was answered.
func (l *Logic) left(a *arrival) {
	up := &tier.Uplink{
		Event: tier.Uplink_CLOSED, Conn: a.item.Conn, Tenant: a.item.Tenant, Uid: a.item.Uid,
		Device: a.item.Device, SessionEpoch: a.item.SessionEpoch,
	}
	l.pass(a.home, parcel{left: &tier.UplinkBatch{Gateway: a.gateway, Boot: a.boot, Items: []*tier.Uplink{up}}})
}

// tellLeft is left's part of a batch for another Logic.
func (l *Logic) tellLeft(ctx context.Context, to route.Peer[tier.Logic], items []parcel) {
	for _, p := range items {
		if p.left == nil {
			continue
		}
		if _, err := to.Client.Uplink(ctx, p.left); err != nil {
			// The first push finds out, or three periods without a renewal.
			l.log.Warn("an ended connection could not be reported", "logic", to.Addr, "err", err)
			return
		}
	}
}
