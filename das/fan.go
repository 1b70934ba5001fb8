package das

import (
	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// fan is one entry of a fan-out row: a conversation that moved, for one calling Logic, and
// who must learn of it.
type fan struct {
	from    *caller
	item    *item // whose outcome carries the order: the last of the caller for this conversation
	conv    store.Key
	epoch   uint64 // of the conversation's bucket; 0: a READ that could not tell
	lastSeq uint64 // 0: only the peer's read position moved
	members []store.FanOutMember
	entries []*entry

	entry int    // its place in the row
	row   uint64 // number of the row, as stored
	of    uint32 // entries of the row
}

// order notes that an entry is to be fanned out (two-stage). Entries of one caller to one
// conversation share an entry of the row: each member's row needs to move once.
func (p *plan) order(it *item, c *conversation, e *entry) {
	it.out.entry = e
	f := p.fanOf(it, c)
	f.item, f.epoch, f.lastSeq = it, p.w.epochs[c.bucket], c.tx.seq
	f.members = membersAt(f.members[:0], c, c.tx.position, c.tx.flags)
	f.entries = append(f.entries, e)
}

func (p *plan) fanOf(it *item, c *conversation) *fan {
	for _, i := range c.tx.fans {
		if p.fans[i].from.boot == it.from.boot {
			return &p.fans[i]
		}
	}
	c.tx.fans = append(c.tx.fans, len(p.fans))
	p.fans = append(p.fans, fan{from: it.from, conv: c.key})
	return &p.fans[len(p.fans)-1]
}

// membersAt are the recipients as the fence of the conversation sees them (R28), with what
// each has to count up to there (R24).
func membersAt(to []store.FanOutMember, c *conversation, at position, flags store.ConvFlags) []store.FanOutMember {
	for side := range 2 {
		if c.isMember(side) {
			to = append(to, store.FanOutMember{
				UID: c.name(side), LastOrd: at.of(side), Blocked: flags&blocks(side) != 0,
			})
		}
	}
	return to
}

// orderAgain is the order of a repeated append (R05): the members as of the log's head. It
// names no row: that of the first commit is driven by its owner or when it is overdue.
func (p *plan) orderAgain(it *item, c *conversation, first *entry) *tier.FanOutOrder {
	members := membersAt(nil, c, c.head, c.flags)
	return &tier.FanOutOrder{
		Tenant: c.key.Tenant, Shard: p.w.das.outbox.shard,
		Members:  tellMembers(members, c.key.ID, p.w.epochs[c.bucket], c.head.seq, p.ms),
		Messages: []*im.Message{first.tell()},
	}
}

// orderRead notes that the peer is to learn how far the user has read (R22, two-stage).
func (p *plan) orderRead(it *item, key store.Key, id conv.ID, uid string, epoch, seq uint64) {
	p.fans = append(p.fans, fan{from: it.from, item: it, conv: key, epoch: epoch, members: []store.FanOutMember{
		{UID: id.Peer(uid), PeerReadSeq: seq},
	}})
	it.out.conv = key.ID
}

// told is the order for the caller, after the commit.
func (f *fan) told(ms int64) *tier.FanOutOrder {
	shard, n := toldN(f.row)
	o := &tier.FanOutOrder{
		Owner: f.from.boot, Row: n, Entry: uint32(f.entry), Shard: shard, Entries: f.of,
		Tenant: f.conv.Tenant, Members: tellMembers(f.members, f.conv.ID, f.epoch, f.lastSeq, ms),
	}
	if len(f.entries) > 0 {
		o.Messages = make([]*im.Message, len(f.entries))
		for i, e := range f.entries {
			o.Messages[i] = e.tell()
		}
	}
	return o
}

func tellMembers(list []store.FanOutMember, convID string, epoch, lastSeq uint64, ms int64) []*tier.FanOut {
	told := make([]*tier.FanOut, len(list))
	for i, m := range list {
		told[i] = &tier.FanOut{
			Uid: m.UID, Conv: convID, Epoch: epoch, LastSeq: lastSeq, LastOrd: m.LastOrd,
			PeerReadSeq: m.PeerReadSeq, Blocked: m.Blocked, AtMs: ms,
		}
	}
	return told
}

// fanOut plans the second stage: a member's row follows the log. One that is there already
// takes no version and is told again (R08). The log may have gone back since, to an older
// copy of its database, while the row did not: then it has another epoch, and its new entries
// under old numbers are news.
func (p *plan) fanOut(it *item, f *tier.FanOut) error {
	m, err := p.member(it.req.Tenant, f.Uid, f.Conv)
	if err != nil {
		return err
	}
	it.out.row, it.out.tellRow = m, true
	row := m.current()
	moved := f.LastSeq > 0 && !row.Reached(f.Epoch, f.LastSeq)
	read := f.PeerReadSeq > row.PeerReadSeq && (f.Epoch == 0 || f.Epoch >= row.BackEpoch)
	if !moved && !read {
		return p.repushRow(it, m)
	}
	t, err := p.move(m, it.from, it.from.boot)
	if err != nil {
		return err
	}
	if moved {
		if f.LastSeq < t.row.LastSeq { // at the same number it may be the same entry, told again
			forgetRead(&t.row, f)
		}
		t.row.LastEpoch, t.row.LastSeq, t.row.LastOrd, t.row.Blocked = f.Epoch, f.LastSeq, f.LastOrd, f.Blocked
	}
	if read {
		t.row.PeerReadSeq = max(t.row.PeerReadSeq, f.PeerReadSeq)
	}
	return nil
}

// forgetRead takes read positions back before the new end of a log that went back: whoever
// had read the entries that are lost has not read those that have their numbers now. One more
// unread is better than a message that looks read.
func forgetRead(row *store.Member, f *tier.FanOut) {
	row.BackEpoch = f.Epoch
	row.PeerReadSeq = min(row.PeerReadSeq, f.LastSeq-1)
	if row.ReadSeq >= f.LastSeq {
		row.ReadSeq, row.ReadOrd = f.LastSeq-1, min(row.ReadOrd, max(f.LastOrd, 1)-1)
	}
}

// repushRow tells a row that needs no new version.
func (p *plan) repushRow(it *item, m *member) error {
	if m.tx != nil {
		return nil // it moves in this batch and is told with it
	}
	if err := p.confirmUser(m.user); err != nil {
		return err
	}
	if m.row.Version > 0 {
		p.again = append(p.again, repush{from: it.from, row: m})
	}
	return nil
}
