package das

import (
	"fmt"
	"slices"
	"strings"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// read plans a READ: it is clamped to the log's head, may run ahead of the fan-out, and
// never goes back (R24). Its own delivery and what the peer must learn are rows of its own
// transaction (R22).
func (p *plan) read(it *item, r *tier.ReadMark) error {
	m, err := p.member(it.req.Tenant, r.Uid, r.Conv)
	if err != nil {
		return err
	}
	at, err := p.readPoint(it, m, r)
	if err != nil {
		return err
	}
	it.out.row, it.out.tellRow = m, true
	if at.seq <= m.current().ReadSeq {
		if m.tx != nil {
			return nil
		}
		return p.confirmUser(m.user)
	}
	if m.id.Kind != conv.KindPrivate {
		return p.readOwn(it, m, at)
	}
	if p.w.das.oneCommit {
		return p.readWhole(it, m, at)
	}
	if err := p.readOwn(it, m, at); err != nil {
		return err
	}
	key := store.Key{Tenant: it.req.Tenant, ID: m.row.Conv}
	p.orderRead(it, key, m.id, r.Uid, r.Point.GetEpoch(), at.seq)
	return nil
}

// readOwn moves the reader's own row, for his other devices.
func (p *plan) readOwn(it *item, m *member, at position) error {
	t, err := p.move(m, it.from, it.homeOf(m.user.key.ID))
	if err == nil {
		raiseRead(&t.row, at, m.side)
		it.out.moved = true
	}
	return err
}

// readWhole moves the reader's row and the peer's in one transaction.
func (p *plan) readWhole(it *item, m *member, at position) error {
	peer, err := p.member(it.req.Tenant, m.id.Peer(m.user.key.ID), m.row.Conv)
	if err != nil {
		return err
	}
	if err := p.fence(peer.user.bucket); err != nil {
		return err
	}
	if err := p.readOwn(it, m, at); err != nil {
		return err
	}
	if at.seq <= peer.current().PeerReadSeq {
		return nil
	}
	t, err := p.move(peer, it.from, it.homeOf(peer.user.key.ID))
	if err == nil {
		t.row.PeerReadSeq = at.seq
	}
	return err
}

// readPoint is the position a READ names: given by the das of the log (two-stage), or read
// from the log, which must have it.
func (p *plan) readPoint(it *item, m *member, r *tier.ReadMark) (position, error) {
	if pt := r.Point; pt != nil && !p.w.das.oneCommit {
		at := position{seq: min(r.Seq, pt.Seq), ord: pt.Ord}
		at.own[m.side] = min(pt.Own, pt.Ord)
		if r.Seq < pt.Seq {
			return position{}, code.Errorf(code.BadRequest, "point is beyond seq")
		}
		return at, nil
	}
	key := store.Key{Tenant: it.req.Tenant, ID: r.Conv}
	if p.w.exclusive {
		c, err := p.conversation(key)
		if err != nil {
			return position{}, err
		}
		if c.head.seq == 0 && c.tx == nil {
			return position{}, notMember(r.Conv)
		}
		return p.position(c, r.Seq)
	}
	v, err := p.snapshot()
	if err != nil {
		return position{}, err
	}
	point, err := readPoint(v, key, m.id, r.Uid, r.Seq)
	if err != nil {
		return position{}, err
	}
	it.derived = true // of a log that may be in another database than what is written
	at := position{seq: point.Seq, ord: point.Ord}
	at.own[m.side] = point.Own
	return at, nil
}

// settings plans a change of what a user set for a conversation he has.
func (p *plan) settings(it *item, s *tier.SettingsMark) error {
	m, err := p.member(it.req.Tenant, s.Uid, s.Settings.GetConv())
	if err != nil {
		return err
	}
	it.out.row, it.out.tellRow = m, true
	row := *m.current()
	if row.Version == 0 {
		if err := p.confirmUser(m.user); err != nil {
			return err
		}
		return notMember(s.Settings.GetConv())
	}
	if err := applySettings(&row, s.Settings); err != nil {
		return err
	}
	if row == *m.current() {
		if m.tx != nil {
			return nil
		}
		return p.confirmUser(m.user)
	}
	t, err := p.move(m, it.from, it.from.boot)
	if err == nil {
		t.row.Pinned, t.row.Muted, t.row.Hidden, t.row.Remark = row.Pinned, row.Muted, row.Hidden, row.Remark
		it.out.moved = true
	}
	return err
}

// maxRemark is the longest remark in bytes.
const maxRemark = 256

func applySettings(row *store.Member, s *im.Settings) error {
	for _, field := range s.Fields {
		switch field {
		case "pinned":
			row.Pinned = s.Pinned
		case "muted":
			row.Muted = s.Muted
		case "hidden":
			row.Hidden = s.Hidden
		case "remark":
			if len(s.Remark) > maxRemark {
				return code.Errorf(code.TooLarge, "remark has %d bytes, over %d", len(s.Remark), maxRemark)
			}
			row.Remark = strings.Clone(s.Remark) // it is remembered
		default:
			return code.Errorf(code.BadRequest, "fields: %.40q is not pinned, muted, hidden or remark", field)
		}
	}
	return nil
}

// woken raises how far a user has been woken offline.
func (p *plan) woken(it *item, w *tier.Woken) error {
	key := store.Key{Tenant: it.req.Tenant, ID: w.Uid}
	bucket := bucketOf(key)
	if err := p.fence(bucket); err != nil {
		return err
	}
	if w.Epoch != p.w.epochs[bucket] {
		return nil // of another epoch: it says nothing about these versions
	}
	p.batch.Woken = append(p.batch.Woken, store.WokenMark{User: key, Version: w.Version})
	return nil
}

// done deletes finished outbox rows of one owner by range. Which they are is the owner's
// affair (R07).
func (p *plan) done(_ *item, d *tier.OutboxDone) error {
	r := store.RowRange{Owner: d.Owner, From: storedN(d.Shard, d.From), To: storedN(d.Shard, d.To)}
	if d.Kind == tier.Outbox_FANOUT {
		p.batch.FanOutDone = appendRange(p.batch.FanOutDone, r)
	} else {
		p.batch.DeliverDone = appendRange(p.batch.DeliverDone, r)
	}
	return nil
}

// appendRange joins a range to the one before where they touch.
func appendRange(list []store.RowRange, r store.RowRange) []store.RowRange {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.Owner == r.Owner && r.From <= last.To+1 && last.From <= r.From {
			last.To = max(last.To, r.To)
			return list
		}
	}
	return append(list, r)
}

