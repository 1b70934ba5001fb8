package das

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/internal/conv"
)

// plan decides a batch of items against what its writer remembers, reading what is
// missing, and builds the commit. Nothing it decides is remembered until the commit is
// done: a plan is thrown away as often as it takes. A writer has one, and uses it again.
type plan struct {
	w        *writer
	ctx      context.Context
	number   uint64
	at       time.Duration // since the das was made
	ms       int64         // of this process's clock: what entries are stamped with
	view     store.View    // opened at the first read
	shown    store.View    // the same, after it was closed too
	closed   fences        // buckets that were found closed
	deciding *item
	clock    int64 // of the store; 0 = not asked

	batch   store.Batch
	items   []*item
	failing *item  // the one being decided when an error came up
	fences  fences // of the buckets that are written

	convs    []*conversation
	users    []*user
	moved    []*member // ascending version per user
	again    []repush
	fans     []fan
	owners   []ownerTx
	sessions map[store.Key]*userSessions
	devices  map[store.Key]*userDevices

	convTxs   pool[convTx]
	memberTxs pool[memberTx]
}

// repush is a row that did not move but is to be pushed once more.
type repush struct {
	from  *caller
	row   *member
	entry *entry // to go with it; nil = none
}

// errStale: something remembered differs from the store. It was dropped: plan again.
var errStale = errors.New("stale belief")

func newPlan(w *writer) *plan {
	return &plan{
		w:        w,
		sessions: make(map[store.Key]*userSessions), devices: make(map[store.Key]*userDevices),
	}
}

// begin readies the plan for a batch.
func (p *plan) begin(ctx context.Context, items []*item) {
	p.ctx, p.items = ctx, items
	p.number++
	p.at = p.w.das.since()
	p.ms = time.Now().UnixMilli()
	p.clock = 0
	p.failing = nil
	p.shown = nil
	p.closed.clear()
}

// decide plans every item in order. An error means that nothing may be committed: errStale
// to plan again, anything else that the store could not be read.
func (p *plan) decide() error {
	for _, it := range p.items {
		it.out, it.derived = outcome{}, false
		p.deciding = it
		if it.expired(p.at) {
			it.deny(code.Expired, "waited longer than its time to live")
			continue
		}
		if err := p.item(it); err != nil {
			if err == errClosed && p.w.hold(it, p.at) {
				it.out = outcome{held: true}
				continue
			}
			if e, ok := errors.AsType[*code.Error](err); ok {
				it.denyErr(e)
				continue
			}
			p.failing = it
			return err
		}
	}
	return nil
}

// item plans one write. A *code.Error is its answer, given before anything was changed.
func (p *plan) item(it *item) error {
	r := it.req
	if p.closed.has[it.bucket()] && r.Done == nil {
		return errClosed
	}
	switch {
	case r.Append != nil:
		return p.append(it, r.Append)
	case r.Fanout != nil:
		return p.fanOut(it, r.Fanout)
	case r.Read != nil:
		return p.read(it, r.Read)
	case r.Settings != nil:
		return p.settings(it, r.Settings)
	case r.Login != nil:
		return p.login(it, r.Login)
	case r.Logout != nil:
		return p.logout(it, r.Logout)
	case r.Cursor != nil:
		return p.cursor(it, r.Cursor)
	case r.Woken != nil:
		return p.woken(it, r.Woken)
	case r.Done != nil:
		return p.done(it, r.Done)
	default:
		return p.record(it, r.Record)
	}
}

// snapshot is the view that everything of this plan is read from.
func (p *plan) snapshot() (store.View, error) {
	if p.view == nil {
		v, err := p.w.das.store.View(p.ctx)
		if err != nil {
			return nil, fmt.Errorf("open a view: %w", err)
		}
		p.view, p.shown = v, v
	}
	return p.view, nil
}

// closeView ends the reading: a snapshot is not held over a commit.
func (p *plan) closeView() {
	if p.view != nil {
		p.view.Close()
		p.view = nil
	}
}

// now is the store's clock, asked once.
func (p *plan) now() (int64, error) {
	if p.clock == 0 {
		ms, err := p.w.store.Now(p.ctx)
		if err != nil {
			return 0, fmt.Errorf("read the store's clock: %w", err)
		}
		p.clock = ms
	}
	return p.clock, nil
}

