package logic

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// store is the dumb twin of a database, shared by the fake das.
type store struct {
	sync.Mutex
	twoStage bool
	convs    map[string]*fakeConv // tenant/conv
	users    map[string]*fakeUser // tenant/uid
	fanout   map[rowKey]*tier.OutboxRow
	deliver  map[rowKey]*tier.OutboxRow
	born     map[rowKey]time.Time
	next     map[string]uint64
	ended    []*tier.OutboxDone
}

type fakeConv struct {
	messages []*im.Message
	keys     map[string]*im.Message
	blocked  map[string]bool // who blocks the other
}

type fakeUser struct {
	head, woken uint64
	rows        map[string]*im.Conversation
	sessions    []*tier.Session
	epoch       uint64
	cursors     map[string]uint64
}

func newStore() *store {
	return &store{
		convs: map[string]*fakeConv{}, users: map[string]*fakeUser{}, next: map[string]uint64{},
		fanout: map[rowKey]*tier.OutboxRow{}, deliver: map[rowKey]*tier.OutboxRow{}, born: map[rowKey]time.Time{},
	}
}

func (s *store) conv(tenant, name string) *fakeConv {
	c := s.convs[tenant+"/"+name]
	if c == nil {
		c = &fakeConv{keys: map[string]*im.Message{}, blocked: map[string]bool{}}
		s.convs[tenant+"/"+name] = c
	}
	return c
}

func (s *store) user(tenant, uid string) *fakeUser {
	u := s.users[tenant+"/"+uid]
	if u == nil {
		u = &fakeUser{rows: map[string]*im.Conversation{}, cursors: map[string]uint64{}}
		s.users[tenant+"/"+uid] = u
	}
	return u
}

// fakeDas is one das over the store. A test may set its hooks before anything runs.
type fakeDas struct {
	tier.Das // what a test does not need panics
	*store
	addr   string
	shard  uint32
	logics func(addr string) tier.Logic
	delay  time.Duration // from commit to Settled
	lag    time.Duration // of a Submit call, before it is done: what comes meanwhile gathers

	// down fails calls before they are taken; cut after they were done.
	down, cut func() bool
	// refuse refuses an item. mute loses the results of the commit that holds an item.
	refuse func(*tier.Submit) *tier.Refused
	// scanned filters what Scan finds.
	scanned func([]*tier.OutboxRow) []*tier.OutboxRow
	mute    func(*tier.Submit) bool

	mu    sync.Mutex
	calls []*tier.SubmitBatch
	finds int
	wg    sync.WaitGroup
}

// commit is one group commit in the making.
type commit struct {
	d       *fakeDas
	logic   string
	boot    string
	out     *tier.SettledBatch
	moved   map[string]*tier.Change // tenant/uid conv -> change
	inOrder []*tier.Change
	owners  map[string]uint64 // rows of this commit
	fanouts map[string]*tier.OutboxRow
}

func is(hook func() bool) bool { return hook != nil && hook() }

func (d *fakeDas) Submit(_ context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	if is(d.down) {
		return nil, code.Errorf(code.Unavailable, "das is down")
	}
	time.Sleep(d.lag)
	d.mu.Lock()
	d.calls = append(d.calls, b)
	d.mu.Unlock()
	reply, lost := &tier.SubmitReply{}, false
	d.Lock()
	c := &commit{d: d, logic: b.Logic, boot: b.Boot, out: &tier.SettledBatch{Das: d.addr},
		moved: map[string]*tier.Change{}, owners: map[string]uint64{}, fanouts: map[string]*tier.OutboxRow{}}
	for _, it := range b.Items {
		if d.refuse != nil {
			if r := d.refuse(it); r != nil {
				r.Id = it.Id
				reply.Refused = append(reply.Refused, r)
				continue
			}
		}
		settled := c.apply(it)
		if settled != nil {
			settled.Id = it.Id
			c.out.Items = append(c.out.Items, settled)
			lost = lost || d.mute != nil && d.mute(it)
		}
	}
	c.finish()
	d.Unlock()
	if !lost && len(c.out.Items)+len(c.out.Changes) > 0 {
		d.wg.Go(func() {
			time.Sleep(d.delay)
			_, _ = d.logics(b.Logic).Settled(context.Background(), c.out)
		})
	}
	if is(d.cut) {
		return nil, code.Errorf(code.Unavailable, "the reply was lost")
	}
	return reply, nil
}

