package das

import (
	"fmt"
	"log/slog"
	"slices"

	"hongyan/das/store"
	"hongyan/idl/tier"
)

// build turns what was decided into the store's batch.
func (p *plan) build() error {
	b := &p.batch
	for _, c := range p.convs {
		if len(c.tx.entries) == 0 {
			continue
		}
		b.Convs = append(b.Convs, store.ConvMove{Key: c.key, From: c.head.seq, To: c.row()})
		for _, e := range c.tx.entries {
			b.Messages = append(b.Messages, &e.stored)
		}
		b.Rewrites = append(b.Rewrites, c.tx.rewrites...)
	}
	for _, u := range p.users {
		b.Users = append(b.Users, store.UserMove{Key: u.key, From: u.version, To: u.next})
	}
	for _, m := range p.moved {
		b.Members = append(b.Members, store.MemberRow{User: m.user.key, Member: m.tx.row})
		p.owner(m.tx.owner).addDeliver(m)
	}
	for i := range p.fans {
		f := &p.fans[i]
		o := p.owner(f.from.boot)
		f.entry = len(o.fanOut)
		o.fanOut = append(o.fanOut, store.FanOutEntry{Conv: f.conv, Epoch: f.epoch, LastSeq: f.lastSeq, Members: f.members})
	}
	p.buildSessions()
	if err := p.numberRows(); err != nil {
		return err
	}
	for _, id := range p.fences.list {
		b.Buckets = append(b.Buckets, store.BucketFence{ID: id, Epoch: p.w.epochs[id]})
	}
	return nil
}

// empty tells that there is nothing to commit. A bucket's fence alone is nothing.
func (p *plan) empty() bool {
	b := &p.batch
	return b.Lazy() && len(b.FanOutDone)+len(b.DeliverDone)+len(b.Cursors)+len(b.Woken) == 0
}

func (p *plan) buildSessions() {
	b := &p.batch
	for k, s := range p.sessions {
		for i, r := range s.rows {
			if s.dirty[i] {
				b.Sessions = append(b.Sessions, store.SessionMove{User: k, From: s.from, To: r})
			}
		}
	}
	for k, d := range p.devices {
		for i, r := range d.list {
			if d.dirty[i] {
				b.Cursors = append(b.Cursors, store.DeviceRow{User: k, Device: r})
			}
		}
	}
}

// owner is what this batch writes for a Logic.
func (p *plan) owner(boot string) *ownerTx {
	for i := range p.owners {
		if p.owners[i].boot == boot {
			return &p.owners[i]
		}
	}
	if n := len(p.owners); n < cap(p.owners) { // use its slices again
		p.owners = p.owners[:n+1]
		o := &p.owners[n]
		*o = ownerTx{boot: boot, deliver: o.deliver[:0], fanOut: o.fanOut[:0]}
		return o
	}
	p.owners = append(p.owners, ownerTx{boot: boot})
	return &p.owners[len(p.owners)-1]
}

func (o *ownerTx) addDeliver(m *member) {
	o.deliver = append(o.deliver, store.DeliverEntry{
		User: m.user.key, Version: m.tx.row.Version, Conv: m.row.Conv, Seq: m.tx.row.LastSeq,
	})
}

// numberRows gives every owner's rows their numbers and puts them into the batch.
func (p *plan) numberRows() error {
	if len(p.owners) == 0 {
		return nil
	}
	now, err := p.now() // their ages are measured by the store's clock
	if err != nil {
		return err
	}
	for i := range p.owners {
		o := &p.owners[i]
		if len(o.deliver) > 0 {
			if err := p.startOwner(tier.Outbox_DELIVER, o.boot); err != nil {
				return err
			}
			o.deliverN = p.w.das.outbox.take(tier.Outbox_DELIVER, o.boot)
			p.batch.Deliver = append(p.batch.Deliver, store.DeliverRow{
				RowKey: store.RowKey{Owner: o.boot, N: o.deliverN}, CreatedMS: now, Entries: o.deliver,
			})
		}
		if len(o.fanOut) > 0 {
			if err := p.startOwner(tier.Outbox_FANOUT, o.boot); err != nil {
				return err
			}
			o.fanOutN = p.w.das.outbox.take(tier.Outbox_FANOUT, o.boot)
			p.batch.FanOut = append(p.batch.FanOut, store.FanOutRow{
				RowKey: store.RowKey{Owner: o.boot, N: o.fanOutN}, CreatedMS: now, Entries: o.fanOut,
			})
		}
	}
	return nil
}

// startOwner looks once for rows of an owner that stand above where this life of the das
// begins to number: the clock may have gone back.
func (p *plan) startOwner(kind tier.Outbox, owner string) error {
	o := p.w.das.outbox
	if o.seen(kind, owner) {
		return nil
	}
	highest := uint64(0)
	for db := range p.w.das.parts {
		n, err := p.lastOf(db, kind, owner)
		switch {
		case err == nil:
			highest = max(highest, n)
		case db == p.w.db:
			return err
		default: // it must not stop this one; to repeat a number takes a clock that went back besides
			p.w.das.log.Warn("numbers rows without a look at all databases", "owner", owner, slog.Any("error", err))
		}
	}
	o.start(kind, owner, highest)
	return nil
}

