package sqlstore_test

import (
	"reflect"
	"testing"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
)

func TestValuesComeBack(t *testing.T) {
	own := map[string]uint64{"alice": 1 << 60, "b\x00\xff": 0, "": 3}
	if got, err := sqlstore.DecodeOwn(sqlstore.AppendOwn(nil, own)); err != nil || !reflect.DeepEqual(got, own) {
		t.Errorf("own: %v, %v", got, err)
	}
	fanOut := []store.FanOutEntry{{Conv: chat, LastSeq: 300, Members: []store.FanOutMember{
		{UID: "alice", LastOrd: 3, PeerReadSeq: 1 << 63, Blocked: true}, {UID: "bob"}}}, {Conv: alice}}
	if got, err := sqlstore.DecodeFanOut(sqlstore.AppendFanOut(nil, fanOut)); err != nil || !reflect.DeepEqual(got, fanOut) {
		t.Errorf("fan-out: %v, %v", got, err)
	}
	deliver := []store.DeliverEntry{{User: alice, Version: 7, Conv: chat.ID, Seq: 1<<64 - 1}, {}}
	if got, err := sqlstore.DecodeDeliver(sqlstore.AppendDeliver(nil, deliver)); err != nil || !reflect.DeepEqual(got, deliver) {
		t.Errorf("deliver: %v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sqlstore.AppendOwn(nil, map[string]uint64{"alice": 300}))
	f.Add(sqlstore.AppendFanOut(nil, []store.FanOutEntry{{Conv: chat, Members: []store.FanOutMember{{UID: "a"}}}}))
	f.Add(sqlstore.AppendDeliver(nil, []store.DeliverEntry{{User: alice, Version: 1 << 40}}))
	f.Fuzz(func(t *testing.T, val []byte) {
		if own, err := sqlstore.DecodeOwn(val); err == nil {
			if again, err := sqlstore.DecodeOwn(sqlstore.AppendOwn(nil, own)); err != nil || len(again) != len(own) {
				t.Errorf("own %v became %v, %v", own, again, err)
			}
		}
		if list, err := sqlstore.DecodeFanOut(val); err == nil {
			if again, err := sqlstore.DecodeFanOut(sqlstore.AppendFanOut(nil, list)); err != nil || !reflect.DeepEqual(again, list) {
				t.Errorf("fan-out %v became %v, %v", list, again, err)
			}
		}
		if list, err := sqlstore.DecodeDeliver(val); err == nil {
			if again, err := sqlstore.DecodeDeliver(sqlstore.AppendDeliver(nil, list)); err != nil || !reflect.DeepEqual(again, list) {
				t.Errorf("deliver %v became %v, %v", list, again, err)
			}
		}
	})
}

// unquote reads a literal as a server does.
func unquote(t *testing.T, lit string) string {
	if len(lit) < 2 || lit[0] != '\'' || lit[len(lit)-1] != '\'' {
		t.Fatalf("%q is no literal", lit)
	}
	var out []byte
	for i := 1; i < len(lit)-1; i++ {
		c := lit[i]
		switch {
		case c == '\'':
			t.Fatalf("%q ends early", lit)
		case c == '\\':
			if i++; i == len(lit)-1 {
				t.Fatalf("%q escapes its end", lit)
			}
			c = map[byte]byte{'0': 0, 'n': '\n', 'r': '\r', 'Z': 0x1a, '\'': '\'', '"': '"', '\\': '\\'}[lit[i]]
		}
		out = append(out, c)
	}
	return string(out)
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "\x00\n\r\x1a\"", "\xbf'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := unquote(t, sqlstore.Quote(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
