// Package cluster starts hongyan processes for tests that use them as their users would:
// the binary, real sockets, kill -9.
package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ready is the first line that a process prints on stdout.
type Ready struct {
	Ready bool   `json:"ready"`
	TCP   string `json:"tcp"`
	HTTP  string `json:"http"`
	RPC   string `json:"rpc"`
	PID   int    `json:"pid"`
}

// Process is one hongyan process, restartable with the same arguments.
type Process struct {
	Name  string
	Args  []string
	Ready Ready

	t    testing.TB
	log  string
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Binary is the hongyan under test: $HONGYAN_BIN, or bin/hongyan of this checkout.
func Binary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("HONGYAN_BIN"); bin != "" {
		return bin
	}
	_, file, _, _ := runtime.Caller(0)
	bin := filepath.Join(filepath.Dir(file), "..", "..", "..", "bin", "hongyan")
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%s is not built: run 'make build' first", bin)
	}
	return bin
}

// Start runs hongyan with args until the test ends and waits for its ready line.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, Args: args, t: t, log: filepath.Join(t.TempDir(), name+".log")}
	p.Restart()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			p.tail()
		}
	})
	return p
}

// Restart starts the process again after Kill or Stop; with port 0 it may get other ports.
func (p *Process) Restart() {
	p.t.Helper()
	if err := p.start(); err != nil {
		p.tail()
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
}

func (p *Process) start() error {
	cmd := exec.Command(Binary(p.t), p.Args...)
	// A test that dies must not leave processes behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd.Stderr = logFile
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// Pdeathsig follows the thread that forked, so that thread has to stay.
	started := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		<-done
	}()
	if err := <-started; err != nil {
		return err
	}
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		first, _ := r.ReadString('\n')
		line <- first
		_, _ = io.Copy(logFile, r)
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	select {
	case text := <-line:
		var ready Ready
		if err := json.Unmarshal([]byte(text), &ready); err != nil || !ready.Ready {
			return fmt.Errorf("first line is %q, not a ready line", text)
		}
		p.Ready = ready
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("not ready within 30 s")
	}
}

// Kill is kill -9: it returns when the process is gone.
func (p *Process) Kill() { _ = p.Signal(syscall.SIGKILL) }

// Stop is SIGTERM: one that was running has to end with exit code 0.
func (p *Process) Stop() {
	p.t.Helper()
	if !p.running() {
		return
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("%s after SIGTERM: %v", p.Name, err)
	}
}

func (p *Process) running() bool {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	select {
	case <-done:
		return false
	default:
		return done != nil // nil: it was never started
	}
}

// Signal sends one and returns when the process is gone, after kill -9 if that takes more than 20 s.
// The error is how it ended; nil is exit code 0.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil || cmd.Process == nil {
		return nil
	}
	_ = cmd.Process.Signal(sig)
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end within 20 s of %v", p.Name, sig)
		_ = cmd.Process.Kill()
		<-done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// PID of the running process.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Log is what the process wrote to stderr so far, all lives of it.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

func (p *Process) tail() {
	b, _ := os.ReadFile(p.log)
	if len(b) > 6000 {
		b = b[len(b)-6000:]
	}
	p.t.Logf("--- %s, end of its log:\n%s", p.Name, b)
}

// FreePorts returns n TCP ports of loopback that were free a moment ago.
func FreePorts(t testing.TB, n int) []string {
	t.Helper()
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs[i] = l.Addr().String()
	}
	return addrs
}
