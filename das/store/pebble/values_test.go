package pebblestore

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"hongyan/das/store"
	"hongyan/idl/im"
)

var fullMessage = store.Message{
	Sender: "alice", ClientMsgID: "0190a0b0-c0d0-7000-8000-abcdefabcdef", BodyHash: 1<<64 - 1, Kind: im.Kind_EVENT_EDIT,
	Text: "hi", Data: []byte{1, 0, 2}, CreatedMS: 1_700_000_000_000, Ord: 300, OwnOrd: 150, ModSeq: 7, Recalled: true, TargetSeq: 5,
}

// fuzz checks a decoder: whatever it takes it can encode and take again, to the same
// value, and it never panics.
func fuzz[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) []byte, examples ...T) {
	for _, x := range examples {
		val := encode(x)
		f.Add(val)
		got, err := decode(val)
		if err != nil || !reflect.DeepEqual(got, x) {
			f.Fatalf("%+v came back as %+v, %v", x, got, err)
		}
		if _, err := decode(append(val, 0)); err == nil {
			f.Fatalf("%+v: a byte too many was taken", x)
		}
		for n := range val {
			if _, err := decode(val[:n]); err == nil {
				f.Fatalf("%+v: the first %d of %d bytes were taken", x, n, len(val))
			}
		}
	}
	f.Fuzz(func(t *testing.T, val []byte) {
		x, err := decode(val)
		if err != nil {
			return
		}
		again, err := decode(encode(x))
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Fatalf("%+v came back as %+v, %v", x, again, err)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	text := fullMessage
	text.ClientMsgID = "0190A0B0-C0D0-7000-8000-ABCDEFABCDEF"
	fuzz(f, func(val []byte) (store.Message, error) {
		m, err := decodeMessage(val, store.Key{}, 0)
		return *m, err
	}, func(m store.Message) []byte {
		id := parseUUID(m.ClientMsgID)
		return appendMessage(nil, &m, &id)
	}, store.Message{}, fullMessage, text)
}

func FuzzDecodeMember(f *testing.F) {
	fuzz(f, func(val []byte) (store.Member, error) {
		m, err := decodeMember(val, "c")
		if err == nil {
			if version, err := memberVersion(val); err != nil || version != m.Version {
				f.Errorf("memberVersion: %d, %v, want %d", version, err, m.Version)
			}
		}
		return m, err
	}, func(m store.Member) []byte { return appendMember(nil, &m) },
		store.Member{Conv: "c"},
		store.Member{Conv: "c", Version: 1 << 50, LastSeq: 1, LastOrd: 2, ReadSeq: 3, ReadOrd: 4, PeerReadSeq: 5, Blocked: true, Muted: true, Remark: "r", UpdatedMS: 6},
		store.Member{Conv: "c", Pinned: true, Hidden: true})
}

func FuzzDecodeHead(f *testing.F) {
	type head struct {
		flags store.ConvFlags
		own   map[string]uint64
	}
	fuzz(f, func(val []byte) (head, error) {
		flags, own, err := decodeHead(val)
		return head{flags, own}, err
	}, func(h head) []byte { return appendHead(nil, h.flags, h.own) },
		head{}, head{3, map[string]uint64{"a": 1, "b": 300}})
}

func FuzzDecodeDevice(f *testing.F) {
	fuzz(f, func(val []byte) (store.Device, error) { return decodeDevice(val, "d") },
		func(d store.Device) []byte { return appendDevice(nil, &d) },
		store.Device{ID: "d"}, store.Device{ID: "d", Platform: "ios", PushToken: "t", Epoch: 2, Cursor: 3, SeenMS: 4})
}

func FuzzDecodeSession(f *testing.F) {
	fuzz(f, func(val []byte) (store.Session, error) { return decodeSession(val, "web", 3) },
		func(s store.Session) []byte { return appendSession(nil, &s) },
		store.Session{Class: "web", Slot: 3}, store.Session{Class: "web", Slot: 3, Device: "d", Epoch: 2, Counter: 3, Gateway: "g", SeenMS: 4})
}

func FuzzDecodePush(f *testing.F) {
	fuzz(f, decodePush, func(p store.Push) []byte { return appendPush(nil, &p) },
		store.Push{}, store.Push{Device: "d", Platform: "p", Conv: "c", Seq: 1, Title: "t", Body: "b", Collapse: "x", Badge: 2, AtMS: 3})
}

var rowKey = store.RowKey{Owner: "l", N: 9}

func FuzzDecodeFanOut(f *testing.F) {
	fuzz(f, func(val []byte) (store.FanOutRow, error) { return decodeFanOut(val, rowKey) },
		func(r store.FanOutRow) []byte { return appendFanOut(nil, &r) },
		store.FanOutRow{RowKey: rowKey},
		store.FanOutRow{RowKey: rowKey, CreatedMS: 5, Entries: []store.FanOutEntry{
			{Conv: store.Key{Tenant: "t", ID: "c"}, LastSeq: 1, Members: []store.FanOutMember{{UID: "a", LastOrd: 1, PeerReadSeq: 2, Blocked: true}, {}}}, {},
		}})
}

func FuzzDecodeDeliver(f *testing.F) {
	key := func(id string) store.Key { return store.Key{Tenant: "t", ID: id} }
	fuzz(f, func(val []byte) (store.DeliverRow, error) {
		r, err := decodeDeliver(val, rowKey)
		if err == nil {
			if at, err := rowCreated(val); err != nil || at != r.CreatedMS {
				f.Errorf("rowCreated: %d, %v, want %d", at, err, r.CreatedMS)
			}
		}
		return r, err
	}, func(r store.DeliverRow) []byte { return appendDeliver(nil, &r) },
		store.DeliverRow{RowKey: rowKey},
		store.DeliverRow{RowKey: rowKey, CreatedMS: 5, Entries: []store.DeliverEntry{
			{User: key("a"), Version: 1, Conv: "c", Seq: 4}, {User: key("b"), Version: 2, Conv: "c", Seq: 4},
			{User: key("b"), Version: 3, Conv: "d", Seq: 4}, {User: store.Key{ID: "b"}, Version: 3, Conv: "d", Seq: 5}, {},
		}})
}

func FuzzDecodeBucket(f *testing.F) {
	fuzz(f, decodeBucket, func(b store.BucketState) []byte { return appendBucket(nil, b) },
		store.BucketState{}, store.BucketState{Epoch: 7, Open: true})
}

func FuzzDecodeSeq(f *testing.F) {
	fuzz(f, decodeSeq, func(n uint64) []byte { return appendSeq(nil, n) }, 0, 1<<64-1)
}

// FuzzClientID: only the canonical form is packed, so every id comes back as it was, and
// different ids stay different.
func FuzzClientID(f *testing.F) {
	f.Add("0190a0b0-c0d0-7000-8000-abcdefabcdef", "0190A0B0-C0D0-7000-8000-ABCDEFABCDEF")
	f.Add("0190a0b0-c0d0-7000-8000-abcdefabcdeg", "")
	f.Add("0190a0b0c0d0-7000-8000-abcdefabcdef0", "\x01"+strings.Repeat("a", 16))
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := parseUUID(a), parseUUID(b)
		if x.isUUID && formatUUID(x.uuid[:]) != a {
			t.Errorf("%q came back as %q", a, formatUUID(x.uuid[:]))
		}
		if (a == b) != bytes.Equal(x.appendTo(nil), y.appendTo(nil)) {
			t.Errorf("%q and %q", a, b)
		}
	})
}

func TestMessageIsPackedSmall(t *testing.T) {
	m := fullMessage
	m.ModSeq, m.TargetSeq, m.Data = 0, 0, nil
	id := parseUUID(m.ClientMsgID)
	if n := len(appendMessage(nil, &m, &id)); n != 2+1+6+8+2+2+6+16+3 {
		t.Errorf("%d bytes around a text of 2", n)
	}
}

func TestKeysOfOneOwnerDoNotReachIntoAnothers(t *testing.T) {
	for _, prefix := range [][]byte{[]byte("m\x01a\x01b"), []byte("m\x01a\x02\xff\xff")} {
		end := appendEnd(nil, prefix)
		if bytes.Compare(append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, 20)...), end) >= 0 || bytes.HasPrefix(end, prefix) {
			t.Errorf("end of %q is %q", prefix, end)
		}
	}
}