// lastOf is the highest number of the owner's rows in a database that is not below where
// this life begins, 0 for none.
func (p *plan) lastOf(db int, kind tier.Outbox, owner string) (uint64, error) {
	v, err := p.w.das.parts[db].View(p.ctx)
	if err != nil {
		return 0, fmt.Errorf("open a view: %w", err)
	}
	defer v.Close()
	o := p.w.das.outbox
	last := store.RowKey{Owner: owner, N: storedN(o.shard, o.first-1)}
	from := last
	for {
		next, err := lastRow(v, kind, last)
		if err != nil {
			return 0, fmt.Errorf("look for rows of %q: %w", owner, err)
		}
		if shard, _ := toldN(next.N); next.Owner != owner || shard != o.shard || next == last {
			break
		}
		last = next
	}
	if last == from {
		return 0, nil
	}
	return last.N, nil
}

// lastRow is the key of the last row of a page after the key that has its owner and shard,
// the key itself if there is none.
func lastRow(v store.View, kind tier.Outbox, after store.RowKey) (store.RowKey, error) {
	const page = 256
	var keys []store.RowKey
	if kind == tier.Outbox_FANOUT {
		rows, err := v.FanOutRows(after, store.Anytime(), page)
		if err != nil {
			return after, err
		}
		for i := range rows {
			keys = append(keys, rows[i].RowKey)
		}
	} else {
		rows, err := v.DeliverRows(after, store.Anytime(), page)
		if err != nil {
			return after, err
		}
		for i := range rows {
			keys = append(keys, rows[i].RowKey)
		}
	}
	shard, _ := toldN(after.N)
	for _, k := range slices.Backward(keys) {
		if s, _ := toldN(k.N); k.Owner == after.Owner && s == shard {
			return k, nil
		}
	}
	return after, nil
}

// apply takes over what was committed: from now on it is believed.
func (p *plan) apply() {
	window := p.w.das.cfg.DedupeWindow
	at := p.w.das.since()
	for _, c := range p.convs {
		if len(c.tx.entries) == 0 {
			continue
		}
		for _, r := range c.tx.rewrites {
			if r.Seq > c.head.seq { // of this very batch: told as it was left
				c.tx.entries[r.Seq-c.head.seq-1].stored = *r
			}
		}
		for _, e := range c.tx.entries {
			c.recent.add(e.stored.Seq, e.key, e.trace(at), at, window)
		}
		c.head, c.flags = c.tx.position, c.tx.flags
		c.uses++
	}
	for _, u := range p.users {
		u.version = u.next
	}
	for _, m := range p.moved {
		m.row = m.tx.row
	}
}

// discard forgets what was decided. Numbers of rows go back unless rows may have been
// written with them: those are never used twice (R07).
func (p *plan) discard(tried bool) {
	if !tried {
		for i := range p.owners {
			if o := &p.owners[i]; o.deliverN != 0 {
				p.w.das.outbox.giveBack(tier.Outbox_DELIVER, o.boot, o.deliverN)
			}
			if o := &p.owners[i]; o.fanOutN != 0 {
				p.w.das.outbox.giveBack(tier.Outbox_FANOUT, o.boot, o.fanOutN)
			}
		}
	}
	p.reset()
}

// dropAll forgets everything that is believed of the batch's keys: the outcome of its
// commit is unknown (R02).
func (p *plan) dropAll() {
	for _, c := range p.convs {
		p.w.convs.drop(c.key)
	}
	for _, u := range p.users {
		p.w.users.drop(u.key)
	}
}

// reset ends the plan. Its scratch is kept.
func (p *plan) reset() {
	p.closeView()
	for _, c := range p.convs {
		c.tx.reset()
		c.tx = nil
	}
	for _, u := range p.users {
		u.inTx = false
	}
	for _, m := range p.moved {
		m.tx.reset()
		m.tx = nil
	}
	p.convTxs.used, p.memberTxs.used = 0, 0
	p.convs, p.users, p.moved = emptied(p.convs), emptied(p.users), emptied(p.moved)
	p.again, p.fans, p.owners = emptied(p.again), emptied(p.fans), p.owners[:0]
	p.fences.clear()
	clear(p.sessions)
	clear(p.devices)
	b := &p.batch
	*b = store.Batch{
		Buckets: b.Buckets[:0], Convs: emptied(b.Convs), Users: emptied(b.Users),
		Messages: emptied(b.Messages), Rewrites: emptied(b.Rewrites), Members: emptied(b.Members),
		FanOut: emptied(b.FanOut), Deliver: emptied(b.Deliver), Sessions: emptied(b.Sessions),
		Pushes: emptied(b.Pushes), FanOutDone: emptied(b.FanOutDone), DeliverDone: emptied(b.DeliverDone),
		Cursors: emptied(b.Cursors), Woken: emptied(b.Woken),
	}
}

// emptied keeps the room of a slice and nothing that it points to.
func emptied[T any](s []T) []T {
	clear(s)
	return s[:0]
}
