package memory

import (
	"maps"
	"slices"

	"hongyan/das/store"
)

// table maps keys to what they held at each commit that an open view may still ask for,
// newest first. A value is never changed once a later commit has begun: it is copied.
type table[K comparable, T any] map[K]*state[T]

type state[T any] struct {
	at   uint64 // the commit that wrote it
	val  T
	prev *state[T]
}

// get returns what the key held after commit at, or the zero T.
func (t table[K, T]) get(k K, at uint64) (val T) {
	for s := t[k]; s != nil; s = s.prev {
		if s.at <= at {
			return s.val
		}
	}
	return val
}

// edit returns the value of the key for commit at to write to, cloned from the one before.
// Nobody looks behind what was written up to commit oldest.
func (t table[K, T]) edit(k K, at, oldest uint64, clone func(T) T) *T {
	old := t[k]
	if old != nil && old.at == at {
		return &old.val
	}
	next := &state[T]{at: at, prev: old}
	if old != nil {
		next.val = old.val
		if old.at <= oldest {
			old.prev = nil
		}
	}
	next.val = clone(next.val)
	t[k] = next
	return &next.val
}

// convLog is a conversation. Entries stand at seq-1 and are immutable; newer states share
// the older part of the slice and the whole of keys, whose later seqs an older view ignores.
type convLog struct {
	head    store.ConvHead
	entries []*store.Message
	keys    map[dedupeKey]uint64
}

type dedupeKey struct{ sender, clientMsgID string }

func (l convLog) clone() convLog {
	if l.keys == nil {
		l.keys = make(map[dedupeKey]uint64)
	}
	return l
}

func (l *convLog) append(m *store.Message) {
	m = m.Clone()
	l.entries = append(l.entries, m)
	if m.ClientMsgID != "" {
		l.keys[dedupeKey{m.Sender, m.ClientMsgID}] = m.Seq
	}
}

func (l *convLog) rewrite(m *store.Message) {
	l.entries = slices.Clone(l.entries)
	l.entries[m.Seq-1] = m.Clone()
}

// find returns the entry of a dedupe key, or nil.
func (l *convLog) find(sender, clientMsgID string) *store.Message {
	seq := l.keys[dedupeKey{sender, clientMsgID}]
	if clientMsgID == "" || seq == 0 || seq > uint64(len(l.entries)) {
		return nil
	}
	return l.entries[seq-1]
}

// userLog is everything a user has.
type userLog struct {
	head     store.UserHead
	members  map[string]store.Member
	devices  map[string]store.Device
	sessions map[slot]store.Session
	pushes   []store.Push // ascending by time
}

type slot struct {
	class string
	n     uint32
}

func (u userLog) clone() userLog {
	if u.members == nil {
		return userLog{
			members:  make(map[string]store.Member),
			devices:  make(map[string]store.Device),
			sessions: make(map[slot]store.Session),
		}
	}
	u.members, u.devices, u.sessions = maps.Clone(u.members), maps.Clone(u.devices), maps.Clone(u.sessions)
	u.pushes = slices.Clone(u.pushes)
	return u
}

// sessionEpoch is the highest epoch of the user's sessions.
func (u *userLog) sessionEpoch() (epoch uint64) {
	for _, s := range u.sessions {
		epoch = max(epoch, s.Epoch)
	}
	return epoch
}

// rows are the outbox rows of one owner, by n.
type rows[R any] map[uint64]R

func (r rows[R]) clone() rows[R] {
	if r == nil {
		return make(rows[R])
	}
	return maps.Clone(r)
}
