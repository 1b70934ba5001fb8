package logic

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/presence"
)

// auth logs a connection in; its gateway has verified the token. The session row decides
// who may be logged in; then the route is registered, and only then the changes are read:
// what is committed after the reading is pushed, and nothing falls between (P11).
func (l *Logic) auth(ctx context.Context, r *request, req *im.Auth) (message, error) {
	device, err := l.checkAuth(r, req)
	if err != nil {
		return nil, err
	}
	policy := l.cfg.policy(r.up.Class)
	settled, err := l.await(ctx, r.user(), &tier.Submit{
		Tenant: r.up.Tenant, Repeated: r.up.Repeated,
		Login: &tier.Login{
			Uid: r.up.Uid, Device: device, Class: r.up.Class, Counter: req.ConnectionCounter,
			Slots: uint32(policy.Slots), RejectNew: policy.RejectNew, Gateway: r.boot,
			Platform: r.up.Platform, PushToken: req.PushToken, Epoch: req.Epoch, Cursor: req.Cursor,
		},
	})
	if err != nil {
		return nil, l.refuseLogin(r, err)
	}
	login := settled.Login
	if login == nil {
		return nil, code.Errorf(code.Internal, "das settled a login without a session")
	}
	to := presence.Route{
		Device: device, Class: r.up.Class, Platform: r.up.Platform, Gateway: r.gateway, Boot: r.boot,
		Conn: r.up.Conn, SessionEpoch: login.SessionEpoch, IP: r.up.Ip, LoginMS: time.Now().UnixMilli(),
	}
	if l.away(r.user()) {
		return l.authAway(ctx, r, to, req, login)
	}
	c, old, ok := l.register(r, to, req)
	if !ok {
		return nil, l.refuseLogin(r, code.Errorf(code.StaleLogin, "a later connection of device %s has logged in", device))
	}
	l.replace(ctx, c, slices.DeleteFunc(login.Replaced, func(s *tier.Session) bool {
		return old != nil && s.Device == device // register has ended it
	}))
	l.remember(ctx, c)
	sync, err := l.readLogin(ctx, r, req)
	if err != nil {
		l.unregister(c)
		return nil, err
	}
	l.welcome(r, c, sync)
	return nil, nil
}

// readLogin reads the changes that AUTH asks for.
func (l *Logic) readLogin(ctx context.Context, r *request, req *im.Auth) (*im.SyncRsp, error) {
	return l.readSync(ctx, r.up.Tenant, r.up.Uid, &im.Sync{
		Epoch: req.Epoch, Cursor: req.Cursor, Limit: req.SyncLimit, ModsKnown: req.ModsKnown,
	})
}

func (l *Logic) checkAuth(r *request, req *im.Auth) (device string, err error) {
	if err := checkTenant(r.up.Tenant); err != nil {
		return "", err
	}
	if err := conv.ValidUID(r.up.Uid); err != nil {
		return "", err
	}
	if device = r.up.Device; device == "" {
		device = req.Device
	}
	if req.Device != "" && req.Device != device {
		return "", code.Errorf(code.BadToken, "device %.64q is not the device of the token", req.Device)
	}
	if device == "" {
		return "", code.Errorf(code.BadRequest, "device is missing")
	}
	if err := checkOptionalID("device", device, maxDevice); err != nil {
		return "", err
	}
	if err := checkText("push_token", req.PushToken, maxPushToken); err != nil {
		return "", err
	}
	if _, err := limit("sync_limit", req.SyncLimit, 0, maxSync); err != nil {
		return "", err
	}
	return device, checkMods(req.ModsKnown)
}

// refuseLogin answers a login that the session row refused. One that lost to a later
// connection of its own device is closed as stale, never as replaced (R27).
func (l *Logic) refuseLogin(r *request, err error) error {
	if code.Of(err) != code.StaleLogin {
		return err
	}
	l.failClose(r, err, code.CloseStaleLogin)
	return nil
}

// register makes the route known, still without pushes on it: they wait for AUTH_ACK. An
// older connection of the device is ended and returned. False: a later one is known.
func (l *Logic) register(r *request, to presence.Route, req *im.Auth) (c, old *conn, ok bool) {
	s, hash := l.users.lock(r.up.Tenant, r.up.Uid)
	defer s.Unlock()
	u := s.getLocked(r.up.Tenant, r.up.Uid, hash)
	if c, old, ok = l.enterLocked(u, to, position{req.Epoch, req.Cursor}, time.Now()); ok {
		c.syncing = true
	}
	return c, old, ok
}

// enterLocked is what a home does with the route of a login.
func (l *Logic) enterLocked(u *user, to presence.Route, cursor position, now time.Time) (c, old *conn, ok bool) {
	if c, old, ok = u.put(to); !ok {
		return nil, nil, false
	}
	if old != nil {
		l.kick(old, code.CloseStaleLogin, to.Device)
	}
	c.renewed, c.cursor = now, cursor
	u.waiting = nil // committed before: the sync that follows reads it
	return c, old, true
}

func (l *Logic) unregister(c *conn) {
	s := l.users.shard(c.user.hash)
	s.Lock()
	c.user.remove(c)
	s.Unlock()
	l.forget(c.user.User, c.Device, c.SessionEpoch)
}

