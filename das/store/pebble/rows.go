package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"hongyan/das/store"
	"hongyan/internal/conv"
)

// rowReader reads rows through one iterator, so what it shows is one snapshot: that of
// the first read. Keys and values it hands to callbacks are valid during the call only.
type rowReader struct {
	db     *pebble.DB
	iter   *pebble.Iterator
	lo, hi []byte // bounds of the read at hand, reused
}

func (r *rowReader) open() (err error) {
	if r.iter == nil {
		r.iter, err = r.db.NewIter(&pebble.IterOptions{KeyTypes: pebble.IterKeyTypePointsOnly, UseL6Filters: true})
	}
	return err
}

func (r *rowReader) close() error {
	if r.iter == nil {
		return nil
	}
	err := r.iter.Close()
	r.iter = nil
	return err
}

// get returns the value of key, valid until the next read, or ErrNotFound.
func (r *rowReader) get(key []byte) ([]byte, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	r.iter.SetBounds(nil, nil)
	if !r.iter.SeekPrefixGE(key) {
		if err := r.iter.Error(); err != nil {
			return nil, err
		}
		return nil, store.ErrNotFound
	}
	return r.iter.ValueAndErr()
}

// errStop ends a scan without being an error of it.
var errStop = fmt.Errorf("stop")

// scan calls each for the rows with lo <= key < hi, in the order of their keys or, with
// back, in the opposite one, until it returns an error. errStop ends the scan in peace.
func (r *rowReader) scan(lo, hi []byte, back bool, each func(key, val []byte) error) error {
	if err := r.open(); err != nil {
		return err
	}
	r.iter.SetBounds(lo, hi)
	start, next := r.iter.First, r.iter.Next
	if back {
		start, next = r.iter.Last, r.iter.Prev
	}
	for ok := start(); ok; ok = next() {
		val, err := r.iter.ValueAndErr()
		if err != nil {
			return err
		}
		if err := each(r.iter.Key(), val); err == errStop {
			return nil
		} else if err != nil {
			return fmt.Errorf("row %x: %w", r.iter.Key(), err)
		}
	}
	return r.iter.Error()
}

// under sets the bounds to all rows of a key in a table.
func (r *rowReader) under(table byte, k store.Key) (lo, hi []byte, prefix int) {
	r.lo = appendKey(r.lo[:0], table, k)
	r.hi = appendEnd(r.hi[:0], r.lo)
	return r.lo, r.hi, len(r.lo)
}

// seqsUnder sets the bounds to the rows from <= n <= to of a key in a table whose rows are
// numbered next.
func (r *rowReader) seqsUnder(table byte, k store.Key, from, to uint64) (lo, hi []byte, prefix int) {
	lo, hi, prefix = r.under(table, k)
	if to < 1<<64-1 {
		hi = binary.BigEndian.AppendUint64(append(hi[:0], lo...), to+1)
		r.hi = hi
	}
	lo = binary.BigEndian.AppendUint64(lo, from)
	r.lo = lo
	return lo, hi, prefix
}

// lastSeq is the seq of the last entry of a conversation, 0 if it has none.
func (r *rowReader) lastSeq(k store.Key) (seq uint64, err error) {
	lo, hi, prefix := r.under(tableMessage, k)
	err = r.scan(lo, hi, true, func(key, _ []byte) error {
		if len(key) != prefix+8 {
			return errCorrupt
		}
		seq = binary.BigEndian.Uint64(key[prefix:])
		return errStop
	})
	return seq, err
}

// messages calls each for entries of a conversation, in the order of seq or back.
func (r *rowReader) messages(k store.Key, from, to uint64, back bool, each func(*store.Message) error) error {
	lo, hi, prefix := r.seqsUnder(tableMessage, k, from, to)
	return r.scan(lo, hi, back, func(key, val []byte) error {
		if len(key) != prefix+8 {
			return errCorrupt
		}
		m, err := decodeMessage(val, k, binary.BigEndian.Uint64(key[prefix:]))
		if err != nil {
			return err
		}
		return each(m)
	})
}

func (r *rowReader) message(k store.Key, seq uint64) (*store.Message, error) {
	r.lo = appendMessageKey(r.lo[:0], k, seq)
	val, err := r.get(r.lo)
	if err != nil {
		return nil, err
	}
	m, err := decodeMessage(val, k, seq)
	return m, corrupt(r.lo, err)
}

// byClientID is the seq of the entry with a dedupe key, or ErrNotFound.
func (r *rowReader) byClientID(k store.Key, sender string, id clientID) (uint64, error) {
	r.lo = appendDedupeKey(r.lo[:0], k, sender, id)
	val, err := r.get(r.lo)
	if err != nil {
		return 0, err
	}
	seq, err := decodeSeq(val)
	return seq, corrupt(r.lo, err)
}

// head reads the side key of a conversation's head.
func (r *rowReader) head(k store.Key) (flags store.ConvFlags, own map[string]uint64, err error) {
	r.lo = appendKey(r.lo[:0], tableHead, k)
	val, err := r.get(r.lo)
	if err == store.ErrNotFound {
		return 0, nil, nil
	} else if err != nil {
		return 0, nil, err
	}
	flags, own, err = decodeHead(val)
	return flags, own, corrupt(r.lo, err)
}

