package cluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Servers is a set of real servers of a test's own, which it may break.
type Servers struct {
	t      testing.TB
	state  string
	offset int
	env    map[string]string // servers.env
}

// ownOffset moves the ports of the set away from those of make servers.
const ownOffset = 7000

// StartServers starts servers (mysql, redis, ...) until the test ends.
func StartServers(t testing.TB, names ...string) *Servers {
	t.Helper()
	RequireEngines(t)
	s := &Servers{t: t, state: t.TempDir(), offset: ownOffset, env: map[string]string{}}
	t.Cleanup(func() { s.run(append([]string{"down"}, names...)...) })
	s.run(append([]string{"up"}, names...)...)
	file, err := os.Open(filepath.Join(s.state, "servers.env"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			s.env[name] = strings.Trim(value, "'")
		}
	}
	return s
}

// Kill is SIGKILL to an instance: mysql-0-source, rocketmq-broker, etcd, ...
func (s *Servers) Kill(instance string) { s.t.Helper(); s.run("kill", instance) }

// Start starts an instance again on its data, and waits until it answers.
func (s *Servers) Start(instance string) { s.t.Helper(); s.run("start", instance) }

func (s *Servers) run(args ...string) {
	s.t.Helper()
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "..", "..", "..", "deploy", "servers", "servers.sh")
	cmd := exec.Command(script, args...)
	cmd.Env = append(os.Environ(), "SERVERS_STATE="+s.state, "SERVERS_OFFSET="+strconv.Itoa(s.offset))
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("servers.sh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	s.t.Logf("servers: %s, %v", strings.Join(args, " "), time.Since(began).Round(time.Millisecond))
}

// lookup a variable of servers.env: of the own set, or of the one in the environment.
func (s *Servers) lookup(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if s != nil {
		value = s.env[name]
	}
	if value == "" {
		t.Fatalf("%s is not set: make servers, and its servers.env in the environment", name)
	}
	return value
}

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
