package pebblestore

import (
	"encoding/binary"

	"hongyan/das/store"
)

// appendDevice encodes a device; its id is in the key.
func appendDevice(dst []byte, d *store.Device) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), d.Epoch)
	dst = binary.AppendUvarint(dst, d.Cursor)
	dst = binary.AppendUvarint(dst, uint64(d.SeenMS))
	return appendText(appendText(dst, d.Platform), d.PushToken)
}

func decodeDevice(val []byte, id string) (store.Device, error) {
	r := newReader(val, valueV1)
	d := store.Device{ID: id, Epoch: r.uvarint(), Cursor: r.uvarint(), SeenMS: int64(r.uvarint())}
	d.Platform, d.PushToken = r.text(), r.text()
	return d, r.end()
}

// appendSession encodes a session; class and slot are in the key.
func appendSession(dst []byte, s *store.Session) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), s.Epoch)
	dst = binary.AppendUvarint(dst, s.Counter)
	dst = binary.AppendUvarint(dst, uint64(s.SeenMS))
	return appendText(appendText(dst, s.Device), s.Gateway)
}

func decodeSession(val []byte, class string, slot uint32) (store.Session, error) {
	r := newReader(val, valueV1)
	s := store.Session{Class: class, Slot: slot, Epoch: r.uvarint(), Counter: r.uvarint(), SeenMS: int64(r.uvarint())}
	s.Device, s.Gateway = r.text(), r.text()
	return s, r.end()
}

func appendPush(dst []byte, p *store.Push) []byte {
	dst = append(dst, valueV1)
	for _, s := range [...]string{p.Device, p.Platform, p.Conv, p.Title, p.Body, p.Collapse} {
		dst = appendText(dst, s)
	}
	dst = binary.AppendUvarint(dst, p.Seq)
	dst = binary.AppendUvarint(dst, p.Badge)
	return binary.AppendUvarint(dst, uint64(p.AtMS))
}

func decodePush(val []byte) (store.Push, error) {
	r := newReader(val, valueV1)
	var p store.Push
	for _, s := range [...]*string{&p.Device, &p.Platform, &p.Conv, &p.Title, &p.Body, &p.Collapse} {
		*s = r.text()
	}
	p.Seq, p.Badge, p.AtMS = r.uvarint(), r.uvarint(), int64(r.uvarint())
	return p, r.end()
}

// appendFanOut encodes a row; its key holds owner and n.
//
//	version, created_ms, number of entries,
//	  each: tenant, conv, epoch, last_seq, number of members, each: blocked, uid, last_ord, peer_read_seq
func appendFanOut(dst []byte, r *store.FanOutRow) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(r.CreatedMS))
	dst = binary.AppendUvarint(dst, uint64(len(r.Entries)))
	for i := range r.Entries {
		e := &r.Entries[i]
		dst = appendText(appendText(dst, e.Conv.Tenant), e.Conv.ID)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, e.Epoch), e.LastSeq)
		dst = binary.AppendUvarint(dst, uint64(len(e.Members)))
		for j := range e.Members {
			m := &e.Members[j]
			blocked := byte(0)
			if m.Blocked {
				blocked = 1
			}
			dst = appendText(append(dst, blocked), m.UID)
			dst = binary.AppendUvarint(dst, m.LastOrd)
			dst = binary.AppendUvarint(dst, m.PeerReadSeq)
		}
	}
	return dst
}

func decodeFanOut(val []byte, key store.RowKey) (store.FanOutRow, error) {
	r := newReader(val, valueV1)
	row := store.FanOutRow{RowKey: key, CreatedMS: int64(r.uvarint())}
	for range r.count() {
		e := store.FanOutEntry{Conv: store.Key{Tenant: r.text(), ID: r.text()}, Epoch: r.uvarint(), LastSeq: r.uvarint()}
		for range r.count() {
			m := store.FanOutMember{Blocked: r.byte() == 1, UID: r.text()}
			m.LastOrd, m.PeerReadSeq = r.uvarint(), r.uvarint()
			e.Members = append(e.Members, m)
		}
		if row.Entries = append(row.Entries, e); r.failed {
			break
		}
	}
	return row, r.end()
}

// What an entry of a delivery row shares with the one before it: the members of a
// conversation stand together.
const (
	sameTenant = 1 << iota
	sameConv
	sameSeq
)

// appendDeliver encodes a row; its key holds owner and n.
//
//	version, created_ms, number of entries,
//	  each: same, [tenant], uid, version, [conv], [seq]
func appendDeliver(dst []byte, r *store.DeliverRow) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(r.CreatedMS))
	dst = binary.AppendUvarint(dst, uint64(len(r.Entries)))
	var before store.DeliverEntry
	for i := range r.Entries {
		e := &r.Entries[i]
		at, same := len(dst), byte(0)
		dst = append(dst, 0)
		if e.User.Tenant == before.User.Tenant {
			same |= sameTenant
		} else {
			dst = appendText(dst, e.User.Tenant)
		}
		dst = binary.AppendUvarint(appendText(dst, e.User.ID), e.Version)
		if e.Conv == before.Conv {
			same |= sameConv
		} else {
			dst = appendText(dst, e.Conv)
		}
		if e.Seq == before.Seq {
			same |= sameSeq
		} else {
			dst = binary.AppendUvarint(dst, e.Seq)
		}
		dst[at], before = same, *e
	}
	return dst
}

func decodeDeliver(val []byte, key store.RowKey) (store.DeliverRow, error) {
	r := newReader(val, valueV1)
	row := store.DeliverRow{RowKey: key, CreatedMS: int64(r.uvarint())}
	var e store.DeliverEntry
	for range r.count() {
		same := r.byte()
		if same&sameTenant == 0 {
			e.User.Tenant = r.text()
		}
		e.User.ID, e.Version = r.text(), r.uvarint()
		if same&sameConv == 0 {
			e.Conv = r.text()
		}
		if same&sameSeq == 0 {
			e.Seq = r.uvarint()
		}
		if row.Entries = append(row.Entries, e); r.failed {
			break
		}
	}
	return row, r.end()
}

// rowCreated reads created_ms of an encoded outbox row and nothing else of it.
func rowCreated(val []byte) (int64, error) {
	n, err := memberVersion(val) // it stands first in both
	return int64(n), err
}
