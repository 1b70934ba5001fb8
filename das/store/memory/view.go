package memory

import (
	"cmp"
	"slices"
	"strings"

	"hongyan/das/store"
)

// view reads what stood after commit at.
type view struct {
	s       *Store
	at      uint64
	buckets *[store.Buckets]store.BucketState
	closed  bool // under s.mu
}

// conv and user take the lock for the look-up only: what they return is not written again.
func (v *view) conv(k store.Key) (convLog, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.closed {
		return convLog{}, store.ErrClosed
	}
	log := v.s.convs.get(k, v.at)
	return log, nil
}

func (v *view) user(k store.Key) (userLog, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.closed {
		return userLog{}, store.ErrClosed
	}
	return v.s.users.get(k, v.at), nil
}

func (v *view) Bucket(id uint32) (store.BucketState, error) {
	if id >= store.Buckets {
		return store.BucketState{}, store.ErrNotFound
	}
	return v.buckets[id], nil
}

func (v *view) Conv(k store.Key) (store.ConvHead, error) {
	log, err := v.conv(k)
	return log.head.Clone(), err
}

func (v *view) User(k store.Key) (store.UserHead, error) {
	u, err := v.user(k)
	return u.head, err
}

func (v *view) Message(conv store.Key, seq uint64) (*store.Message, error) {
	log, err := v.conv(conv)
	if err != nil {
		return nil, err
	}
	if seq == 0 || seq > uint64(len(log.entries)) || log.entries[seq-1] == nil {
		return nil, store.ErrNotFound
	}
	return log.entries[seq-1].Clone(), nil
}

func (v *view) Range(conv store.Key, from, to uint64, limit int) ([]*store.Message, error) {
	return v.entries(conv, limit, func(m *store.Message) bool { return from <= m.Seq && m.Seq <= to })
}

func (v *view) Last(conv store.Key, before uint64, limit int) ([]*store.Message, error) {
	list, err := v.entries(conv, 0, func(m *store.Message) bool { return before == 0 || m.Seq < before })
	if limit > 0 && len(list) > limit {
		list = list[len(list)-limit:]
	}
	return list, err
}

func (v *view) Modified(conv store.Key, after uint64, limit int) ([]*store.Message, error) {
	list, err := v.entries(conv, 0, func(m *store.Message) bool { return m.ModSeq > after })
	slices.SortFunc(list, func(a, b *store.Message) int {
		return cmp.Or(cmp.Compare(a.ModSeq, b.ModSeq), cmp.Compare(a.Seq, b.Seq))
	})
	return first(list, limit), err
}

// entries returns copies of the first entries that match, ascending by seq.
func (v *view) entries(conv store.Key, limit int, match func(*store.Message) bool) ([]*store.Message, error) {
	log, err := v.conv(conv)
	if err != nil {
		return nil, err
	}
	var list []*store.Message
	for _, m := range log.entries {
		if m != nil && match(m) && (limit <= 0 || len(list) < limit) {
			list = append(list, m.Clone())
		}
	}
	return list, nil
}

func (v *view) ByClientID(conv store.Key, sender, clientMsgID string) (*store.Message, error) {
	v.s.mu.Lock() // later commits write to the keys that this state shares
	defer v.s.mu.Unlock()
	if v.closed {
		return nil, store.ErrClosed
	}
	log := v.s.convs.get(conv, v.at)
	m := log.find(sender, clientMsgID)
	if m == nil {
		return nil, store.ErrNotFound
	}
	return m.Clone(), nil
}

func (v *view) Member(user store.Key, conv string) (store.Member, error) {
	u, err := v.user(user)
	if err != nil {
		return store.Member{}, err
	}
	m, ok := u.members[conv]
	if !ok {
		return store.Member{}, store.ErrNotFound
	}
	return m.Clone(), nil
}

func (v *view) Changes(user store.Key, after uint64, limit int) ([]store.Member, error) {
	list, err := v.members(user, func(m *store.Member) bool { return m.Version > after })
	slices.SortFunc(list, func(a, b store.Member) int { return cmp.Compare(a.Version, b.Version) })
	return first(list, limit), err
}

func (v *view) Members(user store.Key, before uint64, limit int) ([]store.Member, error) {
	list, err := v.members(user, func(m *store.Member) bool { return before == 0 || m.Version < before })
	slices.SortFunc(list, func(a, b store.Member) int { return cmp.Compare(b.Version, a.Version) })
	return first(list, limit), err
}

func (v *view) members(user store.Key, match func(*store.Member) bool) ([]store.Member, error) {
	u, err := v.user(user)
	var list []store.Member
	for _, m := range u.members {
		if match(&m) {
			list = append(list, m.Clone())
		}
	}
	return list, err
}

func (v *view) Devices(user store.Key) ([]store.Device, error) {
	u, err := v.user(user)
	return u.deviceList(), err
}

func (v *view) Sessions(user store.Key) ([]store.Session, error) {
	u, err := v.user(user)
	return u.sessionList(), err
}

func (v *view) FanOutRows(after store.RowKey, created store.Created, limit int) ([]store.FanOutRow, error) {
	return scan(v, v.s.fanOut, after, limit, func(r *store.FanOutRow) (store.RowKey, bool) {
		return r.RowKey, created.Has(r.CreatedMS)
	}, store.FanOutRow.Clone)
}

func (v *view) DeliverRows(after store.RowKey, created store.Created, limit int) ([]store.DeliverRow, error) {
	return scan(v, v.s.deliver, after, limit, func(r *store.DeliverRow) (store.RowKey, bool) {
		return r.RowKey, created.Has(r.CreatedMS)
	}, store.DeliverRow.Clone)
}

// scan returns copies of the outbox rows behind a key that match, in key order.
func scan[R any](v *view, t table[string, rows[R]], after store.RowKey, limit int,
	match func(*R) (store.RowKey, bool), clone func(R) R) ([]R, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.closed {
		return nil, store.ErrClosed
	}
	var list []R
	for owner := range t {
		for _, r := range t.get(owner, v.at) {
			if key, ok := match(&r); ok && compareKeys(key, after) > 0 {
				list = append(list, clone(r))
			}
		}
	}
	slices.SortFunc(list, func(a, b R) int {
		ka, _ := match(&a)
		kb, _ := match(&b)
		return compareKeys(ka, kb)
	})
	return first(list, limit), nil
}

func compareKeys(a, b store.RowKey) int {
	return cmp.Or(strings.Compare(a.Owner, b.Owner), cmp.Compare(a.N, b.N))
}

func (v *view) Pushes(user store.Key, limit int) ([]store.Push, error) {
	u, err := v.user(user)
	list := slices.Clone(u.pushes)
	slices.Reverse(list)
	return first(list, limit), err
}

func (v *view) Close() {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.closed = true
	delete(v.s.views, v)
}

func first[T any](list []T, limit int) []T {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}