func (c *commit) apply(it *tier.Submit) *tier.Settled {
	switch {
	case it.Append != nil:
		return c.append(it)
	case it.Fanout != nil:
		return c.fanOut(it)
	case it.Read != nil:
		return c.read(it)
	case it.Settings != nil:
		return c.settings(it)
	case it.Login != nil:
		return c.login(it)
	case it.Logout != nil:
		u := c.d.user(it.Tenant, it.Logout.Uid)
		u.sessions = slices.DeleteFunc(u.sessions, func(s *tier.Session) bool {
			return s.Device == it.Logout.Device && s.SessionEpoch == it.Logout.SessionEpoch
		})
		return &tier.Settled{}
	case it.Cursor != nil:
		u := c.d.user(it.Tenant, it.Cursor.Uid)
		u.cursors[it.Cursor.Device] = max(u.cursors[it.Cursor.Device], it.Cursor.Cursor)
	case it.Woken != nil:
		u := c.d.user(it.Tenant, it.Woken.Uid)
		u.woken = max(u.woken, it.Woken.Version)
	case it.Done != nil:
		c.d.ended = append(c.d.ended, it.Done)
		rows := c.d.deliver
		if it.Done.Kind == tier.Outbox_FANOUT {
			rows = c.d.fanout
		}
		maps.DeleteFunc(rows, func(k rowKey, _ *tier.OutboxRow) bool {
			return k.owner == it.Done.Owner && k.shard == it.Done.Shard && it.Done.From <= k.n && k.n <= it.Done.To
		})
	}
	return nil
}

func (c *commit) append(it *tier.Submit) *tier.Settled {
	a := it.Append
	log := c.d.conv(it.Tenant, a.Conv)
	key := a.Sender + " " + a.ClientMsgId
	if m := log.keys[key]; m != nil {
		s := &tier.Settled{Append: &tier.Appended{Conv: a.Conv, Seq: m.Seq, CreatedMs: m.CreatedMs, Duplicate: true}}
		if c.d.twoStage {
			s.Append.Order = &tier.FanOutOrder{Tenant: it.Tenant, Members: members(a.Conv, log), Messages: []*im.Message{m}}
		}
		return s
	}
	id, _ := conv.Parse(a.Conv)
	if log.blocked[id.Peer(a.Sender)] {
		return &tier.Settled{Code: uint32(code.Blocked), Message: "blocked"}
	}
	switch a.Kind {
	case im.Kind_EVENT_BLOCK, im.Kind_EVENT_UNBLOCK:
		log.blocked[a.Sender] = a.Kind == im.Kind_EVENT_BLOCK
	}
	m := &im.Message{
		Conv: a.Conv, Seq: uint64(len(log.messages) + 1), Sender: a.Sender, ClientMsgId: a.ClientMsgId,
		Kind: a.Kind, Text: a.Text, Data: a.Data, CreatedMs: time.Now().UnixMilli(), TargetSeq: a.TargetSeq,
	}
	log.messages, log.keys[key] = append(log.messages, m), m
	s := &tier.Settled{Append: &tier.Appended{Conv: a.Conv, Seq: m.Seq, CreatedMs: m.CreatedMs, Message: m}}
	if c.d.twoStage {
		s.Append.Order = c.order(it.Tenant, members(a.Conv, log), m)
		return s
	}
	for _, uid := range id.Members() {
		ch := c.move(it.Tenant, uid, a.Conv, owner(a.Homes, uid, c.boot))
		ch.Row.LastSeq, ch.Row.Messages = m.Seq, append(ch.Row.Messages, m)
		if uid != a.Sender {
			ch.Row.Unread++
		} else {
			s.Epoch, s.Version, s.LastSeq, s.Moved = 1, ch.Row.Version, m.Seq, true
		}
	}
	return s
}

