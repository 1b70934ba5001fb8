package memory

import (
	"fmt"
	"maps"
	"slices"

	"hongyan/das/store"
)

// verifyLocked compares every belief of the batch with the newest rows.
func (s *Store) verifyLocked(b *store.Batch) *store.FenceError {
	f := &store.FenceError{}
	for _, x := range b.Buckets {
		if s.buckets[x.ID] != (store.BucketState{Epoch: x.Epoch, Open: true}) {
			f.Buckets = append(f.Buckets, x.ID)
		}
	}
	for _, x := range b.Convs {
		if s.convs.get(x.Key, s.commits).head.Seq != x.From {
			f.Convs = append(f.Convs, x.Key)
		}
	}
	for _, x := range b.Users {
		if s.users.get(x.Key, s.commits).head.Version != x.From && !s.opt.Unfenced {
			f.Users = append(f.Users, x.Key)
		}
	}
	for _, x := range b.Sessions {
		u := s.users.get(x.User, s.commits)
		if u.sessionEpoch() != x.From && !slices.Contains(f.Sessions, x.User) {
			f.Sessions = append(f.Sessions, x.User)
		}
	}
	f.Duplicates = s.duplicatesLocked(b)
	for _, r := range b.FanOut {
		if _, ok := s.fanOut.get(r.Owner, s.commits)[r.N]; ok && !store.Covered(r.RowKey, b.FanOutDone) {
			f.FanOut = append(f.FanOut, r.RowKey)
		}
	}
	for _, r := range b.Deliver {
		if _, ok := s.deliver.get(r.Owner, s.commits)[r.N]; ok && !store.Covered(r.RowKey, b.DeliverDone) {
			f.Deliver = append(f.Deliver, r.RowKey)
		}
	}
	return f
}

func (s *Store) duplicatesLocked(b *store.Batch) (dups []*store.Message) {
	type key struct {
		conv store.Key
		dedupeKey
	}
	inBatch := make(map[key]bool, len(b.Messages))
	for _, m := range b.Messages {
		if m.ClientMsgID == "" {
			continue
		}
		k := key{m.Conv, dedupeKey{m.Sender, m.ClientMsgID}}
		log := s.convs.get(m.Conv, s.commits)
		if inBatch[k] || log.find(m.Sender, m.ClientMsgID) != nil {
			stale := slices.ContainsFunc(b.Convs, func(x store.ConvMove) bool {
				return x.Key == m.Conv && x.From != log.head.Seq
			})
			if s.opt.Strict && !m.MayRepeat && !stale {
				panic(fmt.Sprintf("memory: entry %v/%d repeats (%s, %s), which its writer ruled out",
					m.Conv, m.Seq, m.Sender, m.ClientMsgID))
			}
			dups = append(dups, m)
		}
		inBatch[k] = true
	}
	return dups
}

// checkRewritesLocked refuses a rewrite of an entry that does not exist or that would
// change who sent it.
func (s *Store) checkRewritesLocked(b *store.Batch) error {
	for _, m := range b.Rewrites {
		var old *store.Message
		log := s.convs.get(m.Conv, s.commits)
		if m.Seq > 0 && m.Seq <= uint64(len(log.entries)) {
			old = log.entries[m.Seq-1]
		}
		for _, x := range b.Messages {
			if x.Conv == m.Conv && x.Seq == m.Seq {
				old = x
			}
		}
		if old == nil || old.Sender != m.Sender || old.ClientMsgID != m.ClientMsgID {
			return fmt.Errorf("%w: rewrite of %v/%d does not fit the entry", store.ErrInvalid, m.Conv, m.Seq)
		}
	}
	return nil
}

func (s *Store) applyLocked(b *store.Batch) {
	at, oldest := s.commits+1, s.oldestLocked()
	conv := func(k store.Key) *convLog { return s.convs.edit(k, at, oldest, convLog.clone) }
	user := func(k store.Key) *userLog { return s.users.edit(k, at, oldest, userLog.clone) }

	for _, x := range b.Convs {
		conv(x.Key.Clone()).head = x.To.Clone()
	}
	for _, m := range b.Messages {
		conv(m.Conv).append(m)
	}
	for _, m := range b.Rewrites {
		conv(m.Conv).rewrite(m)
	}
	for _, x := range b.Users {
		head := &user(x.Key.Clone()).head
		head.Version = max(head.Version, x.To)
	}
	for _, r := range b.Members {
		u, m := user(r.User), r.Member.Clone()
		if old, ok := u.members[m.Conv]; ok {
			m.Raise(&old)
		}
		u.members[m.Conv] = m
	}
	for _, x := range b.Sessions {
		u, to := user(x.User.Clone()), x.To.Clone()
		k := slot{to.Class, to.Slot}
		to.Epoch = max(to.Epoch, u.sessions[k].Epoch)
		u.sessions[k] = to
	}
	for _, r := range b.Cursors {
		u, d := user(r.User.Clone()), r.Device.Clone()
		if old, ok := u.devices[d.ID]; ok {
			d.Raise(&old)
		}
		u.devices[d.ID] = d
	}
	for _, w := range b.Woken {
		u := user(w.User.Clone())
		u.head.Woken = max(u.head.Woken, w.Version)
	}
	for _, p := range b.Pushes {
		user(p.User.Clone()).record(p.Push.Clone())
	}
	s.applyOutboxLocked(b, at, oldest)
	s.commits = at
}

func (s *Store) applyOutboxLocked(b *store.Batch, at, oldest uint64) {
	for _, r := range b.FanOutDone {
		finish(s.fanOut, r, at, oldest)
	}
	for _, r := range b.DeliverDone {
		finish(s.deliver, r, at, oldest)
	}
	for _, r := range b.FanOut {
		r = r.Clone()
		(*s.fanOut.edit(r.Owner, at, oldest, rows[store.FanOutRow].clone))[r.N] = r
	}
	for _, r := range b.Deliver {
		r = r.Clone()
		(*s.deliver.edit(r.Owner, at, oldest, rows[store.DeliverRow].clone))[r.N] = r
	}
}

func finish[R any](t table[string, rows[R]], done store.RowRange, at, oldest uint64) {
	if t[done.Owner] == nil {
		return
	}
	maps.DeleteFunc(*t.edit(done.Owner, at, oldest, rows[R].clone), func(n uint64, _ R) bool {
		return done.From <= n && n <= done.To
	})
}

// record keeps pushes ascending by time; the same push again is the same row.
func (u *userLog) record(p store.Push) {
	for i := range u.pushes {
		old := &u.pushes[i]
		if old.AtMS == p.AtMS && old.Device == p.Device && old.Conv == p.Conv && old.Seq == p.Seq {
			*old = p
			return
		}
	}
	i := len(u.pushes)
	for i > 0 && u.pushes[i-1].AtMS > p.AtMS {
		i--
	}
	u.pushes = slices.Insert(u.pushes, i, p)
}