// record stores an offline push as its vendor made it.
func (p *plan) record(it *item, r *tier.PushRecord) error {
	key := store.Key{Tenant: it.req.Tenant, ID: r.Uid}
	if err := p.fence(bucketOf(key)); err != nil {
		return err
	}
	p.batch.Pushes = append(p.batch.Pushes, store.PushRow{User: key, Push: store.Push{
		Device: r.Device, Platform: r.Platform, Conv: r.Conv, Seq: r.Seq, Title: r.Title,
		Body: r.Body, Collapse: r.Collapse, Badge: r.Badge, AtMS: r.AtMs,
	}})
	return nil
}

// userDevices are a user's devices as the batch so far leaves them.
type userDevices struct {
	list  []store.Device
	dirty []bool
}

func (p *plan) devicesOf(k store.Key) (*userDevices, error) {
	if d := p.devices[k]; d != nil {
		return d, nil
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	list, err := v.Devices(k)
	if err != nil {
		return nil, fmt.Errorf("read the devices of %q: %w", k.ID, err)
	}
	d := &userDevices{list: list, dirty: make([]bool, len(list))}
	p.devices[k] = d
	return d, nil
}

// edit returns the row of a device, to be changed.
func (d *userDevices) edit(id string) *store.Device {
	i := slices.IndexFunc(d.list, func(x store.Device) bool { return x.ID == id })
	if i < 0 {
		i = len(d.list)
		d.list, d.dirty = append(d.list, store.Device{ID: id}), append(d.dirty, false)
	}
	d.dirty[i] = true
	return &d.list[i]
}

// raiseCursor moves a device's cursor to (epoch, cursor), never back. A cursor of another
// epoch than the bucket's says nothing.
func raiseCursor(d *store.Device, bucketEpoch, epoch, cursor uint64) {
	if epoch != bucketEpoch {
		return
	}
	old := store.Device{Epoch: d.Epoch, Cursor: d.Cursor}
	d.Epoch, d.Cursor = epoch, cursor
	d.Raise(&old)
}

// cursor plans the lazy mark of a device: how far it has come, and that its session lives.
func (p *plan) cursor(it *item, m *tier.CursorMark) error {
	key := store.Key{Tenant: it.req.Tenant, ID: m.Uid}
	bucket := bucketOf(key)
	if err := p.fence(bucket); err != nil {
		return err
	}
	now, err := p.now()
	if err != nil {
		return err
	}
	if m.Class != "" && m.SessionEpoch != 0 {
		if err := p.renew(key, m, now); err != nil {
			return err
		}
	}
	if m.Alive {
		return nil
	}
	devices, err := p.devicesOf(key)
	if err != nil {
		return err
	}
	d := devices.edit(m.Device)
	d.SeenMS = now
	raiseCursor(d, p.w.epochs[bucket], m.Epoch, m.Cursor)
	return nil
}
