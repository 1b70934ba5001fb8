package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
)

// figure is what hongyan bench prints, as far as the tables want it.
type figure struct {
	Acked     float64 `json:"acked"`
	PerSecond float64 `json:"acked_per_s"`
	AckP50    float64 `json:"ack_p50_ms"`
	AckP99    float64 `json:"ack_p99_ms"`
	E2EP50    float64 `json:"e2e_p50_ms"`
	E2EP99    float64 `json:"e2e_p99_ms"`
	Lost      int     `json:"lost"`
	Doubled   int     `json:"duplicates"`
}

// TestClusterFigures prints the tables of docs/performance.md for the whole cluster: make
// bench-cluster. Generator, tiers and servers share the machine.
func TestClusterFigures(t *testing.T) {
	if os.Getenv("HONGYAN_TEST_FIGURES") == "" {
		t.Skip("HONGYAN_TEST_FIGURES is not set: make bench-cluster prints the figures")
	}
	cluster.ForEachCluster(t, "", func(t *testing.T, s *cluster.System) {
		for _, load := range [][]string{{"--rate", "300"}, {"--window", "32"}} {
			measure(t, s, load)
		}
	})
}

// measure runs the load through the first entry and tells what each tier and server used.
func measure(t *testing.T, s *cluster.System, load []string) {
	args := append([]string{"bench", "pairs", "--pairs", "200", "--duration", "10s", "--json", "--target", "tcp://" + s.TCP[0],
		"--keys", filepath.Join(s.Data, "keys.json")}, load...)
	before := cpuOf(s)
	var said bytes.Buffer
	cmd := exec.Command(cluster.Binary(t), args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	after := cpuOf(s)
	var f figure
	if jsonErr := json.Unmarshal(out, &f); err != nil || jsonErr != nil || f.Lost+f.Doubled > 0 {
		t.Fatalf("hongyan %s: %v, %v\n%s%s", strings.Join(args, " "), err, jsonErr, out, &said)
	}
	// The warm-up is a fifth of the measured time more, at the same speed.
	messages := f.Acked * 1.2
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s: %.0f acked/s, ack %.1f / %.1f ms, end to end %.1f / %.1f ms (p50 / p99); CPU us/message:",
		s.Shape, strings.Join(load, " "), f.PerSecond, f.AckP50, f.AckP99, f.E2EP50, f.E2EP99)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if used := after[name] - before[name]; used > 0 {
			fmt.Fprintf(&text, " %s %.0f", name, used.Seconds()*1e6/messages)
		}
	}
	t.Log(text.String())
}

// cpuOf is the CPU time so far of each tier, and of each server that make servers has started.
func cpuOf(s *cluster.System) map[string]time.Duration {
	used := map[string]time.Duration{}
	for name, p := range s.Procs {
		tier, _, _ := strings.Cut(name, "-")
		used[tier] += cpuTime(p.PID())
	}
	if s.Engines == nil {
		return used
	}
	state := os.Getenv("SERVERS_STATE")
	pids, _ := filepath.Glob(filepath.Join(state, "*", "pid"))
	for _, file := range pids {
		text, _ := os.ReadFile(file)
		first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ") // the rest tells when it began
		pid, _ := strconv.Atoi(first)
		used["("+filepath.Base(filepath.Dir(file))+")"] += cpuTime(pid)
	}
	return used
}

// cpuTime is user and system time of a process; clock ticks are 10 ms on Linux.
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
