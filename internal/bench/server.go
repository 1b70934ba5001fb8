package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Server is what is measured: a process of our own, or one that runs already.
type Server struct {
	TCP, HTTP string // addresses; empty = not known
	Keys      string // file of the tenants' keys, to make tokens
	PID       int    // 0 = not known: no figures of CPU and memory
	Durable   *bool  // an acknowledged message is flushed; nil = not known

	cmd *exec.Cmd
	dir string
}

// StartEmbedded starts 'hongyan dev' as a child, so that its CPU and memory can be told
// from ours. Its logs go to stderr if it fails to start.
func StartEmbedded(ctx context.Context, args ...string) (*Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hongyan-bench-")
	if err != nil {
		return nil, err
	}
	all := append([]string{"dev", "--data", dir, "--tcp-port", "0", "--http-port", "0", "--rpc-port", "0"}, args...)
	cmd := exec.Command(self, all...)
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	// An interrupt of the terminal is ours to handle: the server ends when we have measured.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Server{cmd: cmd, dir: dir, PID: cmd.Process.Pid, Keys: filepath.Join(dir, "keys.json"), Durable: ptr(true)}
	if err := s.awaitReady(ctx, out); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.Close()
		return nil, fmt.Errorf("the embedded server did not start: %w\n%s", err, text)
	}
	return s, nil
}

func (s *Server) awaitReady(ctx context.Context, out io.Reader) error {
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		first, _ := r.ReadString('\n')
		line <- first
		_, _ = io.Copy(io.Discard, r)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Second):
		return errors.New("not ready within 20 s")
	case text := <-line:
		var ready struct{ TCP, HTTP string }
		if err := json.Unmarshal([]byte(text), &ready); err != nil {
			return fmt.Errorf("first line %q: %w", text, err)
		}
		s.TCP, s.HTTP = ready.TCP, ready.HTTP
		return nil
	}
}

// Close ends a server that we started, and removes its data.
func (s *Server) Close() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		<-done
	}
	_ = os.RemoveAll(s.dir)
}

// clockTick is USER_HZ, which Linux fixes at 100 for what /proc shows.
const clockTick = 100

// cpu is the time the server has used so far, user and system.
func (s *Server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID))
	if err != nil {
		return 0, fmt.Errorf("server process: %w", err)
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, errors.New("server process: /proc/PID/stat has another form")
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTick, nil
}

// rss is the memory the server holds, bytes.
func (s *Server) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.PID))
	if err != nil {
		return 0, fmt.Errorf("server process: %w", err)
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("server process: /proc/PID/statm has another form")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
