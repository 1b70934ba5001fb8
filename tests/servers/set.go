package servers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
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
	t       testing.TB
	state   string
	options []string          // of servers.sh, as its environment
	env     map[string]string // servers.env
	unlock  func()            // gives the ports back
	spent   bool
}

// Start starts servers (mysql, redis, ...) until the test ends. Without HONGYAN_TEST_CHAOS the
// test is skipped, or fails where servers are required: it takes minutes and memory.
func Start(t testing.TB, names ...string) *Set {
	t.Helper()
	s := newSet(t)
	t.Cleanup(func() { s.end(t) })
	s.up(names...)
	return s
}

func newSet(t testing.TB, options ...string) *Set {
	t.Helper()
	if os.Getenv("HONGYAN_TEST_CHAOS") == "" {
		Missing(t, "HONGYAN_TEST_CHAOS=1 is not set: this test starts servers of its own and breaks them")
	}
	offset, unlock := claimOffset(t)
	state, err := os.MkdirTemp("", "hongyan-servers-") // a short path: it holds sockets
	if err != nil {
		unlock()
		t.Fatal(err)
	}
	options = append(options, "SERVERS_STATE="+state, "SERVERS_OFFSET="+strconv.Itoa(offset))
	return &Set{t: t, state: state, options: options, env: map[string]string{}, unlock: unlock}
}

func (s *Set) up(names ...string) {
	s.t.Helper()
	s.run(append([]string{"up"}, names...)...)
	s.readEnv()
}

// end kills what runs: its data are thrown away.
func (s *Set) end(t testing.TB) {
	t.Helper()
	if err := s.killAll(); err != nil {
		t.Error(err)
	}
}

func (s *Set) killAll() (err error) {
	pids, _ := filepath.Glob(filepath.Join(s.state, "*", "pid"))
	for _, file := range pids {
		if _, stderr, failed := s.call("kill", filepath.Base(filepath.Dir(file))); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s is left behind: %w: %s", file, failed, stderr))
		}
	}
	s.unlock()
	return errors.Join(err, os.RemoveAll(s.state))
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

// Terminate asks an instance to end, as a service manager does, and waits until it has.
func (s *Set) Terminate(instance string) {
	s.t.Helper()
	s.Signal(instance, syscall.SIGTERM)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		pid, stderr, err := s.call("pid", instance)
		switch {
		case err != nil:
			s.t.Fatalf("pid of %s: %v, %s", instance, err, stderr)
		case pid == "":
			return
		case time.Now().After(end):
			s.t.Fatalf("%s has not ended 2 minutes after SIGTERM", instance)
		}
	}
}

// run calls the script of the servers, and returns what it prints.
func (s *Set) run(args ...string) string {
	s.t.Helper()
	began := time.Now()
	out, stderr, err := s.call(args...)
	if err != nil {
		s.t.Fatalf("servers.sh %s: %v\n%s\n%s", strings.Join(args, " "), err, out, stderr)
	}
	s.t.Logf("servers: %s, %v", strings.Join(args, " "), time.Since(began).Round(time.Millisecond))
	return out
}

func (s *Set) call(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(script("servers.sh"), args...)
	cmd.Env = append(os.Environ(), s.options...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), err
}

// script is the path of a file of deploy/servers.
func script(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "deploy", "servers", name)
}
