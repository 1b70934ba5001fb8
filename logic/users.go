package logic

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// position is a place in a user's log. Positions compare as pairs: a higher epoch wins (R18).
type position struct{ epoch, n uint64 }

func (p position) less(o position) bool {
	return p.epoch < o.epoch || p.epoch == o.epoch && p.n < o.n
}

func furthest(a, b position) position {
	if a.less(b) {
		return b
	}
	return a
}

// users are the users whose home this is, or was thought to be: only what is connected or
// has deliveries outstanding is kept.
type users struct {
	shards [256]userShard
}

// userShard guards everything of its users.
type userShard struct {
	sync.Mutex
	all   map[presence.User]*user
	dirty []*conn     // with cursors to persist
	watch []watchItem // users with deliveries outstanding, by time of the next look
}

// user is one user at his home.
type user struct {
	presence.User
	hash  uint64
	conns []*conn

	// head is the highest version known to exist.
	head position
	// acked is the highest version that a device confirmed or that woke one, at most head.
	acked position
	// pushed is the highest version that was pushed or read by a connection, zero when that is
	// not known; a change above the next one is held for a moment.
	pushed position
	held   []*tier.Change

	// due are deliveries that nobody acked yet; watched: the shard's watch names the user.
	due     []due
	watched bool
	wake    wake

	// waiting are changes that found no route; the presence cache is being asked (asking), or
	// said at absent that there is none.
	waiting []*tier.Change
	asking  bool
	absent  time.Time
	// lostConn of lostBoot was said to be gone by its gateway, last.
	lostConn uint64
	lostBoot string
}

// conn is one connection of a user, on a gateway.
type conn struct {
	user *user
	presence.Route
	cursor  position // claimed by the device
	renewed time.Time
	// stored is the cursor that das was given, at storedMS.
	stored   position
	storedMS int64
	// pushed is the highest version sent down, at pushedAt.
	pushed   position
	pushedAt time.Time
	// dirty: the shard's dirty names it.
	dirty bool
	// syncing: AUTH_ACK is not sent yet; pushes wait in backlog, and are cut short by behind.
	syncing bool
	// lagging: a push was dropped, and a NOTICE is on its way.
	lagging bool
	backlog []*tier.Down
	behind  bool
}

func (c *conn) line() lineKey { return lineKey{c.Gateway, c.Boot} }

func newUsers() *users {
	u := &users{}
	for i := range u.shards {
		u.shards[i].all = map[presence.User]*user{}
	}
	return u
}

func (t *users) shard(hash uint64) *userShard { return &t.shards[hash>>40%256] }

// lock returns the user's shard, locked.
func (t *users) lock(tenant, uid string) (*userShard, uint64) {
	hash := route.Hash(tenant, uid)
	s := t.shard(hash)
	s.Lock()
	return s, hash
}

// getLocked returns the user, made if he is not known.
func (s *userShard) getLocked(tenant, uid string, hash uint64) *user {
	key := presence.User{Tenant: tenant, UID: uid}
	if u := s.all[key]; u != nil {
		return u
	}
	key = presence.User{Tenant: unique.Make(tenant).Value(), UID: strings.Clone(uid)}
	u := &user{User: key, hash: hash}
	s.all[key] = u
	return u
}

// idle tells that nothing would be lost by forgetting the user.
func (u *user) idle() bool {
	return len(u.conns) == 0 && len(u.due) == 0 && len(u.held) == 0 && !u.watched && !u.asking && !u.wake.queued
}

// device returns the connection of a device.
func (u *user) device(device string) *conn {
	for _, c := range u.conns {
		if c.Device == device {
			return c
		}
	}
	return nil
}

// at returns a connection by its gateway's life and number.
func (u *user) at(boot string, id uint64) *conn {
	for _, c := range u.conns {
		if c.Conn == id && c.Boot == boot {
			return c
		}
	}
	return nil
}

func (u *user) remove(c *conn) {
	u.conns = slices.DeleteFunc(u.conns, func(o *conn) bool { return o == c })
}

// put registers a connection. A session with a higher epoch stays: false. One of the same
// device with a lower epoch is replaced and returned.
func (u *user) put(r presence.Route) (c, replaced *conn, ok bool) {
	if old := u.device(r.Device); old != nil {
		switch {
		case old.SessionEpoch > r.SessionEpoch:
			return nil, nil, false
		case old.Conn == r.Conn && old.Boot == r.Boot:
			old.SessionEpoch = r.SessionEpoch
			return old, nil, true
		}
		u.remove(old)
		replaced = old
	}
	c = &conn{user: u, Route: own(r)}
	u.conns = append(u.conns, c)
	return c, replaced, true
}

// own copies a route whose strings belong to a message; what many share is stored once.
func own(r presence.Route) presence.Route {
	r.Device, r.IP = strings.Clone(r.Device), strings.Clone(r.IP)
	r.Class, r.Platform = unique.Make(r.Class).Value(), unique.Make(r.Platform).Value()
	r.Gateway, r.Boot = unique.Make(r.Gateway).Value(), unique.Make(r.Boot).Value()
	return r
}

