package sqlstore

import (
	"encoding/binary"
	"errors"
	"slices"

	"hongyan/das/store"
)

// What no statement looks into is one value: the counts of a head, the entries of an outbox
// row. Each begins with valueV1; numbers are uvarints, strings have their length before them.
const valueV1 = 1

var errCorrupt = errors.New("corrupt value in the database")

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendOwn encodes (sender, count), sorted by sender; nothing for nobody.
func appendOwn(dst []byte, own map[string]uint64) []byte {
	if len(own) == 0 {
		return dst
	}
	var few [4]string // on the stack: a personal log has two
	senders := few[:0]
	for sender := range own {
		senders = append(senders, sender)
	}
	slices.Sort(senders)
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(len(own)))
	for _, sender := range senders {
		dst = binary.AppendUvarint(appendString(dst, sender), own[sender])
	}
	return dst
}

func decodeOwn(val []byte) (map[string]uint64, error) {
	if len(val) == 0 {
		return nil, nil
	}
	r := newReader(val)
	own := make(map[string]uint64)
	for range r.count() {
		sender := r.str()
		own[sender] = r.uint()
	}
	return own, r.end()
}

// appendFanOut encodes entries: tenant, conv, epoch, last_seq, number of members, each: blocked,
// uid, last_ord, peer_read_seq.
func appendFanOut(dst []byte, entries []store.FanOutEntry) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(len(entries)))
	for i := range entries {
		e := &entries[i]
		dst = appendString(appendString(dst, e.Conv.Tenant), e.Conv.ID)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, e.Epoch), e.LastSeq)
		dst = binary.AppendUvarint(dst, uint64(len(e.Members)))
		for _, m := range e.Members {
			blocked := byte(0)
			if m.Blocked {
				blocked = 1
			}
			dst = appendString(append(dst, blocked), m.UID)
			dst = binary.AppendUvarint(dst, m.LastOrd)
			dst = binary.AppendUvarint(dst, m.PeerReadSeq)
		}
	}
	return dst
}

func decodeFanOut(val []byte) (entries []store.FanOutEntry, err error) {
	r := newReader(val)
	for range r.count() {
		e := store.FanOutEntry{Conv: store.Key{Tenant: r.str(), ID: r.str()}, Epoch: r.uint(), LastSeq: r.uint()}
		for range r.count() {
			e.Members = append(e.Members, store.FanOutMember{
				Blocked: r.byte() == 1, UID: r.str(), LastOrd: r.uint(), PeerReadSeq: r.uint(),
			})
		}
		entries = append(entries, e)
	}
	return entries, r.end()
}

// appendDeliver encodes entries: tenant, uid, version, conv, seq.
func appendDeliver(dst []byte, entries []store.DeliverEntry) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(len(entries)))
	for i := range entries {
		e := &entries[i]
		dst = appendString(appendString(dst, e.User.Tenant), e.User.ID)
		dst = binary.AppendUvarint(dst, e.Version)
		dst = binary.AppendUvarint(appendString(dst, e.Conv), e.Seq)
	}
	return dst
}

func decodeDeliver(val []byte) (entries []store.DeliverEntry, err error) {
	r := newReader(val)
	for range r.count() {
		entries = append(entries, store.DeliverEntry{
			User: store.Key{Tenant: r.str(), ID: r.str()}, Version: r.uint(), Conv: r.str(), Seq: r.uint(),
		})
	}
	return entries, r.end()
}

// reader decodes a value. After a failure it returns zeros; end tells.
type reader struct {
	b      []byte
	failed bool
}

func newReader(val []byte) *reader {
	r := &reader{b: val}
	if r.byte() != valueV1 {
		r.failed = true
	}
	return r
}

func (r *reader) byte() byte {
	if r.failed || len(r.b) == 0 {
		r.failed = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.failed || size <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads how many elements follow; each takes a byte at least.
func (r *reader) count() uint64 {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.failed = true
		return 0
	}
	return n
}

func (r *reader) str() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) end() error {
	if r.failed || len(r.b) > 0 {
		return errCorrupt
	}
	return nil
}
