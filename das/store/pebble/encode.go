package pebblestore

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"hongyan/das/store"
)

// encode writes the rows of a verified batch and moves the heads with them. After an
// error the heads of the batch must be forgotten.
func (s *Store) encode(rows *pebble.Batch, b *store.Batch) error {
	for _, step := range [...]func(*pebble.Batch, *store.Batch) error{
		s.encodeDone, // in front: a range never takes rows of its own batch
		s.encodeMessages, s.encodeRewrites, s.encodeHeads, s.encodeMembers, s.encodeOutbox,
		s.encodeSessions, s.encodeCursors, s.encodeWoken, s.encodePushes,
	} {
		if err := step(rows, b); err != nil {
			return err
		}
	}
	return nil
}

// encodeMessages writes one table after the other: Pebble finds the place of a key faster
// near that of the key before. (Sorting the keys as well costs what it gains.)
func (s *Store) encodeMessages(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i, m := range b.Messages {
		w.key = appendMessageKey(w.key[:0], m.Conv, m.Seq)
		w.val = appendMessage(w.val[:0], m, &w.ids[i])
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	for i, m := range b.Messages {
		if m.ClientMsgID == "" {
			continue
		}
		w.key = appendDedupeKey(w.key[:0], m.Conv, m.Sender, w.ids[i])
		w.val = appendSeq(w.val[:0], m.Seq)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	for _, m := range b.Messages {
		if m.ModSeq == 0 {
			continue
		}
		w.key = appendModifiedKey(w.key[:0], m.Conv, m.ModSeq, m.Seq)
		if err := rows.Set(w.key, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// encodeRewrites replaces entries and their place among the modified ones (R25).
func (s *Store) encodeRewrites(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for _, m := range b.Rewrites {
		old, err := s.target(b, m)
		if err != nil {
			return err
		}
		if old == nil || old.Sender != m.Sender || old.ClientMsgID != m.ClientMsgID {
			return invalid("rewrite of %v/%d does not fit the entry", m.Conv, m.Seq)
		}
		if old.ModSeq != 0 && old.ModSeq != m.ModSeq {
			w.key = appendModifiedKey(w.key[:0], m.Conv, old.ModSeq, m.Seq)
			if err := rows.Delete(w.key, nil); err != nil {
				return err
			}
		}
		if m.ModSeq != 0 {
			w.key = appendModifiedKey(w.key[:0], m.Conv, m.ModSeq, m.Seq)
			if err := rows.Set(w.key, nil, nil); err != nil {
				return err
			}
		}
		id := parseUUID(m.ClientMsgID)
		w.key = appendMessageKey(w.key[:0], m.Conv, m.Seq)
		w.val = appendMessage(w.val[:0], m, &id)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}

// target is the entry that a rewrite replaces: stored, or of this batch. Nil if there is none.
func (s *Store) target(b *store.Batch, m *store.Message) (*store.Message, error) {
	old, err := s.work.reader.message(m.Conv, m.Seq)
	if !errors.Is(err, store.ErrNotFound) {
		return old, err
	}
	for _, x := range b.Messages {
		if x.Seq == m.Seq && x.Conv == m.Conv {
			return x, nil
		}
	}
	return nil, nil
}

// encodeHeads moves the heads of conversations. Only what the last message cannot tell is
// written: flags, when they change, and the counts of logs with many senders.
func (s *Store) encodeHeads(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i, c := range w.convs {
		to := &b.Convs[i].To
		if c.sideOwn || c.flags != to.Flags {
			var own map[string]uint64
			if c.sideOwn {
				own = to.Own
			}
			w.key = appendKey(w.key[:0], tableHead, c.key)
			w.val = appendHead(w.val[:0], to.Flags, own)
			if err := rows.Set(w.key, w.val, nil); err != nil {
				return err
			}
		}
		c.seq, c.flags = to.Seq, to.Flags
	}
	return nil
}

// encodeMembers writes member rows, lifted to the positions that are stored, and moves the
// heads of users.
func (s *Store) encodeMembers(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i := range b.Members {
		m, u := b.Members[i].Member, w.users[i]
		p, ok, err := s.heads.row(u.key, u, m.Conv, &w.reader)
		if err != nil {
			return fmt.Errorf("read row (%v, %q): %w", u.key, m.Conv, err)
		}
		if ok {
			if p.version > u.from {
				return invalid("row (%q, %q) stands twice", u.key, m.Conv)
			}
			old := p.member()
			m.Raise(&old)
		}
		w.key = appendMemberKey(w.key[:0], u.key, m.Conv)
		w.val = appendMember(w.val[:0], &m)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
		s.heads.setRow(u, m.Conv, positionsOf(&m))
		u.version = u.to
	}
	return nil
}

func (s *Store) encodeOutbox(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i := range b.FanOut {
		w.key = appendRowKey(w.key[:0], tableFanOut, b.FanOut[i].RowKey)
		w.val = appendFanOut(w.val[:0], &b.FanOut[i])
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	for i := range b.Deliver {
		w.key = appendRowKey(w.key[:0], tableDeliver, b.Deliver[i].RowKey)
		w.val = appendDeliver(w.val[:0], &b.Deliver[i])
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) encodeDone(rows *pebble.Batch, b *store.Batch) error {
	for _, r := range b.FanOutDone {
		if err := s.encodeRange(rows, tableFanOut, r); err != nil {
			return err
		}
	}
	for _, r := range b.DeliverDone {
		if err := s.encodeRange(rows, tableDeliver, r); err != nil {
			return err
		}
	}
	return nil
}

// encodeRange deletes the outbox rows of one owner in a range (R07). Few rows are deleted
// one by one: a range tombstone slows every read in the table until it is compacted away.
func (s *Store) encodeRange(rows *pebble.Batch, table byte, r store.RowRange) error {
	w := &s.work
	const few = 32
	if r.To-r.From < few {
		for n := r.From; ; n++ {
			w.key = appendRowKey(w.key[:0], table, store.RowKey{Owner: r.Owner, N: n})
			if err := rows.Delete(w.key, nil); err != nil || n == r.To {
				return err
			}
		}
	}
	w.key = appendRowKey(w.key[:0], table, store.RowKey{Owner: r.Owner, N: r.From})
	w.val = append(appendRowKey(w.val[:0], table, store.RowKey{Owner: r.Owner, N: r.To}), 0)
	return rows.DeleteRange(w.key, w.val, nil)
}

// encodeSessions writes session rows, never with a lower epoch than they have.
func (s *Store) encodeSessions(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i := range b.Sessions {
		m := &b.Sessions[i]
		list, err := w.reader.sessions(m.User)
		if err != nil {
			return fmt.Errorf("read sessions of user %v: %w", m.User, err)
		}
		to := m.To
		for j := range list {
			if list[j].Class == to.Class && list[j].Slot == to.Slot {
				to.Epoch = max(to.Epoch, list[j].Epoch)
			}
		}
		w.key = appendSessionKey(w.key[:0], m.User, to.Class, to.Slot)
		w.val = appendSession(w.val[:0], &to)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}

// encodeCursors writes devices, their position lifted to that stored or in front (R18).
func (s *Store) encodeCursors(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i := range b.Cursors {
		r := &b.Cursors[i]
		d := r.Device
		old, err := w.reader.device(r.User, d.ID)
		if err == nil {
			d.Raise(&old)
		} else if !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("read device %q of user %v: %w", d.ID, r.User, err)
		}
		for j := range b.Cursors[:i] {
			if x := &b.Cursors[j]; x.ID == d.ID && x.User == r.User {
				d.Raise(&x.Device)
			}
		}
		w.key = appendDeviceKey(w.key[:0], r.User, d.ID)
		w.val = appendDevice(w.val[:0], &d)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) encodeWoken(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i, m := range b.Woken {
		n, err := w.reader.woken(m.User)
		if err != nil {
			return fmt.Errorf("read woken mark of user %v: %w", m.User, err)
		}
		for _, x := range b.Woken[:i+1] {
			if x.User == m.User {
				n = max(n, x.Version)
			}
		}
		w.key = appendKey(w.key[:0], tableWoken, m.User)
		w.val = appendSeq(w.val[:0], n)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) encodePushes(rows *pebble.Batch, b *store.Batch) error {
	w := &s.work
	for i := range b.Pushes {
		p := &b.Pushes[i]
		w.key = appendPushKey(w.key[:0], p.User, &p.Push)
		w.val = appendPush(w.val[:0], &p.Push)
		if err := rows.Set(w.key, w.val, nil); err != nil {
			return err
		}
	}
	return nil
}
