package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hongyan/internal/token"
)

// layout is how many processes of each tier a system has.
type layout map[string]int

// Logics is how many logic processes every system of processes has.
const Logics = 3

var (
	// single stands on the embedded store, which allows one das.
	single = layout{"das": 1, "logic": Logics, "jtransit": 1, "extlogic": 1, "imui": 1, "entry": 1, "httpentry": 1}
	// full has several of everything that there can be several of.
	full = layout{"das": 3, "logic": Logics, "jtransit": 1, "extlogic": 2, "imui": 1, "entry": 2, "httpentry": 2}
)

// order in which tiers start.
var order = []string{"das", "logic", "jtransit", "extlogic", "imui", "entry", "httpentry"}

// Processes is one process a tier and three of logic, over Kitex, with embedded parts and
// static addresses.
func Processes(t testing.TB) *System { return start(t, single, "") }

// plan is a system of processes before it runs.
type plan struct {
	*System
	layout layout
	addrs  map[string][]string // of a tier, in slot order: where other tiers reach it
	listen map[string][]string // where clients reach it
	text   string              // configuration of all
}

func start(t testing.TB, l layout, more string) *System {
	t.Helper()
	p := newPlan(t, "processes", l)
	var lists []string
	for _, tier := range []string{"logic", "das", "extlogic", "jtransit"} {
		lists = append(lists, fmt.Sprintf("%s: [%s]", tier, strings.Join(p.addrs[tier], ", ")))
	}
	p.text += "cluster: {" + strings.Join(lists, ", ") + "}\n" + more
	p.run(t)
	return p.System
}

func newPlan(t testing.TB, shape string, l layout) *plan {
	t.Helper()
	dir := t.TempDir()
	p := &plan{
		System: &System{Shape: shape, Data: dir, Procs: map[string]*Process{}, app: "0123456789abcdef"},
		layout: l, addrs: map[string][]string{}, listen: map[string][]string{},
	}
	if _, err := token.GenerateKeys(filepath.Join(dir, "keys.json"), Tenant); err != nil {
		t.Fatal(err)
	}
	p.loadKeys(t)
	ports := FreePorts(t, 2*len(l)*4+l["logic"])
	take := func(n int) []string {
		taken := ports[:n]
		ports = ports[n:]
		return taken
	}
	for _, tier := range slices.Sorted(maps.Keys(l)) {
		p.addrs[tier] = take(l[tier])
		if tier == "entry" || tier == "httpentry" {
			p.listen[tier] = take(l[tier])
		}
	}
	p.Admin = take(l["logic"])
	p.text = fmt.Sprintf(`
data: %q
imui: {apps: [{name: demo, key: %q, tenants: [demo]}]}
httpentry: {plain_app_keys: true, apps: [{name: demo, key: %q, tenants: [demo]}]}
`, dir, p.app, p.app)
	return p
}

// run starts every process, tier by tier.
func (p *plan) run(t testing.TB) {
	t.Helper()
	config := p.write(t, "hongyan.yaml", p.text)
	for _, tier := range order {
		for slot := range p.layout[tier] {
			name := fmt.Sprintf("%s-%d", tier, slot)
			file := config
			if tier == "logic" { // the same, with an admin listener
				file = p.write(t, name+".yaml", fmt.Sprintf("%slog: {admin: %q}\n", p.text, p.Admin[slot]))
			}
			args := []string{tier, "--config", file, "--rpc-listen", p.addrs[tier][slot]}
			if p.Engines == nil { // etcd gives slots itself
				args = append(args, "--slot", fmt.Sprint(slot))
			}
			if listen := p.listen[tier]; listen != nil {
				args = append(args, "--listen", listen[slot])
			}
			proc := Start(t, name, args...)
			p.Procs[name] = proc
			switch tier {
			case "imui":
				p.RPC = proc.Ready.RPC
			case "entry":
				p.TCP = append(p.TCP, proc.Ready.TCP)
			case "httpentry":
				p.HTTP = append(p.HTTP, proc.Ready.HTTP)
			}
		}
	}
}

func (p *plan) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(p.Data, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