// welcome sends AUTH_ACK and then what was pushed since the route was registered.
func (l *Logic) welcome(r *request, c *conn, sync *im.SyncRsp) {
	ack := l.authAck(r, c.Route, sync)
	s := l.users.shard(c.user.hash)
	s.Lock()
	defer s.Unlock()
	l.respond(r, code.OK, ack, &tier.Down{SessionEpoch: c.SessionEpoch})
	u, next := c.user, position{sync.Epoch, sync.NextCursor}
	head := position{sync.Epoch, sync.Head}
	u.saw(head)
	u.pushed = furthest(u.pushed, head)
	c.syncing = false
	if !sync.MustReset {
		l.cursorLocked(s, c, c.cursor)
	}
	for _, down := range c.backlog {
		at := position{down.Epoch, down.Version}
		switch {
		case sync.More || !next.less(at):
		case l.down(c.line(), down, &u.User):
			c.pushed, c.pushedAt = furthest(c.pushed, at), time.Now()
		default:
			c.behind = true
		}
	}
	if c.behind && !l.noticeLocked(c) {
		l.lagLocked(c)
	}
	c.backlog, c.behind = nil, false
}

func (l *Logic) authAck(r *request, c presence.Route, sync *im.SyncRsp) *im.AuthAck {
	return &im.AuthAck{
		Tenant: r.up.Tenant, Uid: r.up.Uid, Device: c.Device,
		Session: strconv.FormatUint(c.SessionEpoch, 10), ServerMs: time.Now().UnixMilli(),
		HeartbeatS: uint32(l.cfg.Heartbeat / time.Second), Sync: sync,
	}
}

// replace ends the sessions that lost their slot to a login.
func (l *Logic) replace(ctx context.Context, by *conn, lost []*tier.Session) {
	if len(lost) == 0 {
		return
	}
	s := l.users.shard(by.user.hash)
	s.Lock()
	elsewhere := l.endLocked(by, lost)
	s.Unlock()
	if len(elsewhere) > 0 {
		l.replaceElsewhere(ctx, by, elsewhere)
	}
}

// endLocked ends sessions whose connections are known here, and returns the others.
func (l *Logic) endLocked(by *conn, lost []*tier.Session) (elsewhere []*tier.Session) {
	user := by.user
	for _, session := range lost {
		c := user.device(session.Device)
		switch {
		case c == nil, c == by:
			elsewhere = append(elsewhere, session)
		case c.SessionEpoch <= session.SessionEpoch:
			user.remove(c)
			l.kick(c, closeOf(session.Device, by.Device), by.Device)
			l.forget(user.User, c.Device, c.SessionEpoch)
		}
	}
	return elsewhere
}

// replaceElsewhere ends sessions whose route only the presence cache may know. Those that
// it does not know either are told by their next renewal.
func (l *Logic) replaceElsewhere(ctx context.Context, by *conn, lost []*tier.Session) {
	entries, err := l.deps.Presence.Get(ctx, []presence.User{by.user.User})
	if err != nil || len(entries) != 1 {
		return
	}
	for _, route := range entries[0].Routes {
		i := slices.IndexFunc(lost, func(s *tier.Session) bool {
			return s.Device == route.Device && route.SessionEpoch <= s.SessionEpoch
		})
		if i >= 0 && (route.Conn != by.Conn || route.Boot != by.Boot) {
			l.kick(&conn{Route: route}, closeOf(route.Device, by.Device), by.Device)
			l.forget(by.user.User, route.Device, route.SessionEpoch)
		}
	}
}

func closeOf(loser, winner string) code.Code {
	if loser == winner {
		return code.CloseStaleLogin
	}
	return code.CloseReplaced
}

// logout ends the session by its epoch: a late one cannot end a newer login.
func (l *Logic) logout(ctx context.Context, r *request, _ *im.Logout) (message, error) {
	_, err := l.await(ctx, r.user(), &tier.Submit{
		Tenant: r.up.Tenant, Repeated: r.up.Repeated,
		Logout: &tier.LogoutMark{Uid: r.up.Uid, Device: r.up.Device, SessionEpoch: r.up.SessionEpoch, ForgetPush: true},
	})
	if err != nil {
		return nil, err
	}
	l.closed(r)
	l.respond(r, code.OK, &im.Logout{}, &tier.Down{Close: uint32(code.CloseLoggedOut)})
	return nil, nil
}

// remember writes a route through to the presence cache. Failing is not fatal: renewals repair it.
func (l *Logic) remember(ctx context.Context, c *conn) {
	if err := l.deps.Presence.Put(ctx, c.user.User, c.Route); err != nil && !errors.Is(err, presence.ErrDown) {
		l.log.Warn("presence cache cannot be written", "tenant", c.user.Tenant, "uid", c.user.UID, "err", err)
	}
}

// forget removes a route from the presence cache, in the background.
func (l *Logic) forget(user presence.User, device string, epoch uint64) {
	l.routes.Add(presence.Change{User: user, Device: device, SessionEpoch: epoch})
}

// writeRoutes brings the presence cache up to date. A write that fails is repaired by the
// next renewal, or by the cache's own expiry.
func (l *Logic) writeRoutes(ctx context.Context, changes []presence.Change) {
	bounded, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	err := l.deps.Presence.Apply(bounded, changes)
	if err != nil && !errors.Is(err, presence.ErrDown) && ctx.Err() == nil {
		l.log.Warn("presence cache cannot be written", "changes", len(changes), "err", err)
	}
}
