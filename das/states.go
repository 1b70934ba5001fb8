package das

import (
	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/internal/conv"
)

// conversation is what a writer remembers of one log.
type conversation struct {
	cached
	key    store.Key
	id     conv.ID
	bucket uint32

	head   position
	flags  store.ConvFlags
	recent recent
	uses   int        // appends since it was loaded
	seats  [2]*member // in the one-commit form; by side

	tx *convTx // while a batch with it is planned and committed
}

// side of a member or of the channel: 0 for A, 1 for B, -1 for anybody else.
func (c *conversation) side(name string) int {
	switch name {
	case c.id.A:
		return 0
	case c.id.B:
		return 1
	}
	return -1
}

func (c *conversation) name(side int) string {
	if side == 0 {
		return c.id.A
	}
	return c.id.B
}

// isMember tells whether who sits on the side is a user: a channel is not.
func (c *conversation) isMember(side int) bool {
	return side == 1 || c.id.Kind == conv.KindPrivate
}

// blocks is the flag by which the member on the side blocks the other.
func blocks(side int) store.ConvFlags {
	if side == 0 {
		return store.LowBlocksHigh
	}
	return store.HighBlocksLow
}

// position is a point in a log: how much a person would count up to there.
type position struct {
	seq uint64
	ord uint64    // countable messages
	own [2]uint64 // of them, each side's own
}

// of is the count of what the member on the side did not write himself (R24).
func (p position) of(side int) uint64 { return p.ord - p.own[side] }

// positionOf derives the position of an entry: only the two sides send countable messages.
func positionOf(kind byte, seq, ord, ownOrd uint64, side int) position {
	p := position{seq: seq, ord: ord}
	p.own[side] = ownOrd
	if kind == conv.KindPrivate {
		p.own[1-side] = ord - ownOrd
	}
	return p
}

// load takes over a head row.
func (c *conversation) load(h store.ConvHead) {
	c.head = position{seq: h.Seq, ord: h.Ord, own: [2]uint64{h.Own[c.id.A], h.Own[c.id.B]}}
	c.flags = h.Flags
}

// convTx is what the batch being planned does to a conversation.
type convTx struct {
	position // of the head when the batch is committed
	flags    store.ConvFlags
	entries  []*entry
	rewrites []*store.Message
	fans     []int             // two-stage: indexes into the plan's fans
	told     []*im.Message     // the entries as they are told; built when asked for
	own      map[string]uint64 // scratch for the head row
}

// row is the head row after the batch. Its map is used again: a commit keeps nothing.
func (c *conversation) row() store.ConvHead {
	t := c.tx
	if t.own == nil {
		t.own = make(map[string]uint64, 2)
	}
	for side, n := range t.position.own {
		if n > 0 {
			t.own[c.name(side)] = n
		}
	}
	return store.ConvHead{Seq: t.seq, Ord: t.ord, Own: t.own, Flags: t.flags}
}

func (t *convTx) reset() {
	clear(t.entries)
	clear(t.rewrites)
	clear(t.own)
	*t = convTx{entries: t.entries[:0], rewrites: t.rewrites[:0], fans: t.fans[:0], own: t.own}
}

// user is what a writer remembers of one user's log.
type user struct {
	cached
	key     store.Key
	bucket  uint32
	version uint64

	next uint64 // version after the batch being planned
	inTx bool
}

// member is one user's row of one conversation.
type member struct {
	cached
	user *user
	id   conv.ID
	side int
	row  store.Member

	tx *memberTx // while a batch that moves it is planned and committed
}

// valid tells that the row is what the writer believes under the user's fence.
func (m *member) valid() bool { return m != nil && !m.dead && !m.user.dead }

// memberTx is what the batch being planned does to a row.
type memberTx struct {
	row   store.Member
	from  *caller       // whom to tell the change
	owner string        // of its delivery row
	conv  *conversation // whose new entries come with the change; nil = none
	n     uint64        // of the delivery row
	of    uint32        // entries of the delivery row
	moves uint32        // items that moved it
}

func (t *memberTx) reset() { *t = memberTx{} }

// memberKey names a row.
type memberKey struct {
	user store.Key
	conv string
}
