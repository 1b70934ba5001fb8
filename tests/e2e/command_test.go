package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
)

// runCommand runs hongyan to its end.
func runCommand(t testing.TB, stdin string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cluster.Binary(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatalf("hongyan %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestMistakesAreOneClearLineAndAnExitCode(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, busyPort, _ := net.SplitHostPort(busy.Addr().String())
	dir := t.TempDir()
	file := filepath.Join(dir, "plain-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(dir, "unknown.yaml")
	if err := os.WriteFile(unknown, []byte("entry: {max_bdy: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := cluster.Dev(t)
	any := []string{"--tcp-port", "0", "--http-port", "0", "--rpc-port", "0"}
	dev := func(args ...string) []string { return append(append([]string{"dev"}, any...), args...) }
	for name, c := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"busy port":               {dev("--data", filepath.Join(dir, "a"), "--tcp-port", busyPort), 1, "address already in use"},
		"directory in use":        {dev("--data", running.Data), 1, "in use by another process"},
		"directory is a file":     {dev("--data", file), 1, "data directory"},
		"unknown key":             {dev("--data", filepath.Join(dir, "b"), "--config", unknown), 1, "max_bdy"},
		"unknown flag":            {dev("--nope"), 2, "--nope"},
		"unknown command":         {[]string{"devv"}, 2, "devv"},
		"no uid":                  {[]string{"token", "--data", dir}, 2, "--uid"},
		"no logic":                {[]string{"entry", "--data", dir, "--listen", "127.0.0.1:0"}, 1, "--logic"},
		"slot out of range":       {[]string{"das", "--data", dir, "--das", "127.0.0.1:1", "--slot", "1"}, 1, "slot 1"},
		"several embedded stores": {[]string{"das", "--data", dir, "--das", "127.0.0.1:1,127.0.0.1:2"}, 1, "share"},
		"bench without a server":  {[]string{"bench", "pairs"}, 2, "--embedded"},
		"bench of nonsense":       {[]string{"bench", "sky"}, 2, "sky"},
		"config check":            {[]string{"config", "check", "--config", unknown}, 1, "max_bdy"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, exit := runCommand(t, "", c.args...)
			var last string
			for _, line := range strings.Split(stderr, "\n") {
				if strings.HasPrefix(line, "hongyan: ") {
					last = line
				}
			}
			if exit != c.exit || !strings.Contains(last, c.want) || stdout != "" {
				t.Fatalf("exit %d (want %d), stdout %q, stderr:\n%s", exit, c.exit, stdout, stderr)
			}
		})
	}
}

func TestDevIsReadyWithinTwoSecondsAndStopsOnRequest(t *testing.T) {
	best := time.Hour
	for range 3 { // the machine may be busy: the best of three
		begun := time.Now()
		s := cluster.Dev(t)
		best = min(best, time.Since(begun))
		if r := s.Procs["dev"].Ready; r.PID != s.Procs["dev"].PID() || r.TCP == "" || !strings.HasPrefix(r.HTTP, "http://") || r.RPC == "" {
			t.Fatalf("ready line: %+v", r)
		}
		log := s.Procs["dev"].Log()
		for _, want := range []string{"/demo", "alice", "bob", "curl -s"} {
			if !strings.Contains(log, want) {
				t.Errorf("stderr lacks %q:\n%s", want, log)
			}
		}
		s.Procs["dev"].Stop()
	}
	if best > 2*time.Second {
		t.Errorf("ready after %v", best)
	}
}

func TestEverySubcommandHelpsWithAnExample(t *testing.T) {
	for _, name := range []string{"dev", "entry", "httpentry", "logic", "extlogic", "das", "imui", "jtransit", "token", "chat", "bench", "version"} {
		stdout, stderr, exit := runCommand(t, "", name, "--help")
		if exit != 0 || !strings.Contains(stdout, "Examples:") || stderr != "" {
			t.Errorf("%s --help: exit %d\n%s%s", name, exit, stdout, stderr)
		}
	}
}

func TestConfigPrintLoadsAgainAndHidesSecrets(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "c.yaml")
	text := "imui: {apps: [{name: orders, key: 0123456789abcdef, tenants: [demo]}]}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, exit := runCommand(t, "", "config", "print", "--config", config)
	if exit != 0 || strings.Contains(stdout, "0123456789abcdef") || !strings.Contains(stdout, "orders") {
		t.Fatalf("exit %d: %s\n%s", exit, stderr, stdout)
	}
	defaults, _, _ := runCommand(t, "", "config", "print")
	if err := os.WriteFile(config, []byte(defaults), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, stderr, exit := runCommand(t, "", "config", "print", "--config", config); exit != 0 || again != defaults {
		t.Fatalf("the printed defaults do not load as they are: exit %d: %s", exit, stderr)
	}
}

func TestBenchPrintsOneObject(t *testing.T) {
	stdout, stderr, exit := runCommand(t, "", "bench", "pairs", "--embedded", "--pairs", "5", "--window", "4", "--duration", "1s", "--warmup", "200ms", "--json")
	var result map[string]any
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || exit != 0 {
		t.Fatalf("exit %d, %v\n%s%s", exit, err, stdout, stderr)
	}
	if result["lost"] != 0.0 || result["acked"].(float64) < 10 || result["durable"] != true || result["server_cpu_us_per_msg"] == nil {
		t.Fatalf("got %v", result)
	}
}

func TestBenchInterruptedPrintsWhatItHas(t *testing.T) {
	cmd := exec.Command(cluster.Binary(t), "bench", "pairs", "--embedded", "--pairs", "5", "--duration", "1h", "--json")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	_ = cmd.Process.Signal(syscall.SIGINT)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		var result map[string]any
		if json.Unmarshal(out.Bytes(), &result) != nil || result["interrupted"] != true || err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("did not end after an interrupt")
	}
}

// TestChatWorksPiped: hongyan chat without a terminal.
func TestChatWorksPiped(t *testing.T) {
	s := cluster.Dev(t)
	bob := newDevice(t, s, "bob", "phone", "tcp")
	stdout, stderr, exit := runCommand(t, "hello from a pipe\n", "chat", "--as", "alice", "--to", "bob", "--target", "tcp://"+s.TCP[0], "--data", s.Data)
	if exit != 0 {
		t.Fatalf("exit %d\n%s%s", exit, stdout, stderr)
	}
	cluster.Eventually(t, patience, "bob gets the line", func() bool { return bob.has(conv, "hello from a pipe") })
}
