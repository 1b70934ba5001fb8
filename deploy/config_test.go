package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// tiers that run as processes of their own.
func tiers() []string {
	return []string{"entry", "httpentry", "logic", "das", "extlogic", "imui", "jtransit"}
}

// Every sample can be used as it stands, by the hongyan of this checkout.
func TestSampleConfigurationsCanBeUsed(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command here to build hongyan with")
	}
	binary := filepath.Join(t.TempDir(), "hongyan")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/hongyan").CombinedOutput(); err != nil {
		t.Fatalf("build hongyan: %v\n%s", err, out)
	}
	files, err := filepath.Glob("config/*.yaml")
	if err != nil || len(files) != len(tiers()) {
		t.Fatalf("samples are %v (%v), there are %d tiers", files, err, len(tiers()))
	}
	for _, file := range append(files, "compose/hongyan.yaml", "local/hongyan.yaml") {
		cmd := exec.Command(binary, "config", "check", "--config", file)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s", file, out)
		}
	}
}

// sample reads deploy/config/TIER.yaml.
func sample(t *testing.T, tier string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(readAll(t, "config/"+tier+".yaml")), &values); err != nil {
		t.Fatalf("%s: %v", tier, err)
	}
	return values
}

// at walks down sections; nil if one is missing.
func at(values map[string]any, keys ...string) any {
	for _, key := range keys[:len(keys)-1] {
		values, _ = values[key].(map[string]any)
	}
	return values[keys[len(keys)-1]]
}

// The tiers of compose.yaml know the servers beside them, by the names and ports they have there.
func TestComposeTiersFindTheirServers(t *testing.T) {
	services := readCompose(t)
	text := readAll(t, "compose/hongyan.yaml")
	for _, m := range regexp.MustCompile(`\b([a-z][a-z0-9-]+):(\d{3,5})\b`).FindAllStringSubmatch(text, -1) {
		s, ok := services[m[1]]
		if !ok {
			t.Errorf("compose/hongyan.yaml names %s, which is no service", m[1])
			continue
		}
		inside := func(published string) bool { return strings.HasSuffix(published, ":"+m[2]) }
		if len(s.Ports) > 0 && !slices.ContainsFunc(s.Ports, inside) {
			t.Errorf("%s listens at %v, compose/hongyan.yaml says %s", m[1], s.Ports, m[2])
		}
	}
	for _, tier := range tiers() {
		s, ok := services[tier+"-0"]
		if !ok || !slices.Equal(s.Command, []string{tier, "--config", "/etc/hongyan.yaml"}) {
			t.Errorf("compose.yaml runs %s as %v", tier, s.Command)
		}
	}
}

// systemd kills what takes longer to stop than it was told: a drain must fit, with what a
// gateway and its port for other tiers need behind it.
func TestUnitsLeaveTimeToDrain(t *testing.T) {
	unit := readAll(t, "systemd/hongyan@.service")
	stop := time.Duration(number(t, unit, "TimeoutStopSec")) * time.Second
	const rest = 20 * time.Second // httpentry.stop_timeout, the RPC server's five seconds
	for _, tier := range tiers() {
		text, _ := at(sample(t, tier), tier, "gate", "drain_delay").(string)
		drain, err := time.ParseDuration(text)
		if text != "" && (err != nil || drain+rest > stop) {
			t.Errorf("%s drains for %s, TimeoutStopSec is %v", tier, text, stop)
		}
	}
	connections, _ := at(sample(t, "entry"), "entry", "max_connections").(int)
	if files := number(t, unit, "LimitNOFILE"); connections == 0 || files <= connections+1000 {
		t.Errorf("LimitNOFILE is %d, max_connections %d", files, connections)
	}
	for _, setting := range []string{"Restart=always", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "PrivateTmp=yes",
		"WantedBy=hongyan.target", "ExecStart=/usr/local/bin/hongyan %i --config /etc/hongyan/%i.yaml"} {
		if !strings.Contains(unit, "\n"+setting+"\n") {
			t.Errorf("the unit lacks %s", setting)
		}
	}
}

func number(t *testing.T, text, name string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `=(\d+)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s", name)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Processes of one host do not take each other's ports, and Prometheus asks where they answer.
func TestPortsOfTiers(t *testing.T) {
	used := map[string]string{}
	prometheus := readAll(t, "monitoring/prometheus.yaml")
	for _, tier := range tiers() {
		values := sample(t, tier)
		for _, key := range [][]string{{"cluster", "listen"}, {"log", "admin"}, {tier, "listen"}} {
			addr, _ := at(values, key...).(string)
			_, port, ok := strings.Cut(addr, ":")
			if !ok {
				continue
			}
			if other := used[port]; other != "" {
				t.Errorf("%s %v takes port %s of %s", tier, key, port, other)
			}
			used[port] = tier
			if key[1] == "admin" && !regexp.MustCompile(`job_name: hongyan-`+tier+`\n.*:`+port+`"`).MatchString(prometheus) {
				t.Errorf("monitoring/prometheus.yaml does not ask %s at port %s", tier, port)
			}
		}
	}
}

// Timeouts of nginx must be above those of what it waits for.
func TestNginxWaitsLongEnough(t *testing.T) {
	text := readAll(t, "nginx/hongyan.conf")
	for _, directive := range []string{"proxy_buffering off;", "proxy_read_timeout 75s;", "proxy_http_version 1.1;", "gzip on;",
		"proxy_set_header X-Forwarded-For $remote_addr;", "proxy_set_header Upgrade $http_upgrade;"} {
		if !strings.Contains(text, directive) {
			t.Errorf("nginx/hongyan.conf lacks %q", directive)
		}
	}
}

func TestDashboardIsJSON(t *testing.T) {
	if !json.Valid([]byte(readAll(t, "monitoring/dashboard.json"))) {
		t.Error("monitoring/dashboard.json is not JSON")
	}
}
