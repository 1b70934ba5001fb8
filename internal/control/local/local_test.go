package local

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/control"
	"hongyan/internal/control/controltest"
)

func TestSuite(t *testing.T) {
	controltest.Run(t, func(t *testing.T) control.Center { return open(t, nil) })
}

func open(t *testing.T, members map[string]control.Members) *Center {
	t.Helper()
	c, err := New(members)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestListedInstancesStayListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, map[string]control.Members{"logic": {Slots: 3, Instances: []control.Instance{{Slot: 1, Addr: "b"}, {Slot: 0, Addr: "a"}}}})
		defer c.Close()
		ctx, die := context.WithCancel(t.Context())
		in, err := c.Register(ctx, control.Instance{Tier: "logic", Slot: -1, Addr: "b", Boot: "x"})
		if err != nil || in.Slot != 1 {
			t.Fatalf("registered as %+v, %v", in, err)
		}
		m, _ := c.Members(t.Context(), "logic")
		if m.Slots != 3 || m.Instances[0].Addr != "a" || m.Instances[1].Boot != "x" {
			t.Fatalf("while b lives: %+v", m)
		}
		die()
		synctest.Wait()
		m, _ = c.Members(t.Context(), "logic")
		if len(m.Instances) != 2 || m.Instances[1].Boot != "" || m.Instances[1].Addr != "b" {
			t.Fatalf("after b died: %+v", m)
		}
	})
}

func TestBadListsAreRefused(t *testing.T) {
	for name, m := range map[string]control.Members{
		"two in a slot":     {Instances: []control.Instance{{Addr: "a"}, {Addr: "b"}}},
		"address twice":     {Instances: []control.Instance{{Addr: "a"}, {Slot: 1, Addr: "a"}}},
		"negative slots":    {Slots: -1},
		"too many slots":    {Slots: control.MaxSlots + 1},
		"slot missing":      {Instances: []control.Instance{{Slot: -1, Addr: "a"}}},
		"of another tier":   {Instances: []control.Instance{{Tier: "das", Addr: "a"}}},
		"without addresses": {Instances: []control.Instance{{}}},
	} {
		if _, err := New(map[string]control.Members{"logic": m}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

const twoLogics = "logic: [\"a:1\", \"b:1\"]\n"

func TestFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "members.yaml")
		var logged bytes.Buffer
		write(t, path, twoLogics)
		f, err := Open(FileConfig{Path: path, Interval: time.Second}, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		var seen []int
		go f.Watch(ctx, "logic", func(m control.Members) { seen = append(seen, m.Slots) })

		step := func(content string) { write(t, path, content); time.Sleep(3500 * time.Millisecond); synctest.Wait() }
		step("logic:\n  slots: 4\n  instances: [{slot: 0, addr: \"a:1\"}, {slot: 3, addr: \"d:1\"}]\n")
		step("logic: [\"a:1\", \"a:1\"]\n") // refused: the four slots stay
		if f.Err() == nil || strings.Count(logged.String(), "refused") != 1 {
			t.Errorf("bad content: Err %v, logged %q, want one report", f.Err(), logged.String())
		}
		step("")
		step(`{"logic":{"slots":5}}`)
		if f.Err() != nil {
			t.Error(f.Err())
		}
		if len(seen) != 3 || seen[0] != 2 || seen[1] != 4 || seen[2] != 5 {
			t.Errorf("slots seen by a watcher: %v, want 2 4 5", seen)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestStartFromSnapshot(t *testing.T) { // JM-05
	dir := t.TempDir()
	cfg := FileConfig{Path: filepath.Join(dir, "members.yaml"), Snapshot: filepath.Join(dir, "snapshot.json"), Interval: time.Second}
	write(t, cfg.Path, twoLogics)
	f, err := Open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()

	for name, spoil := range map[string]func(){
		"file missing": func() { os.Remove(cfg.Path) },
		"file bad":     func() { write(t, cfg.Path, "logic: {slots: many}") },
	} {
		spoil()
		f, err := Open(cfg, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m, _ := f.Members(t.Context(), "logic"); m.Slots != 2 || m.Instances[1].Addr != "b:1" {
			t.Errorf("%s: members %+v", name, m)
		}
		if f.Err() == nil {
			t.Errorf("%s: not reported", name)
		}
		f.Close()
	}

	write(t, cfg.Snapshot, "{")
	if _, err := Open(cfg, nil); err == nil {
		t.Error("opened with neither file nor snapshot")
	}
}

func TestDecodeFileErrors(t *testing.T) {
	for content, want := range map[string]string{
		"":                                    "empty",
		"logic: 7":                            "",
		"logic: {slotz: 3}":                   "slotz",
		"logic: {instances: [{addr: \"a\"}]}": "slot is missing",
		"logic: {instances: [{slot: 0, addr: a, port: 1}]}": "port",
		"logic: [\"a\", \"\"]":                              "address is empty",
		"logic: {slots: 100000}":                            "slots",
		"\x00":                                              "",
	} {
		_, err := DecodeFile([]byte(content))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", content, err, want)
		}
	}
}

func FuzzDecodeFile(f *testing.F) {
	f.Add([]byte(twoLogics))
	f.Add([]byte("logic: {slots: 2, instances: [{slot: 1, addr: x}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tiers, err := DecodeFile(data)
		if err != nil {
			return
		}
		if _, err := New(tiers); err != nil {
			t.Fatalf("decoded but refused: %v", err)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add([]byte(`{"logic":{"Slots":2,"Instances":[{"tier":"logic","slot":1,"addr":"x"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tiers, err := control.DecodeSnapshot(data)
		if err != nil {
			return
		}
		if _, err := New(tiers); err != nil {
			t.Fatalf("decoded but refused: %v", err)
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
