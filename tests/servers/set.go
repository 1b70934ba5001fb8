package servers

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Set is a set of servers of a test's own. It has data and ports that are nobody else's, and
// ends with the test.
type Set struct {
	t      testing.TB
	state  string
	offset int
	env    map[string]string // servers.env
}

// Start starts servers (mysql, redis, ...) until the test ends. Without HONGYAN_TEST_CHAOS the
// test is skipped, or fails where servers are required: it takes minutes and memory.
func Start(t testing.TB, names ...string) *Set {
	t.Helper()
	if os.Getenv("HONGYAN_TEST_CHAOS") == "" {
		Missing(t, "HONGYAN_TEST_CHAOS=1 is not set: this test starts servers of its own and breaks them")
	}
	s := &Set{t: t, offset: claimOffset(t), env: map[string]string{}}
	state, err := os.MkdirTemp("", "hongyan-servers-") // a short path: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	s.state = state
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	t.Cleanup(func() { s.run(append([]string{"down"}, names...)...) })
	s.run(append([]string{"up"}, names...)...)
	s.readEnv()
	return s
}

func (s *Set) readEnv() {
	s.t.Helper()
	file, err := os.Open(filepath.Join(s.state, "servers.env"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			s.env[name] = strings.Trim(value, "'")
		}
	}
}

// Env is a variable of the set's servers.env: SERVERS_REDIS, SERVERS_MYSQL_0_SOURCE, ...
func (s *Set) Env(name string) string {
	s.t.Helper()
	value, there := s.env[name]
	if !there {
		s.t.Fatalf("the servers of this test have no %s", name)
	}
	return value
}

// Kill is SIGKILL to an instance: mysql-0-source, rocketmq-broker, etcd, ...
func (s *Set) Kill(instance string) { s.t.Helper(); s.run("kill", instance) }

// Start starts an instance again on its data, and waits until it answers.
func (s *Set) Start(instance string) { s.t.Helper(); s.run("start", instance) }

// Replace removes the data of a server that is down, and starts it anew.
func (s *Set) Replace(server string) {
	s.t.Helper()
	s.run("reset", server)
	s.run("up", server)
}

// Signal sends a signal, SIGSTOP or SIGCONT, to an instance.
func (s *Set) Signal(instance string, sig syscall.Signal) {
	s.t.Helper()
	pid, err := strconv.Atoi(s.run("pid", instance))
	if err != nil {
		s.t.Fatalf("pid of %s: %v", instance, err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// run calls the script of the servers, and returns what it prints.
func (s *Set) run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(script("servers.sh"), args...)
	cmd.Env = append(os.Environ(), "SERVERS_STATE="+s.state, "SERVERS_OFFSET="+strconv.Itoa(s.offset))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("servers.sh %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	s.t.Logf("servers: %s, %v", strings.Join(args, " "), time.Since(began).Round(time.Millisecond))
	return strings.TrimSpace(string(out))
}

// script is the path of a file of deploy/servers.
func script(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "deploy", "servers", name)
}
