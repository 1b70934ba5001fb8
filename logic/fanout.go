package logic

import (
	"context"
	"slices"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// fanRows are the fan-out rows that this Logic owns or drives, until every member of
// every entry was reached (two-stage form).
type fanRows struct {
	sync.Mutex
	open     map[rowKey]*fanRow
	finished []rowKey
	left     int // members outstanding, of all rows

	reached bool          // a member was, since the last sweep
	fastest time.Duration // of those, the one that was outstanding for the shortest
	lag     time.Duration // what a new message had to expect, as of the last sweep
}

type fanRow struct {
	entries []*fanEntry
	want    int // entries of the row, 0 = not told
	left    int // members outstanding
	since   time.Time
	at      time.Time // of the last entry or report
	next    time.Time // when what is left is sent again
	tries   int
}

type fanEntry struct {
	order *tier.FanOutOrder
	left  []string // uids not yet reached
}

func newFanRows() *fanRows { return &fanRows{open: map[rowKey]*fanRow{}} }

// add takes an entry. False: it is under way already.
func (t *fanRows) add(key rowKey, o *tier.FanOutOrder, now time.Time, again time.Duration) bool {
	t.Lock()
	defer t.Unlock()
	row := t.open[key]
	if row == nil {
		row = &fanRow{since: now, next: now.Add(again)}
		t.open[key] = row
	}
	row.at, row.want = now, max(row.want, int(o.Entries))
	for _, e := range row.entries {
		if e.order.Entry == o.Entry {
			return false
		}
	}
	e := &fanEntry{order: o}
	for _, m := range o.Members {
		e.left = append(e.left, m.Uid)
	}
	row.entries = append(row.entries, e)
	row.left += len(e.left)
	t.left += len(e.left)
	return true
}

// done counts a member of an entry as reached.
func (t *fanRows) done(key rowKey, entry uint32, uid string) {
	t.Lock()
	defer t.Unlock()
	row := t.open[key]
	if row == nil {
		return
	}
	for _, e := range row.entries {
		if i := slices.Index(e.left, uid); e.order.Entry == entry && i >= 0 {
			e.left = slices.Delete(e.left, i, i+1)
			row.left--
			row.at = time.Now()
			t.left--
			t.tookLocked(row.at.Sub(row.since))
		}
	}
	if row.left == 0 && row.want > 0 && len(row.entries) >= row.want {
		delete(t.open, key)
		t.finished = append(t.finished, key)
	}
}

// tookLocked notes for how long a member was outstanding.
func (t *fanRows) tookLocked(d time.Duration) {
	if !t.reached || d < t.fastest {
		t.reached, t.fastest = true, d
	}
}

// tracks tells whether a row is being driven here.
func (t *fanRows) tracks(key rowKey) bool {
	t.Lock()
	defer t.Unlock()
	return t.open[key] != nil
}

// take returns the rows finished since the last time, and what is to be sent again. Rows
// of which only a part was ever seen here are forgotten: Scan finds them.
func (t *fanRows) take(now time.Time, again time.Duration) (finished []rowKey, repeat []*tier.FanOutOrder) {
	t.Lock()
	defer t.Unlock()
	oldest := now
	for key, row := range t.open {
		switch {
		case row.left > 0:
			if row.since.Before(oldest) {
				oldest = row.since
			}
			if !now.Before(row.next) {
				row.tries++
				row.next = now.Add(backoff(row.tries+1, again, fanOutMost))
				repeat = append(repeat, row.remainder()...)
			}
		case row.want == 0 && now.Sub(row.at) > untoldWait:
			delete(t.open, key)
			t.finished = append(t.finished, key)
		case row.want > 0 && now.Sub(row.at) > 2*again:
			delete(t.open, key)
		}
	}
	// Where some are reached soon, those that are not have a reason of their own, a database
	// that is away perhaps: it is no reason to refuse what concerns others.
	if t.lag = t.fastest; !t.reached {
		t.lag = now.Sub(oldest)
	}
	t.reached, t.fastest = false, 0
	finished, t.finished = t.finished, nil
	return finished, repeat
}

// fanOutMost bounds the pause between two tries of an order. Messages are refused meanwhile,
// if nobody is reached.
const fanOutMost = 10 * time.Second

// remainder is what of a row has not been reached.
func (row *fanRow) remainder() []*tier.FanOutOrder {
	var out []*tier.FanOutOrder
	for _, e := range row.entries {
		if len(e.left) > 0 {
			out = append(out, part(e.order, func(uid string) bool { return slices.Contains(e.left, uid) }))
		}
	}
	return out
}

// part is an order for some of its members.
func part(o *tier.FanOutOrder, want func(uid string) bool) *tier.FanOutOrder {
	p := *o
	p.Members = nil
	for _, m := range o.Members {
		if want(m.Uid) {
			p.Members = append(p.Members, m)
		}
	}
	return &p
}

// pressure is the share of new messages to refuse: from 0 at half of what may be
// outstanding, in number or age, to 1 at the whole of it.
func (t *fanRows) pressure(most int, age time.Duration) float64 {
	t.Lock()
	left, lag := t.left, t.lag
	t.Unlock()
	full := float64(left) / float64(most)
	if left > 0 {
		full = max(full, float64(lag)/float64(age))
	}
	return min(1, max(0, 2*full-1))
}

// outstanding is how many members are yet to be reached.
func (t *fanRows) outstanding() int {
	t.Lock()
	defer t.Unlock()
	return t.left
}

// startFanOut drives an entry of a fan-out row, its own or one that Scan found.
func (l *Logic) startFanOut(o *tier.FanOutOrder, scanned bool) {
	if o.Row > 0 {
		key := rowKey{l.ownerName(o.Owner), o.Shard, o.Row}
		if !l.fans.add(key, o, time.Now(), l.cfg.FanOutAge) && !scanned {
			return
		}
	}
	l.sendOrder(o, 0)
}

// sendOrder hands an order to the home of each of its members.
func (l *Logic) sendOrder(o *tier.FanOutOrder, tries int) {
	homes := map[string]route.Peer[tier.Logic]{}
	at := make(map[string]string, len(o.Members))
	for _, m := range o.Members {
		peer, here := l.home(route.Hash(o.Tenant, m.Uid))
		if here {
			peer = route.Peer[tier.Logic]{Instance: control.Instance{Addr: l.self.Addr}}
		}
		homes[peer.Addr], at[m.Uid] = peer, peer.Addr
	}
	for addr, peer := range homes {
		p := o
		if len(homes) > 1 {
			p = part(o, func(uid string) bool { return at[uid] == addr })
		}
		if addr == l.self.Addr {
			l.takeOrder(p, l.self.Addr, time.Now())
		} else {
			l.pass(peer, parcel{order: p, tries: tries})
		}
	}
}

// sweepFanOut repeats what was not reported in time, and ends finished rows.
func (l *Logic) sweepFanOut(now time.Time) {
	finished, repeat := l.fans.take(now, l.cfg.FanOutAge)
	for _, o := range repeat {
		l.sendOrder(o, 0)
	}
	l.endRows(tier.Outbox_FANOUT, finished)
}

// fanOut is the write of one member's row at his home.
type fanOut struct {
	tenant string
	member *tier.FanOut
	order  *tier.FanOutOrder
	reply  string // the Logic that drives the order
	since  time.Time
	tries  int
}

// fanOutTries is how often a home repeats a write before it leaves that to the Logic that
// drives the order.
const fanOutTries = 8

// takeOrder writes the rows of an order's members, whose home this is. No deadline of any
// client applies: it follows a commit (R04).
func (l *Logic) takeOrder(o *tier.FanOutOrder, reply string, now time.Time) {
	for _, m := range o.Members {
		l.submitFanOut(&fanOut{tenant: o.Tenant, member: m, order: o, reply: reply, since: now})
	}
}

func (l *Logic) submitFanOut(f *fanOut) {
	w := &write{
		item:    &tier.Submit{Tenant: f.tenant, Fanout: f.member, Repeated: f.tries > 0},
		hash:    route.Hash(f.tenant, f.member.Uid),
		expires: time.Now().Add(l.cfg.SettleTimeout),
		outcome: f,
	}
	if err := l.submit(w); err != nil {
		f.failed(l, err)
	}
}

// failed tries again, whatever the reason: the message is committed.
func (f *fanOut) failed(l *Logic, err *code.Error) {
	if f.tries++; f.tries > fanOutTries {
		l.log.Warn("fan-out failed", "tenant", f.tenant, "uid", f.member.Uid, "conv", f.member.Conv,
			"last_seq", f.member.LastSeq, "err", err)
		return
	}
	l.later.after(max(err.RetryAfter, backoff(f.tries, resubmitFirst, resubmitMost)), func() { l.submitFanOut(f) })
}

// fannedOut reports members as reached to the Logics that drive their orders.
func (l *Logic) fannedOut(fans []*fanOut) {
	for _, f := range fans {
		o := f.order
		if o.Row == 0 {
			continue
		}
		if f.reply == l.self.Addr {
			l.fans.done(rowKey{l.ownerName(o.Owner), o.Shard, o.Row}, o.Entry, f.member.Uid)
			continue
		}
		if to, ok := l.peer(f.reply); ok {
			l.pass(to, parcel{fanned: &tier.FannedOut{
				Owner: o.Owner, Row: o.Row, Entry: o.Entry, Uid: f.member.Uid, Shard: o.Shard,
			}})
		}
	}
}

// peer finds another Logic by its address.
func (l *Logic) peer(addr string) (route.Peer[tier.Logic], bool) {
	for _, p := range l.deps.Logics.All() {
		if p.Addr == addr {
			return p, true
		}
	}
	client, err := l.deps.Logics.At(addr)
	return route.Peer[tier.Logic]{Instance: control.Instance{Addr: addr}, Client: client}, err == nil
}

// bringLevel tells a user's connections to sync whose fan-out had been done before: the
// push of it may have been lost with the Logic that did it.
func (l *Logic) bringLevel(f *fanOut, s *tier.Settled) {
	set, _ := l.users.lock(f.tenant, f.member.Uid)
	defer set.Unlock()
	u := set.all[presence.User{Tenant: f.tenant, UID: f.member.Uid}]
	if u == nil {
		return
	}
	version := position{s.Epoch, s.Version}
	u.saw(version)
	for _, c := range u.conns {
		if !c.holds(version) && c.pushed.less(version) && !c.syncing {
			l.noticeLocked(c)
		}
	}
}

// lacksMessages tells that a change of the two-stage form came without the messages that
// are new in it: its order was found by Scan.
func lacksMessages(c *tier.Change, fans []*fanOut) bool {
	if len(c.Row.Messages) > 0 {
		return false
	}
	return slices.ContainsFunc(fans, func(f *fanOut) bool { return len(f.order.Messages) == 0 && f.member.LastSeq > 0 })
}

// fetchTries is how often the message of a change is tried to be read before the change is
// left to its outbox row.
const fetchTries = 10

// fetchAndPush reads the newest message of a change from its log, then pushes it: without
// it, nobody could tell whether it is worth waking a device for.
func (l *Logic) fetchAndPush(c *tier.Change, tries int) {
	if tries >= fetchTries {
		return
	}
	again := func() { l.fetchAndPush(c, tries+1) }
	r := &request{up: &tier.Uplink{Tenant: c.Tenant, Uid: c.Uid}, deadline: time.Now().Add(l.cfg.CommandTimeout)}
	r.job = func(ctx context.Context) {
		seq := c.Row.LastSeq
		reply, err := l.readHistory(ctx, c.Tenant, c.Uid, &im.History{Conv: c.Row.Conv, FromSeq: seq, ToSeq: seq, Limit: 1})
		if err != nil {
			l.later.after(backoff(tries+1, resubmitFirst, resubmitMost), again)
			return
		}
		change, row := *c, *c.Row
		row.Messages, change.Row = reply.Messages, &row
		l.push(&change, &encoder{}, time.Now())
	}
	if !l.lanes[query].put(r.user(), r) {
		l.later.after(backoff(tries+1, resubmitFirst, resubmitMost), again)
	}
}