// convHead puts the head of a conversation together: its last message tells seq, ord and
// its sender's own count; in a private log the other's count is the rest (R24). Entries
// of the platform in it are not countable, so the last one of a member tells.
func (r *rowReader) convHead(k store.Key) (head store.ConvHead, err error) {
	if head.Flags, head.Own, err = r.head(k); err != nil {
		return head, err
	}
	id, odd := conv.Parse(k.ID)
	err = r.messages(k, 0, 1<<64-1, true, func(m *store.Message) error {
		if head.Seq == 0 {
			head.Seq, head.Ord = m.Seq, m.Ord
		}
		switch {
		case odd != nil: // the side key holds the counts
		case id.Kind == conv.KindSystem && m.Sender == id.A:
			head.Own = map[string]uint64{id.A: m.OwnOrd}
		case id.Kind == conv.KindPrivate && id.Has(m.Sender):
			head.Own = map[string]uint64{m.Sender: m.OwnOrd, id.Peer(m.Sender): m.Ord - m.OwnOrd}
		default:
			return nil
		}
		return errStop
	})
	return head, err
}

func (r *rowReader) member(user store.Key, conv string) (store.Member, error) {
	r.lo = appendMemberKey(r.lo[:0], user, conv)
	val, err := r.get(r.lo)
	if err != nil {
		return store.Member{}, err
	}
	m, err := decodeMember(val, conv)
	return m, corrupt(r.lo, err)
}

func (r *rowReader) eachMember(user store.Key, each func(conv, val []byte) error) error {
	lo, hi, prefix := r.under(tableMember, user)
	return r.scan(lo, hi, false, func(key, val []byte) error { return each(key[prefix:], val) })
}

// woken is the woken version of a user, 0 if none was written.
func (r *rowReader) woken(user store.Key) (uint64, error) {
	r.lo = appendKey(r.lo[:0], tableWoken, user)
	val, err := r.get(r.lo)
	if err == store.ErrNotFound {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	n, err := decodeSeq(val)
	return n, corrupt(r.lo, err)
}

// device returns a device, or ErrNotFound.
func (r *rowReader) device(user store.Key, id string) (store.Device, error) {
	r.lo = appendDeviceKey(r.lo[:0], user, id)
	val, err := r.get(r.lo)
	if err != nil {
		return store.Device{}, err
	}
	d, err := decodeDevice(val, id)
	return d, corrupt(r.lo, err)
}

func (r *rowReader) sessions(user store.Key) (list []store.Session, err error) {
	lo, hi, prefix := r.under(tableSession, user)
	err = r.scan(lo, hi, false, func(key, val []byte) error {
		rest := key[prefix:]
		at := len(rest) - 5
		if at < 0 || rest[at] != 0 {
			return errCorrupt
		}
		s, err := decodeSession(val, string(rest[:at]), binary.BigEndian.Uint32(rest[at+1:]))
		list = append(list, s)
		return err
	})
	return list, err
}

// outbox calls each for the rows behind after that were created up to before, in key order.
func (r *rowReader) outbox(table byte, after store.RowKey, created store.Created, each func(k store.RowKey, val []byte) error) error {
	r.lo = append(appendRowKey(r.lo[:0], table, after), 0)
	if after == (store.RowKey{}) {
		r.lo = append(r.lo[:0], table)
	}
	r.hi = append(r.hi[:0], table+1)
	return r.scan(r.lo, r.hi, false, func(key, val []byte) error {
		at := len(key) - 9
		if at < 1 || key[at] != 0 {
			return errCorrupt
		}
		if ms, err := rowCreated(val); err != nil || !created.Has(ms) {
			return err
		}
		return each(store.RowKey{Owner: string(key[1:at]), N: binary.BigEndian.Uint64(key[at+1:])}, val)
	})
}

// hasRow tells whether there is an outbox row of this key.
func (r *rowReader) hasRow(table byte, k store.RowKey) (bool, error) {
	r.lo = appendRowKey(r.lo[:0], table, k)
	_, err := r.get(r.lo)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (r *rowReader) pushes(user store.Key, limit int) (list []store.Push, err error) {
	lo, hi, _ := r.under(tablePush, user)
	err = r.scan(lo, hi, false, func(_, val []byte) error {
		p, err := decodePush(val)
		if list = append(list, p); err == nil && len(list) == limit {
			return errStop
		}
		return err
	})
	return list, err
}

func (r *rowReader) devices(user store.Key) (list []store.Device, err error) {
	lo, hi, prefix := r.under(tableDevice, user)
	err = r.scan(lo, hi, false, func(key, val []byte) error {
		d, err := decodeDevice(val, string(key[prefix:]))
		list = append(list, d)
		return err
	})
	return list, err
}

func (r *rowReader) bucket(id uint32) (store.BucketState, error) {
	r.lo = appendBucketKey(r.lo[:0], id)
	val, err := r.get(r.lo)
	if err == store.ErrNotFound {
		return store.BucketState{Epoch: 1, Open: true}, nil
	} else if err != nil {
		return store.BucketState{}, err
	}
	b, err := decodeBucket(val)
	return b, corrupt(r.lo, err)
}

// members returns the rows of a user that match by version, decoding no others.
func (r *rowReader) members(user store.Key, match func(version uint64) bool, order func(a, b store.Member) int, limit int) ([]store.Member, error) {
	var list []store.Member
	err := r.eachMember(user, func(conv, val []byte) error {
		version, err := memberVersion(val)
		if err != nil || !match(version) {
			return err
		}
		m, err := decodeMember(val, string(conv))
		list = append(list, m)
		return err
	})
	slices.SortFunc(list, order)
	if limit > 0 && len(list) > limit {
		list = slices.Clip(list[:limit])
	}
	return list, err
}

func corrupt(key []byte, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("row %x: %w", key, err)
}
