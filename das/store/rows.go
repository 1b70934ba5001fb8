package store

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Raise lifts the positions of m to those of old where old is ahead. LastOrd goes with
// LastSeq and ReadOrd with ReadSeq; the settings stay as they are in m. Positions of another
// epoch of the log are not comparable one by one: those of the higher LastEpoch win (R18).
func (m *Member) Raise(old *Member) {
	m.Version = max(m.Version, old.Version)
	m.BackEpoch = max(m.BackEpoch, old.BackEpoch)
	if old.LastEpoch < m.LastEpoch {
		return
	}
	newer := old.LastEpoch > m.LastEpoch
	m.LastEpoch = old.LastEpoch
	if newer || old.LastSeq > m.LastSeq {
		m.LastSeq, m.LastOrd = old.LastSeq, old.LastOrd
	}
	if newer || old.ReadSeq > m.ReadSeq {
		m.ReadSeq, m.ReadOrd = old.ReadSeq, old.ReadOrd
	}
	if newer || old.PeerReadSeq > m.PeerReadSeq {
		m.PeerReadSeq = old.PeerReadSeq
	}
}

// Reached tells that the row knows the log up to seq of an epoch, or that its log has begun
// a later epoch.
func (m *Member) Reached(epoch, seq uint64) bool {
	return epoch < m.LastEpoch || epoch == m.LastEpoch && seq <= m.LastSeq
}

// Raise lifts the position of d to that of old where old is ahead: positions compare as
// pairs (Epoch, Cursor) (R18).
func (d *Device) Raise(old *Device) {
	if old.Epoch > d.Epoch || old.Epoch == d.Epoch && old.Cursor > d.Cursor {
		d.Epoch, d.Cursor = old.Epoch, old.Cursor
	}
}

// Clone returns a copy that shares no memory with k, not even its strings, which may
// alias a receive buffer.
func (k Key) Clone() Key {
	return Key{strings.Clone(k.Tenant), strings.Clone(k.ID)}
}

// Clone returns a copy that shares no memory with m.
func (m *Message) Clone() *Message {
	c := *m
	c.Conv = m.Conv.Clone()
	c.Sender, c.ClientMsgID, c.Text = strings.Clone(m.Sender), strings.Clone(m.ClientMsgID), strings.Clone(m.Text)
	c.Data = bytes.Clone(m.Data)
	c.MayRepeat = false
	return &c
}

// Clone returns a copy that shares no memory with h.
func (h ConvHead) Clone() ConvHead {
	h.Own = maps.Clone(h.Own)
	return h
}

// Clone returns a copy that shares no memory with m.
func (m Member) Clone() Member {
	m.Conv, m.Remark = strings.Clone(m.Conv), strings.Clone(m.Remark)
	return m
}

// Clone returns a copy that shares no memory with d.
func (d Device) Clone() Device {
	d.ID, d.Platform, d.PushToken = strings.Clone(d.ID), strings.Clone(d.Platform), strings.Clone(d.PushToken)
	return d
}

// Clone returns a copy that shares no memory with s.
func (s Session) Clone() Session {
	s.Class, s.Device, s.Gateway = strings.Clone(s.Class), strings.Clone(s.Device), strings.Clone(s.Gateway)
	return s
}

// Clone returns a copy that shares no memory with r.
func (r FanOutRow) Clone() FanOutRow {
	r.Owner = strings.Clone(r.Owner)
	r.Entries = slices.Clone(r.Entries)
	for i := range r.Entries {
		e := &r.Entries[i]
		e.Conv = e.Conv.Clone()
		e.Members = slices.Clone(e.Members)
		for j := range e.Members {
			e.Members[j].UID = strings.Clone(e.Members[j].UID)
		}
	}
	return r
}

// Clone returns a copy that shares no memory with r.
func (r DeliverRow) Clone() DeliverRow {
	r.Owner = strings.Clone(r.Owner)
	r.Entries = slices.Clone(r.Entries)
	for i := range r.Entries {
		r.Entries[i].User = r.Entries[i].User.Clone()
		r.Entries[i].Conv = strings.Clone(r.Entries[i].Conv)
	}
	return r
}

// Clone returns a copy that shares no memory with p.
func (p Push) Clone() Push {
	for _, s := range []*string{&p.Device, &p.Platform, &p.Conv, &p.Title, &p.Body, &p.Collapse} {
		*s = strings.Clone(*s)
	}
	return p
}

// Clone returns a copy that shares no memory with b.
func (b *Batch) Clone() *Batch {
	c := *b
	c.Buckets, c.Users = slices.Clone(b.Buckets), slices.Clone(b.Users)
	for i := range c.Users {
		c.Users[i].Key = c.Users[i].Key.Clone()
	}
	c.Convs = cloned(b.Convs, func(m ConvMove) ConvMove { return ConvMove{m.Key.Clone(), m.From, m.To.Clone()} })
	c.Messages, c.Rewrites = cloned(b.Messages, (*Message).cloneWhole), cloned(b.Rewrites, (*Message).cloneWhole)
	c.Members = cloned(b.Members, func(r MemberRow) MemberRow { return MemberRow{r.User.Clone(), r.Member.Clone()} })
	c.FanOut, c.Deliver = cloned(b.FanOut, FanOutRow.Clone), cloned(b.Deliver, DeliverRow.Clone)
	c.Sessions = cloned(b.Sessions, func(m SessionMove) SessionMove { return SessionMove{m.User.Clone(), m.From, m.To.Clone()} })
	c.Pushes = cloned(b.Pushes, func(r PushRow) PushRow { return PushRow{r.User.Clone(), r.Push.Clone()} })
	c.FanOutDone, c.DeliverDone = cloned(b.FanOutDone, RowRange.clone), cloned(b.DeliverDone, RowRange.clone)
	c.Cursors = cloned(b.Cursors, func(r DeviceRow) DeviceRow { return DeviceRow{r.User.Clone(), r.Device.Clone()} })
	c.Woken = cloned(b.Woken, func(m WokenMark) WokenMark { return WokenMark{m.User.Clone(), m.Version} })
	return &c
}

func (m *Message) cloneWhole() *Message {
	c := m.Clone()
	c.MayRepeat = m.MayRepeat
	return c
}

func (r RowRange) clone() RowRange { return RowRange{strings.Clone(r.Owner), r.From, r.To} }

func cloned[T any](list []T, clone func(T) T) []T {
	if list == nil {
		return nil
	}
	out := make([]T, len(list))
	for i, v := range list {
		out[i] = clone(v)
	}
	return out
}
