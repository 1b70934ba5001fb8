package cluster

import (
	"fmt"
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
	Shape string // dev or processes
	Data  string
	TCP   string // host:port
	HTTP  string // http://host:port
	RPC   string // IMUI
	Keys  *token.Keys

	// Admin are the admin listeners of the logic processes, by slot.
	Admin []string

	// Procs by name: dev, or das, logic-0.., entry, httpentry, extlogic, imui.
	Procs map[string]*Process

	app string // key of the app that may call the HTTP API and IMUI
}

// Tenant and App of the tests.
const (
	Tenant = "demo"
	App    = "demo"
)

// Shapes that the suite runs over.
var Shapes = map[string]func(testing.TB) *System{"dev": Dev, "processes": Processes}

// ForEach runs a test over every shape.
func ForEach(t *testing.T, test func(t *testing.T, s *System)) {
	t.Helper()
	for _, name := range []string{"dev", "processes"} {
		t.Run(name, func(t *testing.T) { test(t, Shapes[name](t)) })
	}
}

// ForEachWith is ForEach with more configuration: lines of YAML for every process.
func ForEachWith(t *testing.T, config string, test func(t *testing.T, s *System)) {
	t.Helper()
	t.Run("dev", func(t *testing.T) { test(t, dev(t, config)) })
	t.Run("processes", func(t *testing.T) { test(t, processes(t, config)) })
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
	s.TCP, s.HTTP, s.RPC = ready.TCP, ready.HTTP, ready.RPC
	s.loadKeys(t)
	key, err := os.ReadFile(filepath.Join(dir, "demo-app.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.app = string(key)
	return s
}

// Logics is how many logic processes Processes starts.
const Logics = 3

// Processes is one process a tier and three of logic, over Kitex.
func Processes(t testing.TB) *System { return processes(t, "") }

func processes(t testing.TB, more string) *System {
	t.Helper()
	dir := t.TempDir()
	s := &System{Shape: "processes", Data: dir, Procs: map[string]*Process{}, app: "0123456789abcdef"}
	if _, err := token.GenerateKeys(filepath.Join(dir, "keys.json"), Tenant); err != nil {
		t.Fatal(err)
	}
	s.loadKeys(t)
	config := filepath.Join(dir, "hongyan.yaml")
	ports := FreePorts(t, Logics+8)
	logics, das, ext := ports[:Logics], ports[Logics], ports[Logics+1]
	text := fmt.Sprintf(`
data: %q
cluster: {logic: [%q, %q, %q], das: [%q], extlogic: [%q], jtransit: [%q]}
imui: {apps: [{name: demo, key: %q, tenants: [demo]}]}
httpentry: {plain_app_keys: true, apps: [{name: demo, key: %q, tenants: [demo]}]}
`, dir, logics[0], logics[1], logics[2], das, ext, ports[Logics+7], s.app, s.app) + more
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Admin = FreePorts(t, Logics)
	configOf := func(slot int) string { // the same, with an admin listener
		path := filepath.Join(dir, fmt.Sprintf("logic-%d.yaml", slot))
		if err := os.WriteFile(path, fmt.Appendf(nil, "%slog: {admin: %q}\n", text, s.Admin[slot]), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	start := func(name string, args ...string) *Process {
		p := Start(t, name, args...)
		s.Procs[name] = p
		return p
	}
	start("das", "das", "--config", config, "--rpc-listen", das)
	for i, addr := range logics {
		start(fmt.Sprintf("logic-%d", i), "logic", "--config", configOf(i), "--slot", fmt.Sprint(i), "--rpc-listen", addr)
	}
	start("jtransit", "jtransit", "--config", config, "--rpc-listen", ports[Logics+7])
	start("extlogic", "extlogic", "--config", config, "--rpc-listen", ext)
	s.RPC = start("imui", "imui", "--config", config, "--rpc-listen", ports[Logics+2]).Ready.RPC
	s.TCP = start("entry", "entry", "--config", config, "--listen", ports[Logics+3], "--rpc-listen", ports[Logics+4]).Ready.TCP
	s.HTTP = start("httpentry", "httpentry", "--config", config, "--listen", ports[Logics+5], "--rpc-listen", ports[Logics+6]).Ready.HTTP
	return s
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