// saw raises the user's head.
func (u *user) saw(p position) { u.head = furthest(u.head, p) }

// claims is what a device's claim to hold everything up to p is worth: at most the head,
// for it may be a mistake.
func (u *user) claims(p position) position {
	if u.head.less(p) {
		return u.head
	}
	return p
}

// cursorEvent takes a cursor that a client confirmed.
func (l *Logic) cursorEvent(up *tier.Uplink, boot string) {
	s, _ := l.users.lock(up.Tenant, up.Uid)
	defer s.Unlock()
	u := s.all[presence.User{Tenant: up.Tenant, UID: up.Uid}]
	if u == nil {
		return
	}
	c := u.at(boot, up.Conn)
	if c == nil {
		c = u.device(up.Device)
	}
	if c != nil {
		l.cursorLocked(s, c, position{up.Epoch, up.Cursor})
	}
}

// cursorLocked raises a connection's cursor and lets it be persisted.
func (l *Logic) cursorLocked(s *userShard, c *conn, p position) {
	if c.cursor.less(p) {
		c.cursor = p
		s.dirtyLocked(c)
	}
	l.reachedLocked(c.user, c.user.claims(p))
}

func (s *userShard) dirtyLocked(c *conn) {
	if !c.dirty {
		c.dirty = true
		s.dirty = append(s.dirty, c)
	}
}

// storeAgain is when a cursor that stands still is given to das once more: what took it may
// have lost it, which only repeats work.
const storeAgain = 2 * time.Minute

// cursorMarks takes the cursors to persist. Most connections only say that they are alive.
func (s *userShard) cursorMarks(now time.Time) []*write {
	ms := now.UnixMilli()
	s.Lock()
	defer s.Unlock()
	if len(s.dirty) == 0 {
		return nil
	}
	marks := make([]*write, len(s.dirty))
	for i, c := range s.dirty {
		c.dirty = false
		p := c.user.claims(c.cursor)
		alive := p == c.stored && ms-c.storedMS < storeAgain.Milliseconds() && c.SessionEpoch != 0
		if !alive {
			c.stored, c.storedMS = p, ms
		}
		marks[i] = &write{hash: c.user.hash, item: &tier.Submit{
			Tenant: c.user.Tenant,
			Cursor: &tier.CursorMark{
				Uid: c.user.UID, Device: c.Device, Epoch: p.epoch, Cursor: p.n,
				Class: c.Class, SessionEpoch: c.SessionEpoch, Gateway: c.Boot, Alive: alive,
			},
		}}
	}
	s.dirty = s.dirty[:0]
	return marks
}

// flushCursors hands gathered cursors to das.
func (l *Logic) flushCursors() {
	now := time.Now()
	for i := range l.users.shards {
		for _, w := range l.users.shards[i].cursorMarks(now) {
			_ = l.submit(w) // lost ones only repeat
		}
	}
}

// closed ends a connection: its route goes, by session epoch, so that a late word of an
// old connection cannot remove a newer login.
func (l *Logic) closed(r *request) {
	s, _ := l.users.lock(r.up.Tenant, r.up.Uid)
	u := s.all[presence.User{Tenant: r.up.Tenant, UID: r.up.Uid}]
	var c *conn
	if u != nil {
		if c = u.at(r.boot, r.up.Conn); c != nil {
			l.cursorLocked(s, c, position{r.up.Epoch, r.up.Cursor})
			u.remove(c)
		}
	}
	s.Unlock()
	switch {
	case c != nil:
		l.forget(u.User, c.Device, c.SessionEpoch)
	case r.up.SessionEpoch > 0:
		l.forget(presence.User{Tenant: r.up.Tenant, UID: r.up.Uid}, r.up.Device, r.up.SessionEpoch)
	}
}

// noticeLocked tells a connection to sync. False: its gateway's queue is full.
func (l *Logic) noticeLocked(c *conn) bool {
	n := &im.Notice{What: im.Notice_SYNC, Epoch: c.user.head.epoch, Head: c.user.head.n}
	body, err := n.Marshal(nil)
	return err == nil && l.down(c.line(), &tier.Down{Conn: c.Conn, Cmd: uint32(im.Cmd_NOTICE), Body: body}, nil)
}

// sweepUsers forgets connections that were not renewed for three periods, and idle users.
func (l *Logic) sweepUsers(now time.Time) {
	stale := now.Add(-3*l.cfg.RenewPeriod - time.Second)
	for i := range l.users.shards {
		s := &l.users.shards[i]
		s.Lock()
		for key, u := range s.all {
			u.conns = slices.DeleteFunc(u.conns, func(c *conn) bool { return c.renewed.Before(stale) })
			if u.idle() {
				delete(s.all, key)
			}
		}
		s.Unlock()
	}
}
