package chaos

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
)

// seed of this run: HONGYAN_TEST_SEED, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("HONGYAN_TEST_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano()) % 1_000_000
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("HONGYAN_TEST_SEED: %v", err)
	}
	return n
}

// length of the schedule: HONGYAN_TEST_CHAOS_TIME, 12 s.
func length(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("HONGYAN_TEST_CHAOS_TIME")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HONGYAN_TEST_CHAOS_TIME: %v", err)
	}
	return d
}

// processFaults kill and pause every process of a system.
func processFaults(s *cluster.System) (faults []Fault) {
	for _, name := range slices.Sorted(maps.Keys(s.Procs)) {
		faults = append(faults, Kill{s.Procs[name]}, Pause{s.Procs[name]})
	}
	return faults
}

func run(t *testing.T, s *cluster.System, faults []Fault) {
	t.Helper()
	n := seed(t)
	schedule := Random(n, length(t), faults)
	t.Logf("HONGYAN_TEST_SEED=%d HONGYAN_TEST_CHAOS_TIME=%v%v", n, length(t), schedule)
	l := Start(t, s, 4)
	if err := schedule.Run(t.Context()); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Second) // some are sent after all is healed
	l.Stop()
	r := l.Check()
	t.Logf("%d messages, %d acked, converged after %v", r.Messages, r.Acked, r.Converged.Round(time.Millisecond))
	if r.Unacked > 0 || len(r.Violations) > 0 {
		t.Errorf("seed %d: %d unacked\n%s", n, r.Unacked, strings.Join(r.Violations, "\n"))
	}
}

// TestChaosProcesses kills and pauses processes on embedded parts (P1, P2, P9, P10, P29).
func TestChaosProcesses(t *testing.T) {
	s := cluster.Processes(t)
	run(t, s, processFaults(s))
}

// TestChaosCluster does so to the whole cluster on real engines.
func TestChaosCluster(t *testing.T) {
	s := cluster.Full(t)
	run(t, s, processFaults(s))
}

// The oracle notices what it is there for.
func TestOracleNotices(t *testing.T) {
	dev := func(name string) *device {
		return &device{name: name, seqs: map[string]uint64{}, shown: map[string]int{}, acked: map[string]bool{}, failed: map[string]error{}}
	}
	for name, c := range map[string]struct {
		spoil func(w *writer, other *device)
		want  string
	}{
		"nothing": {func(*writer, *device) {}, ""},
		"lost":    {func(_ *writer, o *device) { delete(o.shown, "2"); delete(o.seqs, "2") }, "acked 2 was shown 0 times"},
		"doubled": {func(_ *writer, o *device) { o.shown["1"] = 2 }, "acked 1 was shown 2 times"},
		"unacked, doubled": {func(w *writer, o *device) {
			delete(w.acked, "3")
			o.shown["3"] = 2
		}, "unacked 3 was shown 2 times"},
		"two orders": {func(_ *writer, o *device) { o.seqs["1"], o.seqs["2"] = 2, 1 }, "elsewhere"},
		"inverted": {func(w *writer, o *device) {
			for _, d := range []*device{w.device, o} {
				d.seqs["1"], d.seqs["2"] = 2, 1
			}
		}, "an earlier one at"},
		"a hole":  {func(w *writer, o *device) { w.seqs["3"], o.seqs["3"] = 4, 4 }, "the last is at 4"},
		"foreign": {func(_ *writer, o *device) { o.shown["x"], o.seqs["x"] = 1, 4 }, "nobody's"},
	} {
		a, b := dev("a"), dev("b")
		w := &writer{device: a, sends: []string{"1", "2", "3"}}
		for i, id := range w.sends {
			for _, d := range []*device{a, b} {
				d.shown[id], d.seqs[id] = 1, uint64(i+1)
			}
			a.acked[id] = true
		}
		c.spoil(w, b)
		var r Report
		(&talk{conv: "p:a:b", writers: []*writer{w}, devices: []*device{a, b}}).look(&r)
		if got := strings.Join(r.Violations, "\n"); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A schedule is its seed's.
func TestScheduleIsItsSeeds(t *testing.T) {
	faults := []Fault{Func{Called: "a"}, Func{Called: "b"}, Func{Called: "c"}}
	one, two := Random(7, time.Minute, faults), Random(7, time.Minute, faults)
	if one.String() != two.String() || one.String() == Random(8, time.Minute, faults).String() {
		t.Errorf("%v\n%v", one, two)
	}
}
