package chaos

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
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
	l := load.Start(t, s, 4)
	if err := schedule.Run(t.Context()); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Second) // some are sent after all is healed
	l.Finish()
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

// A schedule is its seed's.
func TestScheduleIsItsSeeds(t *testing.T) {
	faults := []Fault{Func{Called: "a"}, Func{Called: "b"}, Func{Called: "c"}}
	one, two := Random(7, time.Minute, faults), Random(7, time.Minute, faults)
	if one.String() != two.String() || one.String() == Random(8, time.Minute, faults).String() {
		t.Errorf("%v\n%v", one, two)
	}
}