func owner(homes []*tier.Home, uid, boot string) string {
	for _, h := range homes {
		if h.Uid == uid {
			return h.Boot
		}
	}
	return boot
}

func members(name string, log *fakeConv) []*tier.FanOut {
	id, _ := conv.Parse(name)
	var out []*tier.FanOut
	for _, uid := range id.Members() {
		out = append(out, &tier.FanOut{Uid: uid, Conv: name, LastSeq: uint64(len(log.messages))})
	}
	return out
}

// order makes an entry of this commit's fan-out row.
func (c *commit) order(tenant string, m []*tier.FanOut, messages ...*im.Message) *tier.FanOutOrder {
	row := c.fanouts[c.boot]
	if row == nil {
		row = &tier.OutboxRow{Kind: tier.Outbox_FANOUT, Owner: c.boot, N: c.d.number("f" + c.boot), Shard: c.d.shard}
		c.fanouts[c.boot] = row
	}
	o := &tier.FanOutOrder{Owner: c.boot, Row: row.N, Shard: row.Shard, Entry: uint32(len(row.Orders)), Tenant: tenant, Members: m, Messages: messages}
	row.Orders = append(row.Orders, o)
	return o
}

func (s *store) number(owner string) uint64 {
	s.next[owner]++
	return s.next[owner]
}

func (c *commit) fanOut(it *tier.Submit) *tier.Settled {
	f := it.Fanout
	row := c.d.user(it.Tenant, f.Uid).rows[f.Conv]
	if row != nil && f.LastSeq <= row.LastSeq && f.PeerReadSeq <= row.PeerReadSeq {
		s := &tier.Settled{Epoch: 1, Version: row.Version, LastSeq: row.LastSeq}
		if c.moved[it.Tenant+"/"+f.Uid+" "+f.Conv] == nil {
			again := *row
			c.out.Changes = append(c.out.Changes, &tier.Change{Tenant: it.Tenant, Uid: f.Uid, Epoch: 1, Row: &again})
		}
		return s
	}
	ch := c.move(it.Tenant, f.Uid, f.Conv, c.boot)
	ch.Row.LastSeq = max(ch.Row.LastSeq, f.LastSeq)
	ch.Row.PeerReadSeq = max(ch.Row.PeerReadSeq, f.PeerReadSeq)
	return &tier.Settled{Epoch: 1, Version: ch.Row.Version, LastSeq: ch.Row.LastSeq}
}

func (c *commit) read(it *tier.Submit) *tier.Settled {
	r := it.Read
	id, _ := conv.Parse(r.Conv)
	ch := c.move(it.Tenant, r.Uid, r.Conv, c.boot)
	ch.Row.ReadSeq, ch.Row.Unread = r.Seq, 0
	s := &tier.Settled{Epoch: 1, Version: ch.Row.Version, LastSeq: ch.Row.LastSeq, Row: ch.Row, Moved: true}
	peer := id.Peer(r.Uid)
	if c.d.twoStage {
		s.Append = &tier.Appended{Conv: r.Conv, Order: c.order(it.Tenant, []*tier.FanOut{{Uid: peer, Conv: r.Conv, PeerReadSeq: r.Seq}})}
		return s
	}
	c.move(it.Tenant, peer, r.Conv, owner(r.Homes, peer, c.boot)).Row.PeerReadSeq = r.Seq
	return s
}

func (c *commit) settings(it *tier.Submit) *tier.Settled {
	ch := c.move(it.Tenant, it.Settings.Uid, it.Settings.Settings.Conv, c.boot)
	ch.Row.Pinned, ch.Row.Remark = it.Settings.Settings.Pinned, it.Settings.Settings.Remark
	return &tier.Settled{Epoch: 1, Version: ch.Row.Version, LastSeq: ch.Row.LastSeq, Row: ch.Row, Moved: true}
}

