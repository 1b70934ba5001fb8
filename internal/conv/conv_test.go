package conv_test

import (
	"slices"
	"strings"
	"testing"

	"hongyan/idl/code"
	"hongyan/internal/conv"
)

func TestParse(t *testing.T) {
	cases := []struct {
		id, members, peer string // peer of bob
		refused           bool
	}{
		{id: "p:alice:bob", members: "alice bob", peer: "alice"},
		{id: "p:bob:x@y.z-1_", members: "bob x@y.z-1_", peer: "x@y.z-1_"},
		{id: "s:orders:bob", members: "bob", peer: "orders"},
		{id: "s:bob:alice", members: "alice"},
		{id: "p:Bob:alice", members: "Bob alice"},
		{id: "p:bob:alice", refused: true},
		{id: "p:bob:bob", refused: true},
		{id: "p:bob", refused: true},
		{id: "p::bob", refused: true},
		{id: "p:a:b:c", refused: true},
		{id: "p:a:b ", refused: true},
		{id: "p:a:\x00", refused: true},
		{id: "p:a:é", refused: true},
		{id: "q:a:b", refused: true},
		{id: "", refused: true},
		{id: "pp:a:b", refused: true},
		{id: "p:a:" + strings.Repeat("b", 64), members: "a " + strings.Repeat("b", 64)},
		{id: "p:a:" + strings.Repeat("b", 65), refused: true},
	}
	for _, c := range cases {
		t.Run(c.id, func(t *testing.T) {
			id, err := conv.Parse(c.id)
			if c.refused {
				if code.Of(err) != code.BadRequest {
					t.Fatalf("parsed to %+v, error %v", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(id.Members(), " "); got != c.members {
				t.Errorf("members %q, want %q", got, c.members)
			}
			if got := id.Peer("bob"); got != c.peer {
				t.Errorf("peer of bob %q, want %q", got, c.peer)
			}
			if id.Has("bob") != slices.Contains(id.Members(), "bob") {
				t.Errorf("Has and Members disagree about bob")
			}
			if id.String() != c.id {
				t.Errorf("String is %q", id)
			}
		})
	}
}

func TestMake(t *testing.T) {
	a, err := conv.Private("bob", "alice")
	b, _ := conv.Private("alice", "bob")
	if err != nil || a != b || a != "p:alice:bob" {
		t.Errorf("private: %q, %q, %v", a, b, err)
	}
	if s, err := conv.System("orders", "bob"); err != nil || s != "s:orders:bob" {
		t.Errorf("system: %q, %v", s, err)
	}
	for _, pair := range [][2]string{{"bob", "bob"}, {"", "bob"}, {"bob", "a:b"}} {
		if id, err := conv.Private(pair[0], pair[1]); code.Of(err) != code.BadRequest {
			t.Errorf("private %q made %q, %v", pair, id, err)
		}
	}
	if _, err := conv.System("or ders", "bob"); code.Of(err) != code.BadRequest {
		t.Errorf("channel with a space: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("p:alice:bob")
	f.Add("s:orders:bob")
	f.Add("p::")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := conv.Parse(s)
		if err == nil && id.String() != s {
			t.Errorf("%q became %q", s, id)
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { conv.Parse("p:alice:bob") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
