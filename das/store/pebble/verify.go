package pebblestore

import (
	"errors"
	"fmt"
	"slices"

	"hongyan/das/store"
)

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %s", store.ErrInvalid, fmt.Sprintf(format, a...))
}

// verify checks the rules of Batch and compares its beliefs with the heads. It changes
// nothing but the notes about this batch in the states.
func (s *Store) verify(b *store.Batch) error {
	if err := b.ValidateRest(); err != nil {
		return err
	}
	var f store.FenceError
	if err := s.verifyConvs(b, &f); err != nil {
		return err
	}
	if err := s.verifyUsers(b, &f); err != nil {
		return err
	}
	if err := s.verifySessions(b, &f); err != nil {
		return err
	}
	for _, x := range b.Buckets {
		if s.buckets[x.ID] != (store.BucketState{Epoch: x.Epoch, Open: true}) {
			f.Buckets = append(f.Buckets, x.ID)
		}
	}
	if err := s.verifyKeys(b, &f); err != nil {
		return err
	}
	if err := s.verifyOutbox(b, &f); err != nil {
		return err
	}
	if !f.Empty() {
		return &f
	}
	return nil
}

// verifyConvs checks the moves of conversations, and that their entries are all there.
func (s *Store) verifyConvs(b *store.Batch, f *store.FenceError) error {
	w := &s.work
	for i := range b.Convs {
		m := &b.Convs[i]
		if !m.Key.Valid() || m.To.Seq <= m.From {
			return invalid("conversation %q moves from %d to %d", m.Key, m.From, m.To.Seq)
		}
		c, err := s.heads.conv(m.Key, &w.reader)
		if err != nil {
			return fmt.Errorf("read head of conversation %v: %w", m.Key, err)
		}
		if c.batch == w.batch {
			return invalid("two moves of conversation %q", m.Key)
		}
		c.batch, c.next, c.to = w.batch, m.From+1, m.To.Seq
		if c.seq != m.From {
			f.Convs = append(f.Convs, m.Key)
		}
		w.convs = append(w.convs, c)
	}
	var c *convState
	for i, m := range b.Messages {
		if i == 0 || m.Conv != b.Messages[i-1].Conv {
			c = s.moved(m.Conv)
		}
		if c == nil || m.Seq != c.next || m.Seq > c.to {
			return invalid("entry %q/%d is not the next of a move", m.Conv, m.Seq)
		}
		if !store.ValidID(m.Sender) || !store.ValidID(m.ClientMsgID) {
			return invalid("sender or client_msg_id of entry %q/%d", m.Conv, m.Seq)
		}
		c.next++
	}
	for i, c := range w.convs {
		if c.next != c.to+1 {
			return invalid("conversation %q moves to %d, its entries end at %d", b.Convs[i].Key, c.to, c.next-1)
		}
	}
	for _, m := range b.Rewrites {
		if s.moved(m.Conv) == nil {
			return invalid("rewrite of %q/%d without a move", m.Conv, m.Seq)
		}
	}
	return nil
}

// moved returns the state of a conversation that the batch at hand moves, or nil.
func (s *Store) moved(k store.Key) *convState {
	if c, ok := s.heads.convs.get(k); ok && c.batch == s.work.batch {
		return c
	}
	return nil
}

// verifyUsers checks the moves of users, and the versions of their rows.
func (s *Store) verifyUsers(b *store.Batch, f *store.FenceError) error {
	w := &s.work
	for i := range b.Users {
		m := &b.Users[i]
		if !m.Key.Valid() || m.To < m.From {
			return invalid("user %q moves from %d to %d", m.Key, m.From, m.To)
		}
		u, err := s.heads.user(m.Key, &w.reader)
		if err != nil {
			return fmt.Errorf("read rows of user %v: %w", m.Key, err)
		}
		if u.batch == w.batch {
			return invalid("two moves of user %q", m.Key)
		}
		u.batch, u.from, u.to, u.highest, u.taken = w.batch, m.From, m.To, m.From, 0
		if u.version != m.From {
			f.Users = append(f.Users, m.Key)
		}
	}
	for i := range b.Members {
		m := &b.Members[i]
		u, ok := s.heads.users.get(m.User)
		if !ok || u.batch != w.batch || m.Version <= u.from || m.Version > u.to {
			return invalid("row (%q, %q) has version %d outside of its user's move", m.User, m.Conv, m.Version)
		}
		if m.Conv == "" || !store.ValidID(m.Conv) || !u.take(m.Version, b.Members[:i]) {
			return invalid("row (%q, %q): conversation or version %d stands twice", m.User, m.Conv, m.Version)
		}
		w.users = append(w.users, u)
	}
	for i := range b.Users {
		m := &b.Users[i]
		if u, ok := s.heads.users.get(m.Key); ok && u.highest != m.To {
			return invalid("user %q moves to %d, his rows end at %d", m.Key, m.To, u.highest)
		}
	}
	return nil
}