func (c *commit) login(it *tier.Submit) *tier.Settled {
	lg := it.Login
	u := c.d.user(it.Tenant, lg.Uid)
	out := &tier.LoggedIn{}
	var others []*tier.Session
	for _, s := range u.sessions {
		switch {
		case s.Class != lg.Class:
		case s.Device == lg.Device && s.Counter > lg.Counter:
			return &tier.Settled{Code: uint32(code.StaleLogin), Message: "a later connection of this device"}
		case s.Device == lg.Device:
			out.Replaced = append(out.Replaced, s)
		default:
			others = append(others, s)
		}
	}
	for len(others) >= int(lg.Slots) {
		if lg.RejectNew {
			return &tier.Settled{Code: uint32(code.TooManySessions), Message: "too many"}
		}
		out.Replaced, others = append(out.Replaced, others[0]), others[1:]
	}
	u.sessions = slices.DeleteFunc(u.sessions, func(s *tier.Session) bool { return slices.Contains(out.Replaced, s) })
	u.epoch++
	out.SessionEpoch = u.epoch
	u.sessions = append(u.sessions, &tier.Session{Class: lg.Class, Device: lg.Device, SessionEpoch: u.epoch, Gateway: lg.Gateway, Counter: lg.Counter})
	u.cursors[lg.Device] = max(u.cursors[lg.Device], lg.Cursor)
	return &tier.Settled{Login: out}
}

// move gives a user's row the next version, once a commit.
func (c *commit) move(tenant, uid, name, owner string) *tier.Change {
	key := tenant + "/" + uid + " " + name
	if ch := c.moved[key]; ch != nil {
		ch.Moves++
		return ch
	}
	u := c.d.user(tenant, uid)
	u.head++
	row := &im.Conversation{Conv: name}
	if old := u.rows[name]; old != nil {
		*row = *old
		row.Messages = nil
	}
	row.Version = u.head
	if c.owners[owner] == 0 {
		c.owners[owner] = c.d.number("d" + owner)
	}
	ch := &tier.Change{Tenant: tenant, Uid: uid, Epoch: 1, Row: row, Owner: owner, Deliver: c.owners[owner], Shard: c.d.shard, Moves: 1}
	c.moved[key] = ch
	c.inOrder = append(c.inOrder, ch)
	return ch
}

// finish stores the rows.
func (c *commit) finish() {
	now := time.Now()
	rows := map[string]*tier.OutboxRow{}
	for _, ch := range c.inOrder {
		stored := *ch.Row
		stored.Messages = nil
		c.d.user(ch.Tenant, ch.Uid).rows[ch.Row.Conv] = &stored
		row := rows[ch.Owner]
		if row == nil {
			row = &tier.OutboxRow{Kind: tier.Outbox_DELIVER, Owner: ch.Owner, N: ch.Deliver, Shard: ch.Shard}
			rows[ch.Owner] = row
		}
		row.Due = append(row.Due, &tier.Due{Tenant: ch.Tenant, Uid: ch.Uid, Epoch: 1, Version: ch.Row.Version, Conv: ch.Row.Conv, Seq: ch.Row.LastSeq})
	}
	for _, s := range c.out.Items { // as of the version: also what came later in the batch
		for _, ch := range c.inOrder {
			if s.Append != nil && s.Append.Message != nil && s.Version == ch.Row.Version &&
				ch.Row.Conv == s.Append.Conv && ch.Uid == s.Append.Message.Sender {
				s.LastSeq = ch.Row.LastSeq
			}
		}
	}
	for _, ch := range c.inOrder {
		ch.Entries = uint32(len(rows[ch.Owner].Due))
		c.out.Changes = append(c.out.Changes, ch)
	}
	for _, row := range rows {
		key := rowKey{row.Owner, row.Shard, row.N}
		c.d.deliver[key], c.d.born[key] = row, now
	}
	for _, row := range c.fanouts {
		for _, o := range row.Orders {
			o.Entries = uint32(len(row.Orders))
		}
		key := rowKey{row.Owner, row.Shard, row.N}
		c.d.fanout[key], c.d.born[key] = row, now
	}
}

