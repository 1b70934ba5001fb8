package das

import (
	"errors"
	"fmt"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// append plans one entry of a log. The order of the checks is the contract: an earlier
// commit of the key comes before any denial (R29), the predecessor before the rules.
func (p *plan) append(it *item, a *tier.Append) error {
	c, err := p.conversation(store.Key{Tenant: it.req.Tenant, ID: a.Conv})
	if err != nil {
		return err
	}
	side := c.side(a.Sender)
	if side < 0 || c.id.Kind == conv.KindSystem && side != 0 { // only the channel speaks in its log
		return code.Errorf(code.Denied, "%q does not speak in this conversation", a.Sender)
	}
	key, body := keyHash(a.Sender, a.ClientMsgId), bodyHash(a)
	if earlier, err := p.earlier(it, c, a, key); earlier != nil || err != nil {
		if err != nil {
			return err
		}
		return p.duplicate(it, c, side, earlier, body)
	}
	if err := p.follows(c, a); err != nil {
		return err
	}
	e := it.fresh(p, c, side, key, body)
	apply, err := p.rule(c, e, a)
	if err != nil {
		return err
	}
	if err := p.fence(c.bucket); err != nil {
		return err
	}
	if p.w.das.oneCommit {
		return p.appendWhole(it, c, e, apply)
	}
	p.take(c, e, apply)
	p.order(it, c, e)
	return nil
}

// fresh is the entry of the item before it has a place in the log. It is allocated once
// and filled anew by each plan.
func (it *item) fresh(p *plan, c *conversation, side int, key, body uint64) *entry {
	if it.new == nil {
		it.new = p.w.entries.next()
	}
	a := it.req.Append
	*it.new = entry{key: key, side: side, stored: store.Message{
		Conv: c.key, Sender: c.name(side), ClientMsgID: a.ClientMsgId, BodyHash: body,
		Kind: kindOf(a), Text: a.Text, Data: a.Data, CreatedMS: p.ms, TargetSeq: a.TargetSeq,
		MayRepeat: it.mayRepeat(),
	}}
	return it.new
}

// earlier finds a commit of the item's key, in this batch or in the log. Only a first
// attempt whose time in flight is covered by what is remembered is spared the look-up (R10).
func (p *plan) earlier(it *item, c *conversation, a *tier.Append, key uint64) (*entry, error) {
	if c.tx != nil {
		for _, e := range c.tx.entries {
			if e.key == key && e.stored.ClientMsgID == a.ClientMsgId && e.stored.Sender == a.Sender {
				return e, nil
			}
		}
	}
	if c.head.seq == 0 {
		return nil, nil
	}
	if err := p.remember(c); err != nil {
		return nil, err
	}
	if !it.mayRepeat() && c.recent.covers(p.at, p.w.das.cfg.DedupeWindow) && !c.recent.has(key) {
		return nil, nil
	}
	return p.lookUp(c, a.Sender, a.ClientMsgId)
}

// lookUp finds a stored entry by its dedupe key, nil if there is none.
func (p *plan) lookUp(c *conversation, sender, clientMsgID string) (*entry, error) {
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	m, err := v.ByClientID(c.key, sender, clientMsgID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up a client_msg_id in %q: %w", c.key.ID, err)
	}
	return &entry{stored: *m, side: c.side(m.Sender)}, nil
}

// remember reads the last entries of a log back once it turns out to be in use: the first
// append after loading is looked up on disk, which is cheaper.
func (p *plan) remember(c *conversation) error {
	window := p.w.das.cfg.DedupeWindow
	if c.uses != 1 || c.recent.covers(p.at, window) {
		return nil
	}
	v, err := p.snapshot()
	if err != nil {
		return err
	}
	list, err := v.Last(c.key, c.head.seq+1, ringSize)
	if err != nil {
		return fmt.Errorf("read back %q: %w", c.key.ID, err)
	}
	c.uses++ // once
	if len(list) == 0 || list[len(list)-1].Seq != c.head.seq {
		return nil
	}
	c.readBack(list, p)
	return nil
}

// readBack fills the memory of a conversation from its last entries. It covers the window
// if that is all there are, or the first of them is older; else only what was stored since
// the conversation was loaded. Entries of an earlier life of the das are dated by a clock
// that may have jumped since: within the first window of a life dates are not believed.
func (c *conversation) readBack(list []*store.Message, p *plan) {
	window := p.w.das.cfg.DedupeWindow
	r := c.recent // with what the ring had no room for
	r.keys, r.traces, r.oldest, r.last = nil, nil, 0, list[0].Seq-1
	for _, m := range list {
		at := min(p.at-time.Duration(p.ms-m.CreatedMS)*time.Millisecond, p.at)
		side := max(c.side(m.Sender), 0)
		r.add(m.Seq, keyHash(m.Sender, m.ClientMsgID), trace{m.Ord, m.OwnOrd, at, int8(side)}, p.at, 0)
	}
	if first := list[0]; first.Seq == 1 || p.at >= window && p.ms-first.CreatedMS >= window.Milliseconds() {
		r.since = forever
	}
	c.recent = r
}

// follows checks that the predecessor is stored, or stored by this very batch (R13).
func (p *plan) follows(c *conversation, a *tier.Append) error {
	if a.After == "" {
		return nil
	}
	key := keyHash(a.Sender, a.After)
	if c.tx != nil {
		for _, e := range c.tx.entries {
			if e.key == key {
				return nil
			}
		}
	}
	if c.recent.has(key) {
		return nil
	}
	if c.head.seq > 0 || !p.w.exclusive {
		found, err := p.lookUp(c, a.Sender, a.After)
		if found != nil || err != nil {
			return err
		}
		if err := p.confirmConv(c); err != nil {
			return err
		}
	}
	return code.Errorf(code.OutOfOrder, "the message named by after is not stored")
}

// duplicate answers an append whose key was committed before: the first result, and its
// fan-out is driven again (R05). Bodies are compared by the hash of the original (R29).
func (p *plan) duplicate(it *item, c *conversation, side int, first *entry, body uint64) error {
	if first.stored.BodyHash != body {
		return code.Errorf(code.Conflict, "client_msg_id was used for another message")
	}
	inBatch := c.tx != nil && first.stored.Seq > c.head.seq
	if !inBatch {
		if err := p.confirmConv(c); err != nil {
			return err
		}
	}
	if p.w.das.oneCommit {
		if err := p.repushAll(it, c, side, first, inBatch); err != nil {
			return err
		}
	} else if !inBatch {
		it.out.order = p.orderAgain(it, c, first)
	}
	it.out.entry, it.out.duplicate = first, true
	return nil
}

// repushAll lets the members have their rows again. deliver = 0: the delivery row of the
// first commit is driven by its owner, or when it is overdue.
func (p *plan) repushAll(it *item, c *conversation, side int, first *entry, inBatch bool) error {
	for s := range c.seats {
		if !c.isMember(s) {
			continue
		}
		m, err := p.seat(c, s)
		if err != nil {
			return err
		}
		if !inBatch {
			if err := p.confirmUser(m.user); err != nil {
				return err
			}
			p.again = append(p.again, repush{from: it.from, row: m, entry: first})
		}
		if s == side {
			it.out.row = m
		}
	}
	return nil
}

// take gives the entry its place at the end of the log.
func (p *plan) take(c *conversation, e *entry, apply func(*convTx)) {
	t := p.change(c)
	t.seq++
	if countable(e.stored.Kind) {
		t.ord++
		t.position.own[e.side]++
	}
	e.stored.Seq, e.stored.Ord, e.stored.OwnOrd = t.seq, t.ord, t.position.own[e.side]
	t.entries = append(t.entries, e)
	if apply != nil {
		apply(t)
	}
}

// appendWhole is the one-commit form: the rows of the members move with the entry.
func (p *plan) appendWhole(it *item, c *conversation, e *entry, apply func(*convTx)) error {
	var seats [2]*member
	for s := range seats {
		if !c.isMember(s) {
			continue
		}
		m, err := p.seat(c, s)
		if err != nil {
			return err
		}
		if err := p.fence(m.user.bucket); err != nil {
			return err
		}
		seats[s] = m
	}
	read, err := p.displayed(c, it.req.Append)
	if err != nil {
		return err
	}
	p.take(c, e, apply)
	it.out.entry = e
	for s, m := range seats {
		if m == nil {
			continue
		}
		t, err := p.move(m, it.from, it.homeOf(c.name(s)))
		if err != nil {
			return err
		}
		t.conv = c
		t.row.LastEpoch, t.row.LastSeq, t.row.LastOrd = p.w.epochs[c.bucket], c.tx.seq, c.tx.of(s)
		t.row.Blocked = c.tx.flags&blocks(s) != 0
		switch {
		case read.seq == 0:
		case s == e.side:
			raiseRead(&t.row, read, s)
		default:
			t.row.PeerReadSeq = max(t.row.PeerReadSeq, read.seq)
		}
		if s == e.side {
			it.out.row, it.out.moved = m, true
		}
	}
	return nil
}

// seat returns the row of the member on a side of the conversation.
func (p *plan) seat(c *conversation, side int) (*member, error) {
	if m := c.seats[side]; m.valid() {
		m.used, m.user.used = true, true
		return m, nil
	}
	m, err := p.member(c.key.Tenant, c.name(side), c.key.ID)
	if err != nil {
		return nil, err
	}
	c.seats[side] = m
	return m, nil
}

// displayed is the sender's implicit READ, clamped to what stands before the new entry.
// A channel reads nothing.
func (p *plan) displayed(c *conversation, a *tier.Append) (position, error) {
	if a.DisplayedSeq == 0 || !c.isMember(c.side(a.Sender)) {
		return position{}, nil
	}
	m := c.seats[c.side(a.Sender)]
	if a.DisplayedSeq <= m.current().ReadSeq {
		return position{}, nil
	}
	return p.position(c, a.DisplayedSeq)
}

// position finds what had been counted at an entry of the log; beyond the end, at the end.
func (p *plan) position(c *conversation, seq uint64) (position, error) {
	head := c.head
	if c.tx != nil {
		head = c.tx.position
	}
	if seq >= head.seq {
		return head, nil
	}
	if seq > c.head.seq {
		e := c.tx.entries[seq-c.head.seq-1]
		return positionOf(c.id.Kind, seq, e.stored.Ord, e.stored.OwnOrd, e.side), nil
	}
	if t := c.recent.at(seq); t != nil {
		return positionOf(c.id.Kind, seq, t.ord, t.ownOrd, int(t.side)), nil
	}
	v, err := p.snapshot()
	if err != nil {
		return position{}, err
	}
	m, err := v.Message(c.key, seq)
	if err != nil {
		return position{}, fmt.Errorf("read entry %q/%d: %w", c.key.ID, seq, err)
	}
	return positionOf(c.id.Kind, seq, m.Ord, m.OwnOrd, max(c.side(m.Sender), 0)), nil
}

// raiseRead moves a read position, never back (R24).
func raiseRead(row *store.Member, at position, side int) bool {
	if at.seq <= row.ReadSeq {
		return false
	}
	row.ReadSeq, row.ReadOrd = at.seq, at.of(side)
	return true
}

// homeOf is the boot id of the Logic that is home of a member: the caller, unless told
// otherwise.
func (it *item) homeOf(uid string) string {
	var homes []*tier.Home
	switch r := it.req; {
	case r.Append != nil:
		homes = r.Append.Homes
	case r.Read != nil:
		homes = r.Read.Homes
	}
	for _, h := range homes {
		if h != nil && h.Uid == uid && h.Boot != "" {
			return h.Boot
		}
	}
	return it.from.boot
}

// isModify tells recall and edit.
func isModify(k im.Kind) bool { return k == im.Kind_EVENT_RECALL || k == im.Kind_EVENT_EDIT }