// take notes the version of a row of the batch, and returns false if one in front has it.
func (u *userState) take(version uint64, front []store.MemberRow) bool {
	u.highest = max(u.highest, version)
	n := version - u.from - 1
	if n >= 64 {
		return !slices.ContainsFunc(front, func(m store.MemberRow) bool { return m.Version == version && m.User == u.key })
	}
	free := u.taken&(1<<n) == 0
	u.taken |= 1 << n
	return free
}

func (s *Store) verifySessions(b *store.Batch, f *store.FenceError) error {
	for i := range b.Sessions {
		m := &b.Sessions[i]
		list, err := s.work.reader.sessions(m.User)
		if err != nil {
			return fmt.Errorf("read sessions of user %v: %w", m.User, err)
		}
		var highest uint64
		for j := range list {
			highest = max(highest, list[j].Epoch)
		}
		if highest != m.From && !slices.Contains(f.Sessions, m.User) {
			f.Sessions = append(f.Sessions, m.User)
		}
	}
	return nil
}

// verifyKeys looks up the dedupe keys that their writer could not vouch for, on disk and
// in front of them in the batch. Of the others it trusts the writer, who holds the recent
// keys of each conversation: a look-up for each message would cost more than writing it.
func (s *Store) verifyKeys(b *store.Batch, f *store.FenceError) error {
	w := &s.work
	first := slices.IndexFunc(b.Messages, func(m *store.Message) bool { return m.MayRepeat })
	for i, m := range b.Messages {
		w.ids = append(w.ids, parseUUID(m.ClientMsgID))
		if first < 0 || m.ClientMsgID == "" {
			continue
		}
		if w.seen == nil {
			w.seen = make(map[dedupeKey]struct{})
		}
		k := dedupeKey{m.Conv, m.Sender, m.ClientMsgID}
		if m.MayRepeat {
			repeated, err := s.isStored(m, w.ids[i])
			if err != nil {
				return fmt.Errorf("look up client_msg_id %q in %v: %w", m.ClientMsgID, m.Conv, err)
			}
			if _, inFront := w.seen[k]; inFront || repeated {
				f.Duplicates = append(f.Duplicates, m)
			}
		}
		w.seen[k] = struct{}{}
	}
	return nil
}

// verifyOutbox names rows whose number is taken.
func (s *Store) verifyOutbox(b *store.Batch, f *store.FenceError) error {
	for i := range b.FanOut {
		if err := s.verifyRow(tableFanOut, b.FanOut[i].RowKey, b.FanOutDone, &f.FanOut); err != nil {
			return err
		}
	}
	for i := range b.Deliver {
		if err := s.verifyRow(tableDeliver, b.Deliver[i].RowKey, b.DeliverDone, &f.Deliver); err != nil {
			return err
		}
	}
	return nil
}

// verifyRow adds the key to taken if its row is stored and not deleted by this batch.
func (s *Store) verifyRow(table byte, k store.RowKey, done []store.RowRange, taken *[]store.RowKey) error {
	if store.Covered(k, done) {
		return nil
	}
	stored, err := s.work.reader.hasRow(table, k)
	if stored {
		*taken = append(*taken, k)
	}
	return err
}

func (s *Store) isStored(m *store.Message, id clientID) (bool, error) {
	_, err := s.work.reader.byClientID(m.Conv, m.Sender, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