// epoch of a bucket that is open here. A bucket whose epoch is not known is read.
func (p *plan) epoch(bucket uint32) (uint64, error) {
	if e := p.w.epochs[bucket]; e != 0 {
		return e, nil
	}
	v, err := p.snapshot()
	if err != nil {
		return 0, err
	}
	b, err := v.Bucket(bucket)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read bucket %d: %w", bucket, err)
	case !b.Open:
		p.closed.add(bucket)
		return 0, errClosed
	}
	p.w.epochs[bucket] = b.Epoch
	return b.Epoch, nil
}

// fence makes the commit fail unless the bucket is open at the epoch believed (R17).
func (p *plan) fence(bucket uint32) error {
	if p.fences.has[bucket] {
		return nil
	}
	if _, err := p.epoch(bucket); err != nil {
		return err
	}
	p.fences.add(bucket)
	return nil
}

// fences is a set of buckets.
type fences struct {
	has  [store.Buckets]bool
	list []uint32
}

func (f *fences) add(id uint32) {
	if !f.has[id] {
		f.has[id] = true
		f.list = append(f.list, id)
	}
}

func (f *fences) clear() {
	for _, id := range f.list {
		f.has[id] = false
	}
	f.list = f.list[:0]
}

// keep copies a key that is to be remembered: requests alias receive buffers.
func (w *writer) keep(k store.Key) store.Key {
	tenant, ok := w.tenants[k.Tenant]
	if !ok {
		tenant = strings.Clone(k.Tenant)
		w.tenants[tenant] = tenant
	}
	return store.Key{Tenant: tenant, ID: strings.Clone(k.ID)}
}

func bucketOf(k store.Key) uint32 { return k.Bucket() }

