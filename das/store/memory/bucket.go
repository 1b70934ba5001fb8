package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"hongyan/das/store"
)

var _ store.Movable = (*Store)(nil)

func compareIDs(a, b store.Key) int {
	return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.ID, b.ID))
}

// keysLocked are the keys of a bucket behind one, in order, that hold anything.
func keysLocked[T any](s *Store, t table[store.Key, T], bucket uint32, after store.Key, empty func(T) bool) []store.Key {
	var keys []store.Key
	for k := range t {
		if k.Bucket() == bucket && compareIDs(k, after) > 0 && !empty(t.get(k, s.commits)) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareIDs)
	return keys
}

func noConv(l convLog) bool { return l.head.Seq == 0 && len(l.entries) == 0 }
func noUser(u userLog) bool {
	return u.head == (store.UserHead{}) && len(u.members)+len(u.devices)+len(u.sessions)+len(u.pushes) == 0
}

// BucketConvs implements store.Movable.
func (s *Store) BucketConvs(ctx context.Context, bucket uint32, after store.Key, limit int) ([]store.ConvCopy, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []store.ConvCopy
	for _, k := range first(keysLocked(s, s.convs, bucket, after, noConv), limit) {
		list = append(list, store.ConvCopy{Key: k, Head: s.convs.get(k, s.commits).head.Clone()})
	}
	return list, nil
}

// BucketUsers implements store.Movable.
func (s *Store) BucketUsers(ctx context.Context, bucket uint32, after store.Key, limit int) ([]store.UserCopy, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []store.UserCopy
	for _, k := range first(keysLocked(s, s.users, bucket, after, noUser), limit) {
		u := s.users.get(k, s.commits)
		list = append(list, store.UserCopy{
			Key: k, Head: u.head, Devices: u.deviceList(), Sessions: u.sessionList(), Pushes: len(u.pushes),
		})
	}
	return list, nil
}

func (u *userLog) deviceList() []store.Device {
	return slices.SortedFunc(maps.Values(u.devices), func(a, b store.Device) int {
		return strings.Compare(a.ID, b.ID)
	})
}

func (u *userLog) sessionList() []store.Session {
	return slices.SortedFunc(maps.Values(u.sessions), func(a, b store.Session) int {
		return cmp.Or(strings.Compare(a.Class, b.Class), cmp.Compare(a.Slot, b.Slot))
	})
}

// BucketCount implements store.Movable.
func (s *Store) BucketCount(ctx context.Context, bucket uint32) (n store.BucketCount, err error) {
	if err := ctx.Err(); err != nil {
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keysLocked(s, s.convs, bucket, store.Key{}, noConv) {
		log := s.convs.get(k, s.commits)
		if log.head.Seq > 0 {
			n.Convs++
		}
		for _, m := range log.entries {
			if m != nil {
				n.Messages++
			}
		}
	}
	for _, k := range keysLocked(s, s.users, bucket, store.Key{}, noUser) {
		u := s.users.get(k, s.commits)
		if u.head != (store.UserHead{}) {
			n.Users++
		}
		n.Members += len(u.members)
		n.Devices += len(u.devices)
		n.Sessions += len(u.sessions)
		n.Pushes += len(u.pushes)
	}
	return n, nil
}

// Load implements store.Movable.
func (s *Store) Load(ctx context.Context, bucket store.BucketFence, r *store.BucketRows) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.rep.readOnly:
		return errReadOnly
	case s.buckets[bucket.ID] != (store.BucketState{Epoch: bucket.Epoch}):
		return &store.FenceError{Buckets: []uint32{bucket.ID}}
	}
	s.loadLocked(r)
	return s.replicateLocked(func(to *Store) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.loadLocked(r)
	})
}

func (s *Store) loadLocked(r *store.BucketRows) {
	at, oldest := s.commits+1, s.oldestLocked()
	conv := func(k store.Key) *convLog { return s.convs.edit(k, at, oldest, convLog.clone) }
	user := func(k store.Key) *userLog { return s.users.edit(k, at, oldest, userLog.clone) }
	for _, m := range r.Messages {
		conv(m.Conv.Clone()).load(m)
	}
	for _, c := range r.Convs {
		conv(c.Key.Clone()).head = c.Head.Clone()
	}
	for _, m := range r.Members {
		user(m.User.Clone()).members[strings.Clone(m.Conv)] = m.Member.Clone()
	}
	for _, p := range r.Pushes {
		user(p.User.Clone()).record(p.Push.Clone())
	}
	for _, c := range r.Users {
		u := user(c.Key.Clone())
		u.head = c.Head
		for _, d := range c.Devices {
			u.devices[strings.Clone(d.ID)] = d.Clone()
		}
		for _, x := range c.Sessions {
			u.sessions[slot{strings.Clone(x.Class), x.Slot}] = x.Clone()
		}
	}
	s.commits = at
}

// load puts an entry to its place, over an older state of it.
func (l *convLog) load(m *store.Message) {
	for uint64(len(l.entries)) < m.Seq {
		l.entries = append(l.entries, nil)
	}
	l.entries = slices.Clone(l.entries)
	l.entries[m.Seq-1] = m.Clone()
	if m.ClientMsgID != "" {
		c := m.Clone()
		l.keys[dedupeKey{c.Sender, c.ClientMsgID}] = m.Seq
	}
}

// Purge implements store.Movable. It deletes whole conversations and users.
func (s *Store) Purge(ctx context.Context, bucket uint32, limit int) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.rep.readOnly:
		return false, errReadOnly
	case s.buckets[bucket].Open:
		return false, &store.FenceError{Buckets: []uint32{bucket}}
	}
	more = s.purgeLocked(bucket, limit)
	return more, s.replicateLocked(func(to *Store) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.purgeLocked(bucket, limit)
	})
}

func (s *Store) purgeLocked(bucket uint32, limit int) (more bool) {
	at, oldest := s.commits+1, s.oldestLocked()
	convs := keysLocked(s, s.convs, bucket, store.Key{}, noConv)
	users := keysLocked(s, s.users, bucket, store.Key{}, noUser)
	for _, k := range first(convs, limit) {
		*s.convs.edit(k, at, oldest, convLog.clone) = convLog{keys: make(map[dedupeKey]uint64)}
	}
	for _, k := range first(users, limit) {
		*s.users.edit(k, at, oldest, userLog.clone) = userLog{}
	}
	s.commits = at
	return limit > 0 && max(len(convs), len(users)) > limit
}
