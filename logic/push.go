package logic

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unique"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/presence"
)

// downItem is a frame on its way to a gateway. user is set with a PUSH: whose routes to
// look at again should the connection be gone.
type downItem struct {
	down    *tier.Down
	user    *presence.User
	change  *tier.Change
	arrived *arrival // with the answer of an AUTH whose route is at another Logic
}

// push takes a change of a user whose home this is: it counts the delivery and sends the
// change to his connections, except the one that learns by its own answer.
func (l *Logic) push(c *tier.Change, e *encoder, now time.Time) {
	s, hash := l.users.lock(c.Tenant, c.Uid)
	defer s.Unlock()
	u := s.getLocked(c.Tenant, c.Uid, hash)
	version := position{c.Epoch, c.Row.Version}
	u.saw(version)
	l.dueLocked(s, u, c, e, now)
	if u.pushed.epoch == c.Epoch && version.n > u.pushed.n+1 && l.cfg.Reorder > 0 {
		l.holdLocked(u, c)
		return
	}
	l.emitLocked(u, c, e, now)
	if len(u.held) > 0 {
		l.releaseLocked(u, false, now)
	}
}

// dueLocked counts a change as a delivery outstanding, if an outbox row stands for it.
func (l *Logic) dueLocked(s *userShard, u *user, c *tier.Change, e *encoder, now time.Time) {
	if c.Deliver == 0 {
		return
	}
	key := rowKey{l.ownerName(c.Owner), c.Shard, c.Deliver}
	version := position{c.Epoch, c.Row.Version}
	quiet := silent(c)
	outstanding := u.acked.less(version) && (!quiet || u.listens(c))
	entry := rowEntry{print: uint32(u.hash) ^ uint32(version.n)*0x9e3779b1, of: c.Entries, outstanding: outstanding, batch: e}
	if !l.rows.add(key, entry, now, l.cfg.MaxDue) {
		return
	}
	u.due = append(u.due, due{version: version, row: key, conv: u.convName(c.Row.Conv), seq: c.Row.LastSeq, at: now, silent: quiet})
	if !u.watched {
		u.watched = true
		s.watch = append(s.watch, watchItem{u, now.Add(watchEvery)})
	}
}

// ownerName is an owner's name fit to be kept.
func (l *Logic) ownerName(owner string) string {
	if owner == l.self.Boot {
		return l.self.Boot
	}
	return unique.Make(owner).Value()
}

// convName is a conversation's name fit to be kept.
func (u *user) convName(conv string) string {
	if n := len(u.due); n > 0 && u.due[n-1].conv == conv {
		return u.due[n-1].conv
	}
	return strings.Clone(conv)
}

// silent tells that a change holds no message of somebody else.
func silent(c *tier.Change) bool {
	for _, m := range c.Row.Messages {
		if m.Sender != c.Uid {
			return false
		}
	}
	return true
}

// listens tells whether anybody is connected who is to be pushed a change.
func (u *user) listens(by *tier.Change) bool {
	for _, c := range u.conns {
		if !c.answered(by) {
			return true
		}
	}
	return false
}

// reachedLocked takes a position that a device acked, or was woken for: deliveries up to it are done.
func (l *Logic) reachedLocked(u *user, p position) {
	if !u.acked.less(p) {
		return
	}
	u.acked = p
	u.wake.looks, u.wake.lookAt = 0, time.Time{}
	u.due = slices.DeleteFunc(u.due, func(d due) bool {
		if p.less(d.version) {
			return false
		}
		l.rows.reached(d.row)
		return true
	})
}

// holdLocked keeps a change that came before one with a lower version: two Logics passed
// them on at the same time. It waits a moment, then goes out whatever is missing.
func (l *Logic) holdLocked(u *user, c *tier.Change) {
	i, _ := slices.BinarySearchFunc(u.held, c, func(a, b *tier.Change) int {
		return compareVersions(a, b)
	})
	u.held = slices.Insert(u.held, i, c)
	if len(u.held) > 1 {
		return
	}
	key := u.User
	l.later.after(l.cfg.Reorder, func() {
		s, _ := l.users.lock(key.Tenant, key.UID)
		defer s.Unlock()
		if u := s.all[key]; u != nil {
			l.releaseLocked(u, true, time.Now())
		}
	})
}