// conversation returns what is remembered of a log, read if need be.
func (p *plan) conversation(k store.Key) (*conversation, error) {
	if c := p.w.convs.get(k); c != nil {
		return c, nil
	}
	if _, err := conv.Parse(k.ID); err != nil {
		return nil, err
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	bucket := bucketOf(k)
	if _, err := p.epoch(bucket); err != nil {
		return nil, err // a head is believed together with the epoch it was read at
	}
	head, err := v.Conv(k)
	if err != nil {
		return nil, fmt.Errorf("read the head of %q: %w", k.ID, err)
	}
	k = p.w.keep(k)
	id, err := conv.Parse(k.ID) // of the copy, in which its parts live
	if err != nil {
		return nil, err
	}
	c := p.w.convs.put(k)
	c.key, c.id, c.bucket, c.plan = k, id, bucket, p.number
	c.load(head)
	c.recent = recent{last: head.Seq, since: p.at}
	if head.Seq == 0 {
		c.recent.since = forever
	}
	p.w.das.metrics.loaded(cacheConversations)
	return c, nil
}

// change opens the conversation's part of the batch.
func (p *plan) change(c *conversation) *convTx {
	if c.tx == nil {
		c.tx = p.convTxs.get()
		c.tx.position, c.tx.flags = c.head, c.flags
		p.convs = append(p.convs, c)
	}
	return c.tx
}

// user returns what is remembered of a user's log, read if need be.
func (p *plan) user(k store.Key) (*user, error) {
	if u := p.w.users.get(k); u != nil {
		return u, nil
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	bucket := bucketOf(k)
	if _, err := p.epoch(bucket); err != nil {
		return nil, err
	}
	head, err := v.User(k)
	if err != nil {
		return nil, fmt.Errorf("read the head of user %q: %w", k.ID, err)
	}
	k = p.w.keep(k)
	u := p.w.users.put(k)
	u.key, u.bucket, u.version, u.plan = k, bucket, head.Version, p.number
	p.w.das.metrics.loaded(cacheUsers)
	return u, nil
}

// member returns a user's row of a conversation, a new one when he has none. The row is
// believed as long as the head of its user is.
func (p *plan) member(tenant, uid, convID string) (*member, error) {
	u, err := p.user(store.Key{Tenant: tenant, ID: uid})
	if err != nil {
		return nil, err
	}
	if m := p.w.members.get(memberKey{u.key, convID}); m.valid() {
		return m, nil
	}
	return p.loadMember(u, convID)
}

func (p *plan) loadMember(u *user, convID string) (*member, error) {
	id, err := conv.Parse(convID)
	if err != nil {
		return nil, err
	}
	if !id.Has(u.key.ID) {
		return nil, notMember(convID)
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	row, err := v.Member(u.key, convID)
	if errors.Is(err, store.ErrNotFound) {
		row, err = store.Member{Conv: convID}.Clone(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the row of %q for user %q: %w", convID, u.key.ID, err)
	}
	if id, err = conv.Parse(row.Conv); err != nil { // of the copy that is kept
		return nil, err
	}
	m := p.w.members.put(memberKey{u.key, row.Conv})
	m.user, m.id, m.row, m.plan = u, id, row, p.number
	if id.B == u.key.ID {
		m.side = 1
	}
	p.w.das.metrics.loaded(cacheMembers)
	return m, nil
}

func notMember(convID string) *code.Error {
	return code.Errorf(code.NotFound, "no conversation %.140q for this user", convID)
}

// confirmConv makes sure that what is remembered of the conversation is what the store
// holds in this plan's snapshot, with its bucket open: an answer that writes nothing has no
// fence to catch a stale belief (R16).
func (p *plan) confirmConv(c *conversation) error {
	if p.w.exclusive {
		return nil
	}
	if c.plan != p.number {
		v, err := p.snapshot()
		if err != nil {
			return err
		}
		head, err := v.Conv(c.key)
		if err != nil {
			return fmt.Errorf("read the head of %q: %w", c.key.ID, err)
		}
		if head.Seq != c.head.seq {
			p.w.convs.drop(c.key)
			return errStale
		}
	}
	return p.confirmBucket(c.bucket)
}

// confirmUser is confirmConv for a user's head and rows.
func (p *plan) confirmUser(u *user) error {
	if p.w.exclusive {
		return nil
	}
	if u.plan != p.number {
		v, err := p.snapshot()
		if err != nil {
			return err
		}
		head, err := v.User(u.key)
		if err != nil {
			return fmt.Errorf("read the head of user %q: %w", u.key.ID, err)
		}
		if head.Version != u.version {
			p.w.users.drop(u.key)
			return errStale
		}
	}
	return p.confirmBucket(u.bucket)
}

// confirmBucket makes sure that the bucket is open here at the epoch believed.
func (p *plan) confirmBucket(bucket uint32) error {
	if p.w.exclusive {
		return nil
	}
	p.deciding.derived = true
	v, err := p.snapshot()
	if err != nil {
		return err
	}
	b, err := v.Bucket(bucket)
	switch {
	case err != nil:
		return fmt.Errorf("read bucket %d: %w", bucket, err)
	case !b.Open:
		p.closed.add(bucket)
		return errClosed
	case b.Epoch != p.w.epochs[bucket] && p.w.epochs[bucket] != 0:
		p.w.dropBucket(bucket)
		return errStale
	}
	return nil
}

// move gives the row the user's next version, once per batch: several changes of one row
// share it, each row has its own (R12).
func (p *plan) move(m *member, from *caller, owner string) (*memberTx, error) {
	u := m.user
	if m.tx != nil {
		if t := m.tx; t.from.boot != t.owner && from.boot == t.owner {
			t.from = from // its home is among the callers: tell it there
		}
		m.tx.moves++
		return m.tx, nil
	}
	if err := p.fence(u.bucket); err != nil {
		return nil, err
	}
	if !u.inTx {
		u.inTx, u.next = true, u.version
		p.users = append(p.users, u)
	}
	u.next++
	t := p.memberTxs.get()
	t.row, t.from, t.owner, t.moves = m.row, from, owner, 1
	t.row.Version, t.row.UpdatedMS = u.next, p.ms
	m.tx = t
	p.moved = append(p.moved, m)
	return t, nil
}

// current is the row as the batch leaves it.
func (m *member) current() *store.Member {
	if m.tx != nil {
		return &m.tx.row
	}
	return &m.row
}

// pool hands out scratch that lives as long as a plan.
type pool[T any] struct {
	list []*T
	used int
}

func (p *pool[T]) get() *T {
	if p.used == len(p.list) {
		p.list = append(p.list, new(T))
	}
	p.used++
	return p.list[p.used-1]
}
