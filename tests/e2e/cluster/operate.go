package cluster

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// CLI runs a hongyan command with the cluster's configuration and returns its stdout.
func (s *System) CLI(t testing.TB, args ...string) string {
	t.Helper()
	args = append(args, "--config", filepath.Join(s.Data, "hongyan.yaml"))
	cmd := exec.Command(Binary(t), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hongyan %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// Add starts one more process of a tier, with any free ports.
func (s *System) Add(t testing.TB, tier string, more ...string) *Process {
	t.Helper()
	name := tier
	for n := 0; s.Procs[name] != nil || n == 0; n++ {
		name = fmt.Sprintf("%s-%d", tier, n)
	}
	args := append([]string{tier, "--config", filepath.Join(s.Data, "hongyan.yaml"), "--rpc-listen", FreePorts(t, 1)[0]}, more...)
	s.Procs[name] = Start(t, name, args...)
	return s.Procs[name]
}

// Instances is how many processes of a tier, "" for all, the control centre knows to live.
func (s *System) Instances(t testing.TB, tier string) int {
	t.Helper()
	args := []string{"control", "instances", "--json"}
	if tier != "" {
		args = append(args, tier)
	}
	var reply struct {
		Instances []struct{ Addr string }
	}
	if err := json.Unmarshal([]byte(s.CLI(t, args...)), &reply); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, in := range reply.Instances {
		if in.Addr != "" {
			n++
		}
	}
	return n
}