func compareVersions(a, b *tier.Change) int {
	pa, pb := position{a.Epoch, a.Row.Version}, position{b.Epoch, b.Row.Version}
	switch {
	case pa.less(pb):
		return -1
	case pb.less(pa):
		return 1
	}
	return 0
}

// releaseLocked sends held changes that are next, or all of them.
func (l *Logic) releaseLocked(u *user, all bool, now time.Time) {
	for len(u.held) > 0 {
		c := u.held[0]
		if !all && c.Epoch == u.pushed.epoch && c.Row.Version > u.pushed.n+1 {
			return
		}
		u.held = slices.Delete(u.held, 0, 1)
		l.emitLocked(u, c, &encoder{}, now)
	}
	u.held = nil
}

// emitLocked sends a change to the user's connections now.
func (l *Logic) emitLocked(u *user, c *tier.Change, e *encoder, now time.Time) {
	version := position{c.Epoch, c.Row.Version}
	u.pushed = furthest(u.pushed, version)
	if len(u.conns) == 0 {
		l.unroutedLocked(u, c, now)
		return
	}
	for _, conn := range u.conns {
		if !conn.answered(c) && !conn.holds(version) {
			l.sendChangeLocked(conn, c, e.change(c), now)
		}
	}
}

// answered tells that the connection learns of a change by the answer to what caused it.
func (c *conn) answered(by *tier.Change) bool {
	return c.Device == by.SkipDevice && (by.SkipConn == 0 || by.SkipConn == c.Conn)
}

// holds tells that the device has confirmed the version: a change driven again. A cursor
// beyond the head is no word to rely on.
func (c *conn) holds(version position) bool {
	return !c.cursor.less(version) && !c.user.head.less(c.cursor)
}

// sendChangeLocked sends one encoded change down one connection, or keeps it until its
// AUTH_ACK has gone.
func (l *Logic) sendChangeLocked(conn *conn, c *tier.Change, body []byte, now time.Time) {
	down := &tier.Down{
		Conn: conn.Conn, Cmd: uint32(im.Cmd_PUSH), Body: body, Epoch: c.Epoch, Version: c.Row.Version,
	}
	if conn.syncing {
		if len(conn.backlog) < backlogMax {
			conn.backlog = append(conn.backlog, down)
		} else {
			conn.behind = true
		}
		return
	}
	if l.downItem(conn.line(), downItem{down: down, user: &conn.user.User, change: c}) {
		conn.pushed, conn.pushedAt = furthest(conn.pushed, position{c.Epoch, c.Row.Version}), now
		l.met.pushes.Inc()
		return
	}
	l.lagLocked(conn)
}

// lagPause is when a connection is told to sync whose push found its gateway's queue full.
const lagPause = time.Second

// lagLocked has a connection told to sync, once there is room for that.
func (l *Logic) lagLocked(conn *conn) {
	if conn.lagging {
		return
	}
	conn.lagging = true
	l.later.after(lagPause, func() {
		s := l.users.shard(conn.user.hash)
		s.Lock()
		defer s.Unlock()
		conn.lagging = false
		if slices.Contains(conn.user.conns, conn) && !l.noticeLocked(conn) {
			l.lagLocked(conn)
		}
	})
}

// backlogMax bounds what is kept for a connection that is being logged in; beyond, it syncs.
const backlogMax = 64

// encoder encodes changes. The row of each user is his own; a message is encoded once for
// all users that follow each other with it, as they do in a batch.
type encoder struct {
	last    *tier.Change
	encoded []byte

	tenant  string // of the message: others name their conversations alike
	of      *im.Message
	message []byte
}

// change returns the encoded im.Conversation of a change.
func (e *encoder) change(c *tier.Change) []byte {
	if e.last == c {
		return e.encoded
	}
	if e.tenant != c.Tenant {
		e.tenant, e.of = c.Tenant, nil
	}
	row := *c.Row
	row.Messages = nil
	size := 64 + len(row.Conv) + len(row.Peer) + len(row.Remark)
	for _, m := range c.Row.Messages {
		size += 64 + len(m.Text) + len(m.Data)
	}
	b, err := row.Marshal(make([]byte, 0, size))
	for _, m := range c.Row.Messages {
		if err == nil {
			b, err = e.appendMessage(b, m)
		}
	}
	if err != nil {
		b, _ = (&im.Conversation{Conv: row.Conv, Version: row.Version, LastSeq: row.LastSeq}).Marshal(nil)
	}
	e.last, e.encoded = c, b
	return b
}

