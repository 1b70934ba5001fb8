package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A clock is off by what its middle says, and believed as exactly as the way there allows.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		name          string
		ahead, travel time.Duration // travel: of each way
		verdict       Verdict
	}{
		{"level", 0, time.Millisecond, OK},
		{"a little ahead", 300 * time.Millisecond, time.Millisecond, OK},
		{"behind", -700 * time.Millisecond, time.Millisecond, Warning},
		{"an hour ahead", time.Hour, time.Millisecond, Violation},
		{"far away, nothing is proved", 700 * time.Millisecond, time.Second, OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var k skews
				f := k.clock(t.Context(), "x", 0, func(context.Context) (time.Time, error) {
					time.Sleep(c.travel)
					there := time.Now().Add(c.ahead)
					time.Sleep(c.travel)
					return there, nil
				})
				if f.Verdict != c.verdict {
					t.Errorf("%s (%s)", f.Verdict, f.Found)
				}
			})
		})
	}
}

func TestClockThatCannotBeAskedIsNotChecked(t *testing.T) {
	var k skews
	f := k.clock(t.Context(), "x", 0, func(context.Context) (time.Time, error) { return time.Time{}, errors.New("away") })
	if f.Verdict != NotChecked || len(k.compare()) != 0 {
		t.Errorf("%+v", f)
	}
}

// Two servers may each be near this machine's clock and far from each other.
func TestClocksAreComparedWithEachOther(t *testing.T) {
	k := skews{list: []skew{{"a", 400 * time.Millisecond, 0}, {"b", -400 * time.Millisecond, 0}, {"c", 0, 0}}}
	f := k.compare()
	if len(f) != 1 || f[0].Verdict != Warning || !strings.Contains(f[0].Found, "800ms between b and a") {
		t.Errorf("%+v", f)
	}
}

func TestMachine(t *testing.T) {
	proc, sys := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(proc, "sys/fs/file-max", "5000\n")
	write(proc, "sys/net/core/somaxconn", "128\n")
	write(proc, "meminfo", "MemTotal: 1 kB\nSwapTotal:  2097152 kB\n")
	write(proc, "sys/vm/swappiness", "60\n")
	write(sys, "kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
	m := Machine{Connections: 1 << 40, DataDir: filepath.Join(t.TempDir(), "not", "made", "yet"), Proc: proc, Sys: sys}
	want := map[string]Verdict{
		"open files": Warning, "open files of the system": Violation, "backlog of new connections": Warning,
		"half-open connections": NotChecked, "swap": Warning, "transparent huge pages": Warning,
	}
	seen := map[string]bool{}
	for _, f := range m.examine() {
		seen[f.Check] = true
		if w, ok := want[f.Check]; ok && f.Verdict != w {
			t.Errorf("%s: %s (%s), want %s", f.Check, f.Verdict, f.Found, w)
		}
	}
	for _, check := range []string{"data directory", "room for data", "flush of the data directory"} {
		if !seen[check] {
			t.Errorf("%s was not looked at", check)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(m.DataDir))), ".doctor-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMembersOfAShard(t *testing.T) {
	verdicts := func(f []Finding) string {
		var s []string
		for _, x := range f {
			s = append(s, string(x.Verdict))
		}
		return strings.Join(s, ", ")
	}
	for _, c := range []struct {
		name             string
		require          bool
		writable, copies []string
		replicates       bool
		want             string
	}{
		{"a pair", true, []string{"a"}, []string{"b"}, true, "ok, ok"},
		{"alone", false, []string{"a"}, nil, false, "ok, warning"},
		{"alone, and asks for a replica", true, []string{"a"}, nil, false, "ok, violation"},
		{"its replica is not listed", true, []string{"a"}, nil, true, "ok"},
		{"two primaries", true, []string{"a", "b"}, []string{"c"}, true, "violation, ok"},
		{"no primary", true, nil, []string{"b"}, false, "violation, ok"},
	} {
		s := Shard{Name: "s", RequireReplica: c.require}
		if got := verdicts(s.members(c.writable, c.copies, c.replicates)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSpans(t *testing.T) {
	if got := spans([]uint32{0, 1, 2, 7, 9, 10}); got != "0-2, 7, 9-10" {
		t.Error(got)
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, []Finding{
		{"redis a:1", "version", "7.0", "6 or newer", OK, "not shown"},
		{"redis a:1", "nothing is evicted", "allkeys-lru", "noeviction", Violation, "CONFIG SET maxmemory-policy noeviction"},
		{"etcd b:2", "errors", strings.Repeat("x", 60), "none", NotChecked, ""},
	}); err != nil {
		t.Fatal(err)
	}
	want := `redis a:1
  ok           version             7.0                                           wanted: 6 or newer
  violation    nothing is evicted  allkeys-lru                                   wanted: noeviction
               -> CONFIG SET maxmemory-policy noeviction

etcd b:2
  not checked  errors              xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…  wanted: none
               xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx

1 ok, 0 warnings, 1 violations, 1 not checked
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// What a broker says of itself is not trusted to be lines.
func FuzzProperties(f *testing.F) {
	f.Add("a=b\nc=d")
	f.Add("=\n==\n")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(properties(text)); n > strings.Count(text, "=") {
			t.Errorf("%d properties out of %q", n, text)
		}
	})
}