func (d *fakeDas) Sync(_ context.Context, r *tier.SyncRequest) (*im.SyncRsp, error) {
	d.Lock()
	defer d.Unlock()
	u := d.user(r.Tenant, r.Uid)
	out := &im.SyncRsp{Epoch: 1, Head: u.head, NextCursor: u.head}
	for _, row := range u.rows {
		if row.Version > r.Sync.Cursor {
			out.Changes = append(out.Changes, row)
		}
	}
	slices.SortFunc(out.Changes, func(a, b *im.Conversation) int { return cmp.Compare(a.Version, b.Version) })
	return out, nil
}

func (d *fakeDas) History(_ context.Context, r *tier.HistoryRequest) (*im.HistoryRsp, error) {
	d.Lock()
	defer d.Unlock()
	out := &im.HistoryRsp{}
	for _, m := range d.conv(r.Tenant, r.History.Conv).messages {
		if r.History.FromSeq == 0 || r.History.FromSeq <= m.Seq && m.Seq <= r.History.ToSeq {
			out.Messages = append(out.Messages, m)
		}
	}
	return out, nil
}

func (d *fakeDas) Conversations(_ context.Context, r *tier.ConversationsRequest) (*im.ConversationsRsp, error) {
	d.Lock()
	defer d.Unlock()
	out := &im.ConversationsRsp{}
	for _, row := range d.user(r.Tenant, r.Uid).rows {
		out.Conversations = append(out.Conversations, row)
	}
	return out, nil
}

func (d *fakeDas) Unread(_ context.Context, r *tier.UnreadRequest) (*im.UnreadRsp, error) {
	d.Lock()
	defer d.Unlock()
	out := &im.UnreadRsp{}
	for _, row := range d.user(r.Tenant, r.Uid).rows {
		out.Total += row.Unread
	}
	return out, nil
}

func (d *fakeDas) Find(_ context.Context, r *tier.FindRequest) (*tier.FindReply, error) {
	d.Lock()
	defer d.Unlock()
	d.finds++
	return &tier.FindReply{Message: d.conv(r.Tenant, r.Conv).keys[r.Sender+" "+r.ClientMsgId]}, nil
}

func (d *fakeDas) ReadPoint(_ context.Context, r *tier.ReadPointRequest) (*tier.ReadPointReply, error) {
	d.Lock()
	defer d.Unlock()
	head := uint64(len(d.conv(r.Tenant, r.Conv).messages))
	return &tier.ReadPointReply{Seq: min(r.Seq, head), HeadSeq: head}, nil
}

func (d *fakeDas) Progress(_ context.Context, r *tier.ProgressRequest) (*tier.ProgressReply, error) {
	d.Lock()
	defer d.Unlock()
	out := &tier.ProgressReply{}
	for _, uid := range r.Uids {
		u := d.user(r.Tenant, uid)
		p := &tier.UserProgress{Uid: uid, Epoch: 1, Head: u.head, Woken: u.woken, Sessions: slices.Clone(u.sessions)}
		for _, c := range u.cursors {
			p.Cursor = max(p.Cursor, c)
		}
		out.Users = append(out.Users, p)
	}
	return out, nil
}

func (d *fakeDas) Scan(_ context.Context, r *tier.ScanRequest) (*tier.ScanReply, error) {
	if is(d.down) {
		return nil, code.Errorf(code.Unavailable, "das is down")
	}
	d.Lock()
	defer d.Unlock()
	rows := d.deliver
	if r.Kind == tier.Outbox_FANOUT {
		rows = d.fanout
	}
	out := &tier.ScanReply{}
	for key, row := range rows {
		if age := time.Since(d.born[key]); age.Milliseconds() >= r.MinAgeMs {
			copied := *row
			copied.AgeMs = age.Milliseconds()
			copied.Orders = nil
			for _, o := range row.Orders {
				bare := *o
				bare.Messages = nil
				copied.Orders = append(copied.Orders, &bare)
			}
			out.Rows = append(out.Rows, &copied)
		}
	}
	if d.scanned != nil {
		out.Rows = d.scanned(out.Rows)
	}
	return out, nil
}
