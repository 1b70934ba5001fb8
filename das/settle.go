package das

import (
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// results gathers what goes to one caller.
type results struct {
	to      *caller
	settled []*tier.Settled
	changes []*tier.Change
}

// mail sorts results by caller. A writer uses one again and again.
type mail struct{ boxes []results }

func (m *mail) of(c *caller) *results {
	for i := range m.boxes {
		if m.boxes[i].to == c {
			return &m.boxes[i]
		}
	}
	n := len(m.boxes)
	if n < cap(m.boxes) {
		m.boxes = m.boxes[:n+1] // its slices are used again
	} else {
		m.boxes = append(m.boxes, results{})
	}
	m.boxes[n].to = c
	return &m.boxes[n]
}

// post hands everything over. It never blocks: who takes it copies it.
func (m *mail) post() {
	for i := range m.boxes {
		b := &m.boxes[i]
		b.to.out.put(b.settled, b.changes)
		b.to, b.settled, b.changes = nil, emptied(b.settled), emptied(b.changes)
	}
	m.boxes = m.boxes[:0]
}

// settle tells the callers what became of their items, and whose rows moved.
func (p *plan) settle() {
	m := &p.w.mail
	p.stampRows()
	for i := range p.fans {
		f := &p.fans[i]
		f.item.out.order = f.told(p.ms)
	}
	for _, it := range p.w.setHeldAside(p.items) {
		p.w.das.release(it)
		if !it.quiet {
			box := m.of(it.from)
			box.settled = append(box.settled, p.outcome(it))
		}
	}
	for _, x := range p.again {
		if x.row.tx == nil { // else it is told as moved
			box := m.of(x.from)
			box.changes = append(box.changes, p.changeAgain(x))
		}
	}
	for _, row := range p.moved {
		box := m.of(row.tx.from)
		box.changes = append(box.changes, p.changeOf(row))
	}
	m.post()
}

// stampRows copies the numbers of the rows to what is told of them.
func (p *plan) stampRows() {
	for _, m := range p.moved {
		o := p.owner(m.tx.owner)
		m.tx.n, m.tx.of = o.deliverN, uint32(len(o.deliver))
	}
	for i := range p.fans {
		o := p.owner(p.fans[i].from.boot)
		p.fans[i].row, p.fans[i].of = o.fanOutN, uint32(len(o.fanOut))
	}
}

// outcome builds the answer to one item.
func (p *plan) outcome(it *item) *tier.Settled {
	out := &it.out
	var s *tier.Settled
	if out.entry != nil && out.entry == it.new {
		s = &it.new.settled
	} else {
		s = new(tier.Settled)
	}
	s.Id = it.req.Id
	if out.code != code.OK {
		s.Code, s.Message = uint32(out.code), out.message
		s.RetryAfterMs = uint32(out.retryAfter.Milliseconds())
		return s
	}
	s.Login, s.Epoch = out.login, out.epoch
	if m := out.row; m != nil {
		s.Epoch = p.w.epochs[m.user.bucket]
		s.Version, s.LastSeq, s.Moved = m.row.Version, m.row.LastSeq, out.moved
		if out.tellRow {
			s.Row = tellRow(new(im.Conversation), m)
		}
	}
	switch {
	case out.entry != nil:
		s.Append = tellAppended(out, it.new)
	case out.order != nil:
		s.Append = &tier.Appended{Conv: out.conv, Order: out.order}
	}
	return s
}

func tellAppended(out *outcome, own *entry) *tier.Appended {
	e := out.entry
	a := &e.appended
	if e != own {
		a = new(tier.Appended)
	}
	*a = tier.Appended{
		Conv: e.stored.Conv.ID, Seq: e.stored.Seq, CreatedMs: e.stored.CreatedMS,
		Duplicate: out.duplicate, Message: e.tell(), Order: out.order,
	}
	return a
}

// told is a change and its row, allocated in one piece.
type told struct {
	change tier.Change
	row    im.Conversation
}

// changeOf is the news of a row that this batch moved.
func (p *plan) changeOf(m *member) *tier.Change {
	c := p.w.told.next()
	shard, n := toldN(m.tx.n)
	c.change = tier.Change{
		Tenant: m.user.key.Tenant, Uid: m.user.key.ID, Epoch: p.w.epochs[m.user.bucket],
		Row: tellRow(&c.row, m), Owner: m.tx.owner, Deliver: n, Shard: shard, Entries: m.tx.of, Moves: m.tx.moves,
	}
	if m.tx.conv != nil {
		c.row.Messages = m.tx.conv.tellEntries()
	}
	return &c.change
}

// changeAgain is a row that did not move, to be pushed once more.
func (p *plan) changeAgain(x repush) *tier.Change {
	c := p.w.told.next()
	c.change = tier.Change{
		Tenant: x.row.user.key.Tenant, Uid: x.row.user.key.ID, Epoch: p.w.epochs[x.row.user.bucket],
		Row: tellRow(&c.row, x.row), Owner: x.from.boot, Shard: p.w.das.outbox.shard,
	}
	if x.entry != nil {
		c.row.Messages = []*im.Message{x.entry.tell()}
	}
	return &c.change
}

// tellEntries are the entries that are new in a conversation, shared by all its members.
func (c *conversation) tellEntries() []*im.Message {
	if c.tx.told == nil {
		c.tx.told = make([]*im.Message, len(c.tx.entries))
		for i, e := range c.tx.entries {
			c.tx.told[i] = e.tell()
		}
	}
	return c.tx.told
}

// tellRow is a member's row as clients see it.
func tellRow(to *im.Conversation, m *member) *im.Conversation {
	fillRow(to, &m.row, m.id, m.user.key.ID)
	return to
}

// fail answers all items alike, without a commit.
func (w *writer) fail(items []*item, c code.Code, message string) {
	m := &w.mail
	for _, it := range items {
		w.das.release(it)
		if it.quiet {
			continue
		}
		box := m.of(it.from)
		box.settled = append(box.settled, &tier.Settled{Id: it.req.Id, Code: uint32(c), Message: message})
	}
	m.post()
}
