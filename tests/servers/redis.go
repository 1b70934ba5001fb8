package servers

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Redis is a redis-server of a test's own, on a port of loopback that stays the same.
type Redis struct {
	Addr string // host:port
	Port int
	Args []string

	t       testing.TB
	program string
	dir     string
	cmd     *exec.Cmd
	ended   chan struct{}
}

// StartRedis runs the redis-server that make servers keeps, or the machine's, until the test
// ends. It keeps nothing over a restart.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Redis{Addr: l.Addr().String(), Port: l.Addr().(*net.TCPAddr).Port, Args: args, t: t, program: redisProgram(t), dir: t.TempDir()}
	l.Close()
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

func redisProgram(t testing.TB) string {
	t.Helper()
	cache := os.Getenv("SERVERS_CACHE")
	if dir, err := os.UserCacheDir(); cache == "" && err == nil {
		cache = filepath.Join(dir, "hongyan", "servers")
	}
	found, _ := filepath.Glob(filepath.Join(cache, "redis-*", "redis-server"))
	slices.Sort(found)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		Missing(t, "no redis-server here: make servers SERVERS=redis")
	}
	return path
}

// Start begins, or begins again on the same port, without data.
func (s *Redis) Start() {
	s.t.Helper()
	args := s.Args
	if !slices.Contains(args, "--sentinel") {
		args = append([]string{"--save", "", "--appendonly", "no"}, args...)
	}
	args = append(args, "--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.dir)
	cmd := exec.Command(s.program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() { _ = cmd.Wait(); close(ended) }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("redis-server does not listen on %s: %v", s.Addr, err)
		}
	}
}

// Signal sends a signal, SIGSTOP or SIGCONT.
func (s *Redis) Signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// Kill is SIGKILL: it returns when the process is gone.
func (s *Redis) Kill() {
	if s.cmd == nil {
		return
	}
	s.Signal(syscall.SIGKILL)
	<-s.ended
}
