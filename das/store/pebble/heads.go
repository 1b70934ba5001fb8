package pebblestore

import (
	"strings"

	"hongyan/das/store"
	"hongyan/internal/conv"
)

// heads holds what the fences compare beliefs with, so that a commit reads nothing: the
// heads of conversations, and of users with the positions of their rows. This process is
// the only writer, so what is here is true. It belongs to the committer (Store.turn).
//
// Each cache is two generations: what is used moves to the young one, and when that is
// full the old one is forgotten.
type heads struct {
	convs generations[*convState]
	users generations[*userState]

	partialAbove int // rows of a user beyond which only those in use are held
}

func newHeads(maxConvs, maxRows int) *heads {
	return &heads{
		convs:        generations[*convState]{max: maxConvs / 2},
		users:        generations[*userState]{max: maxRows / 2},
		partialAbove: 1000,
	}
}

// convState is what is true of a conversation, and how the batch at hand moves it.
type convState struct {
	key     store.Key
	seq     uint64
	flags   store.ConvFlags
	sideOwn bool // Own cannot be derived from the last message: kept in the head's side key

	batch    uint64 // the batch that next and to belong to
	next, to uint64 // the entry expected next, the last one
}

// userState is what is true of a user, and how the batch at hand moves him.
type userState struct {
	key     store.Key
	version uint64
	rows    map[string]positions
	partial bool // rows not in the map may be stored

	batch    uint64
	from, to uint64
	highest  uint64 // version of a row of the batch
	taken    uint64 // versions of the batch's rows, bit n for from+1+n
}

// held is the key and the cost of holding it.
func (c *convState) held() (store.Key, int) { return c.key, 1 }
func (u *userState) held() (store.Key, int) { return u.key, 1 + len(u.rows) }

// positions are those of a member row that only rise.
type positions struct {
	version, lastEpoch, backEpoch, lastSeq, lastOrd, readSeq, readOrd, peerReadSeq uint64
}

func positionsOf(m *store.Member) positions {
	return positions{m.Version, m.LastEpoch, m.BackEpoch, m.LastSeq, m.LastOrd, m.ReadSeq, m.ReadOrd, m.PeerReadSeq}
}

func (p *positions) member() store.Member {
	return store.Member{
		Version: p.version, LastEpoch: p.lastEpoch, BackEpoch: p.backEpoch, LastSeq: p.lastSeq, LastOrd: p.lastOrd,
		ReadSeq: p.readSeq, ReadOrd: p.readOrd, PeerReadSeq: p.peerReadSeq,
	}
}

// conv returns the state of a conversation, read once.
func (h *heads) conv(k store.Key, r *rowReader) (*convState, error) {
	if c, ok := h.convs.get(k); ok {
		return c, nil
	}
	c := &convState{key: k.Clone(), sideOwn: !derivable(k.ID)}
	var err error
	if c.seq, err = r.lastSeq(k); err != nil {
		return nil, err
	}
	if c.flags, _, err = r.head(k); err != nil {
		return nil, err
	}
	h.convs.put(c)
	return c, nil
}

// user returns the state of a user. Reading it once takes all his rows: the highest
// version among them is his head. A user of very many conversations costs a scan of them
// when he comes back into memory; a lazily written index by version would end that.
func (h *heads) user(k store.Key, r *rowReader) (*userState, error) {
	if u, ok := h.users.get(k); ok {
		return u, nil
	}
	u := &userState{key: k.Clone(), rows: make(map[string]positions)}
	err := r.eachMember(k, func(conv, val []byte) error {
		version, err := memberVersion(val)
		u.version = max(u.version, version)
		if err != nil || len(u.rows) >= h.partialAbove {
			u.partial = true
			return err
		}
		m, err := decodeMember(val, string(conv))
		u.rows[m.Conv] = positionsOf(&m)
		return err
	})
	if err != nil {
		return nil, err
	}
	h.users.put(u)
	return u, nil
}

// row returns the positions of a user's row; ok is false if there is none.
func (h *heads) row(k store.Key, u *userState, conv string, r *rowReader) (p positions, ok bool, err error) {
	if p, ok = u.rows[conv]; ok || !u.partial {
		return p, ok, nil
	}
	m, err := r.member(k, conv)
	if err == store.ErrNotFound {
		return positions{}, false, nil
	}
	return positionsOf(&m), err == nil, err
}

// setRow notes the positions of a row that the batch at hand writes.
func (h *heads) setRow(u *userState, conv string, p positions) {
	if _, ok := u.rows[conv]; !ok {
		h.users.cost++
		conv = strings.Clone(conv)
		if len(u.rows) >= 2*h.partialAbove { // back to those in use
			clear(u.rows)
			u.partial = true
		}
	}
	u.rows[conv] = p
}

// forget drops what is held of the keys of a batch that was given up.
func (h *heads) forget(b *store.Batch) {
	for i := range b.Convs {
		h.convs.drop(b.Convs[i].Key)
	}
	for i := range b.Users {
		h.users.drop(b.Users[i].Key)
	}
}

// turn makes room. It is called between batches: within one nothing is forgotten.
func (h *heads) turn() {
	h.convs.turn()
	h.users.turn()
}

// derivable tells whether the counts of senders follow from a log's last message: only
// its two people, or its channel, send what counts.
func derivable(id string) bool {
	_, err := conv.Parse(id)
	return err == nil
}

// generations is a bounded map by two generations.
type generations[V interface{ held() (store.Key, int) }] struct {
	max        int // cost of a generation
	cost       int // of young
	young, old map[store.Key]V
}

func (g *generations[V]) get(k store.Key) (V, bool) {
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	if ok {
		delete(g.old, k)
		g.put(v)
	}
	return v, ok
}

func (g *generations[V]) put(v V) {
	if g.young == nil {
		g.young = make(map[store.Key]V)
	}
	k, cost := v.held()
	g.young[k] = v
	g.cost += cost
}

func (g *generations[V]) drop(k store.Key) {
	delete(g.young, k)
	delete(g.old, k)
}

func (g *generations[V]) len() int { return len(g.young) + len(g.old) }

func (g *generations[V]) turn() {
	if g.cost > g.max {
		g.young, g.old, g.cost = nil, g.young, 0
	}
}
