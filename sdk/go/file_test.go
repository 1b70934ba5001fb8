package hongyan

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"hongyan/sdk/go/core"
)

func openFile(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func change(i int) *core.Change {
	conv := fmt.Sprint("c", i%7)
	return &core.Change{
		UID: "me", Counter: uint64(i), Cursor: &core.Cursor{Epoch: 1, Version: uint64(i)},
		Convs: []*core.Conv{{ID: conv, Last: uint64(i), Held: core.Ranges{{From: 1, To: uint64(i)}}, Refs: map[uint64]core.Ref{uint64(i): {ClientMsgID: "m"}}}},
		Put:   []*core.Queued{{Outgoing: core.Outgoing{ClientMsgID: fmt.Sprint("q", i), Data: []byte{0, 255}}, N: uint64(i)}},
		Drop:  []string{fmt.Sprint("q", i-1)},
	}
}

// TestFileSurvivesAKillAnywhere cuts the journal at every seventh byte: what remains is the state
// after some whole number of changes, and it can be written again.
func TestFileSurvivesAKillAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	f := openFile(t, path)
	var want []core.Saved
	var whole core.Saved
	whole.Apply(&core.Change{})
	want = append(want, *whole.Clone())
	for i := 1; i <= 4; i++ {
		if err := f.Save(change(i)); err != nil {
			t.Fatal(err)
		}
		whole.Apply(change(i))
		want = append(want, *whole.Clone())
	}
	f.Close()
	journal, _ := os.ReadFile(path)
	for cut := 0; cut <= len(journal); cut += 7 {
		torn := filepath.Join(t.TempDir(), "torn")
		_ = os.WriteFile(torn, journal[:cut], 0o600)
		f := openFile(t, torn)
		got, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		n := int(got.Cursor.Version)
		if !reflect.DeepEqual(*got, want[n]) {
			t.Fatalf("cut at %d: %+v, want %+v", cut, got, want[n])
		}
		if err := f.Save(change(n + 1)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if g := openFile(t, torn); int(g.saved.Cursor.Version) != n+1 {
			t.Fatalf("cut at %d: not written on", cut)
		} else {
			g.Close()
		}
	}
}

func TestFileIsRewrittenWhenItHasGrown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	f := openFile(t, path)
	big := make([]byte, 20<<10)
	var want core.Saved
	for i := 1; i <= 120; i++ {
		c := change(i)
		c.Put[0].Data = big
		if err := f.Save(c); err != nil {
			t.Fatal(err)
		}
		want.Apply(c)
	}
	if f.size > 2*compactAt {
		t.Fatalf("%d bytes", f.size)
	}
	f.Close()
	f = openFile(t, path)
	defer f.Close()
	if got, _ := f.Load(); !reflect.DeepEqual(*got, *want.Clone()) {
		t.Fatal("something was lost in the rewrite")
	}
}

func TestFileRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	f := openFile(t, path)
	if _, err := OpenFile(path); err == nil {
		t.Fatal("opened twice")
	}
	for i := 1; i <= 3; i++ {
		_ = f.Save(change(i))
	}
	f.Close()
	if err := f.Save(change(4)); err == nil {
		t.Fatal("saved after Close")
	}
	journal, _ := os.ReadFile(path)
	journal[20] ^= 1
	_ = os.WriteFile(path, journal, 0o600)
	if _, err := OpenFile(path); err == nil {
		t.Fatal("a damaged journal was opened")
	}
	if _, err := OpenFile(filepath.Join(path, "below")); err == nil {
		t.Fatal("a directory that is none")
	}
}

func FuzzFile(f *testing.F) {
	line, _ := appendLine(nil, change(1))
	f.Add(line)
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		path := filepath.Join(t.TempDir(), "device")
		_ = os.WriteFile(path, journal, 0o600)
		s, err := OpenFile(path)
		if err != nil {
			return
		}
		defer s.Close()
		saved, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := core.New(core.Config{Device: "d"}, saved); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(change(1)); err != nil {
			t.Fatal(err)
		}
	})
}
