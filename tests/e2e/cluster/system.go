package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hongyan/idl/platform"
	"hongyan/internal/rpc"
	"hongyan/internal/token"
)

// System is a running Hongyan, in one process or in many.
type System struct {
	Shape string // dev, processes, or a cluster on the engines of that name
	Data  string
	TCP   []string // host:port of every entry
	HTTP  []string // http://host:port of every httpentry
	RPC   string   // IMUI
	Keys  *token.Keys

	// Admin are the admin listeners of the logic processes, by slot.
	Admin []string

	// Procs by name: dev, or das-0.., logic-0.., entry-0.., httpentry-0.., extlogic-0.., imui, jtransit.
	Procs map[string]*Process

	// Engines that a cluster stands on; nil: embedded parts.
	Engines *Engines

	app string // key of the app that may call the HTTP API and IMUI
}

// Tenant and App of the tests.
const (
	Tenant = "demo"
	App    = "demo"
)

// ForEach runs a test over every shape: dev, processes with embedded parts, and the clusters
// on real engines where there are some.
func ForEach(t *testing.T, test func(t *testing.T, s *System)) {
	t.Helper()
	ForEachWith(t, "", test)
}

// ForEachWith is ForEach with more configuration: lines of YAML for every process.
func ForEachWith(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	ForEmbedded(t, config, test)
	onAllEngines(t, config, test)
}

// ForEmbedded runs a test over the shapes with embedded parts: dev, then processes.
func ForEmbedded(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	t.Run("dev", func(t *testing.T) { test(t, dev(t, config)) })
	onProcesses(t, config, test)
}

// ForEachCluster is ForEachWith without dev.
func ForEachCluster(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	onProcesses(t, config, test)
	onAllEngines(t, config, test)
}

func onProcesses(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	t.Run("processes", func(t *testing.T) { test(t, start(t, single, config)) })
}

func onAllEngines(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	for _, name := range engineNames() {
		t.Run(name, func(t *testing.T) { test(t, onEngines(t, name, config, nil)) })
	}
}

// Endpoints of a transport, tcp, ws or http, as the Go SDK takes them: user number n begins
// with another one than user n+1.
func (s *System) Endpoints(transport string, n int) []string {
	list := s.HTTP
	if transport == "tcp" {
		list = s.TCP
	}
	endpoints := make([]string, len(list))
	for i := range list {
		addr := list[(n+i)%len(list)]
		switch transport {
		case "tcp":
			addr = "tcp://" + addr
		case "ws":
			addr = "ws" + strings.TrimPrefix(addr, "http")
		}
		endpoints[i] = addr
	}
	return endpoints
}

// Dev is hongyan dev on ports that stay the same over restarts.
func Dev(t testing.TB) *System { return dev(t, "") }

func dev(t testing.TB, config string) *System {
	t.Helper()
	dir := t.TempDir()
	ports := FreePorts(t, 3)
	s := &System{Shape: "dev", Data: dir, Procs: map[string]*Process{}}
	port := func(i int) string { return ports[i][strings.LastIndex(ports[i], ":")+1:] }
	args := []string{"dev", "--data", dir, "--tcp-port", port(0), "--http-port", port(1), "--rpc-port", port(2)}
	if config != "" {
		file := filepath.Join(dir, "hongyan.yaml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	s.Procs["dev"] = Start(t, "dev", args...)
	ready := s.Procs["dev"].Ready
	s.TCP, s.HTTP, s.RPC = []string{ready.TCP}, []string{ready.HTTP}, ready.RPC
	s.loadKeys(t)
	key, err := os.ReadFile(filepath.Join(dir, "demo-app.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.app = string(key)
	return s
}

// Log is what the processes of a tier, or dev, wrote to stderr so far.
func (s *System) Log(tier string) string {
	var text strings.Builder
	for name, p := range s.Procs {
		if name == tier || strings.HasPrefix(name, tier+"-") {
			text.WriteString(p.Log())
		}
	}
	return text.String()
}

func (s *System) loadKeys(t testing.TB) {
	t.Helper()
	keys, err := token.LoadKeys(filepath.Join(s.Data, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.Keys = keys
}

// Token of a user.
func (s *System) Token(t testing.TB, uid string) string {
	t.Helper()
	signed, err := s.Keys.Sign(token.Claims{Tenant: Tenant, UID: uid, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// IMUI is a Kitex client of the system, and how its caller is named.
func (s *System) IMUI(t testing.TB) (platform.IMUI, *platform.Caller) {
	t.Helper()
	client, err := rpc.DialIMUI(s.RPC, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client, &platform.Caller{App: App, Key: s.app, Tenant: Tenant}
}

// AppKey is the key of App.
func (s *System) AppKey() string { return s.app }

// Eventually asks until ok, or fails the test after the time.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