// appendMessage appends field 14 (messages) of an im.Conversation.
func (e *encoder) appendMessage(b []byte, m *im.Message) ([]byte, error) {
	if e.of == nil || e.of != m && (e.of.Seq != m.Seq || e.of.Conv != m.Conv || e.of.ModSeq != m.ModSeq) {
		buf, err := m.Marshal(e.message[:0])
		if err != nil {
			return b, err
		}
		e.of, e.message = m, buf
	}
	b = append(b, 14<<3|2)
	b = binary.AppendUvarint(b, uint64(len(e.message)))
	return append(b, e.message...), nil
}

// down queues a frame for a connection.
func (l *Logic) down(to lineKey, d *tier.Down, user *presence.User) bool {
	return l.downItem(to, downItem{down: d, user: user})
}

func (l *Logic) downItem(to lineKey, it downItem) bool {
	if l.gateways.add(to, to, it) {
		return true
	}
	l.met.dropped.Inc() // a push is found by the next renewal, a response by the client's retry
	return false
}

// downTries is how often a batch is offered to a gateway, with doubling pauses from downPause.
const (
	downTries = 4
	downPause = 50 * time.Millisecond
)

// sendDown is one Downlink call to a gateway.
func (l *Logic) sendDown(ctx context.Context, to lineKey, items []downItem) {
	b := &tier.DownlinkBatch{Logic: l.self.Addr, Boot: to.boot, Items: make([]*tier.Down, len(items))}
	for i := range items {
		b.Items[i] = items[i].down
	}
	for try := 1; ; try++ {
		reply, err := l.downlink(ctx, to.addr, b)
		if err == nil {
			l.gone(to, items, reply.Gone)
			return
		}
		if try == downTries {
			l.log.Warn("downlink failed", "gateway", to.addr, "frames", len(items), "err", err)
			l.unreachable(to, items)
			return
		}
		if !sleep(ctx, backoff(try, downPause, time.Second)) {
			return
		}
	}
}

func (l *Logic) downlink(ctx context.Context, addr string, b *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	gateway, err := l.deps.Gateways(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	return gateway.Downlink(ctx, b)
}

// gone drops the routes of connections that their gateway does not hold, and asks the
// presence cache once more where their users are.
func (l *Logic) gone(to lineKey, items []downItem, conns []uint64) {
	if len(conns) == 0 {
		return
	}
	set := make(map[uint64]bool, len(conns))
	for _, id := range conns {
		set[id] = true
	}
	now := time.Now()
	for _, it := range items {
		if it.arrived != nil && set[it.down.Conn] {
			l.left(it.arrived)
		}
		if it.user == nil || !set[it.down.Conn] {
			continue
		}
		s, _ := l.users.lock(it.user.Tenant, it.user.UID)
		if u := s.all[*it.user]; u != nil {
			if c := u.at(to.boot, it.down.Conn); c != nil {
				u.remove(c)
				u.lostConn, u.lostBoot = c.Conn, c.Boot
				l.forget(u.User, c.Device, c.SessionEpoch)
			}
			if it.change != nil && len(u.conns) == 0 {
				l.unroutedLocked(u, it.change, now)
			}
		}
		s.Unlock()
	}
}

// unreachable: a gateway could not be called. Its connections may still stand: they are
// kept, and looked at by their next renewal as if nothing had been pushed to them.
func (l *Logic) unreachable(to lineKey, items []downItem) {
	for _, it := range items {
		if it.user == nil {
			continue
		}
		s, _ := l.users.lock(it.user.Tenant, it.user.UID)
		if u := s.all[*it.user]; u != nil {
			if c := u.at(to.boot, it.down.Conn); c != nil {
				c.pushed = position{}
			}
		}
		s.Unlock()
	}
}

// kick tells a connection that its session is over and closes it.
func (l *Logic) kick(c *conn, closing code.Code, by string) {
	reason := "another device has taken this session's slot"
	if closing == code.CloseStaleLogin {
		reason = "this device has logged in once more"
	}
	k := &im.Kick{Code: uint32(closing), Reason: reason, ByDevice: by, AtMs: time.Now().UnixMilli()}
	if body, err := k.Marshal(nil); err == nil {
		l.down(c.line(), &tier.Down{Conn: c.Conn, Cmd: uint32(im.Cmd_KICK), Body: body, Close: uint32(closing)}, nil)
	}
}
