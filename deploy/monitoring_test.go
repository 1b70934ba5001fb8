package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Every metric that the dashboard and the alerts ask for is one that the code makes, and every
// alert leads to a part of docs/operations.md.
func TestMonitoringAsksForMetricsThatAre(t *testing.T) {
	made := metricsOfCode(t)
	text := readAll(t, "monitoring/dashboard.json") + readAll(t, "monitoring/alerts.yaml")
	asked := regexp.MustCompile(`\bhongyan_[a-z0-9_]+`).FindAllString(text, -1)
	slices.Sort(asked)
	asked = slices.Compact(asked)
	if len(asked) < 30 {
		t.Fatalf("only %d metrics are asked for", len(asked))
	}
	for _, name := range asked {
		whole := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && made[base] {
				whole = base
			}
		}
		if !made[whole] {
			t.Errorf("no code makes %s", name)
		}
	}
	for _, name := range []string{"hongyan_das_queue_age_seconds", "hongyan_logic_shed_total", "hongyan_entry_connections", "hongyan_presence_down"} {
		if !made[name] {
			t.Errorf("this test does not find %s in the code", name)
		}
	}
	if made["hongyan_das_websockets"] || made["hongyan_logic_no_such_total"] {
		t.Error("this test finds what is not there")
	}
}

func TestAlertsLeadToTheRunbook(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(readAll(t, "monitoring/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(readAll(t, "../docs/operations.md"), -1) {
		anchors[anchor(m[1])] = true
	}
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			_, part, _ := strings.Cut(r.Annotations["runbook"], "docs/operations.md#")
			if !anchors[part] {
				t.Errorf("%s leads to %q, which docs/operations.md does not have", r.Alert, part)
			}
			if seen[r.Alert] || r.Expr == "" || r.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) {
				t.Errorf("%s is not a whole alert of its own: %+v", r.Alert, r)
			}
			seen[r.Alert] = true
		}
	}
	if len(seen) < 20 {
		t.Errorf("%d alerts", len(seen))
	}
}

// anchor of a heading, as Markdown pages have it.
func anchor(heading string) string {
	kept := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(kept, " ", "-")
}

// subsystems are the beginnings of names that a package takes from its caller or puts together
// out of constants.
func subsystems() map[string][]string {
	return map[string][]string{
		"internal/gate": {"hongyan_entry_", "hongyan_httpentry_"},
		"entry":         {"hongyan_entry_"},
		"httpentry":     {"hongyan_httpentry_"},
		"extlogic":      {"hongyan_extlogic_"},
	}
}

// metricsOfCode are the names that packages with metrics can make: whole literals, and the
// other literals of a package behind the beginnings it has.
func metricsOfCode(t *testing.T) map[string]bool {
	t.Helper()
	made, byPackage := map[string]bool{}, map[string][]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"tests", "tools", "deploy", "examples", "bin", ".git", "idl", "sdk"}, d.Name()):
			return fs.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			dir, _ := filepath.Rel("..", filepath.Dir(path))
			byPackage[dir] = append(byPackage[dir], metricLiterals(t, path)...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, literals := range byPackage {
		begins := subsystems()[dir]
		for _, l := range literals {
			if strings.HasPrefix(l, "hongyan_") && strings.HasSuffix(l, "_") {
				begins = append(begins, l)
			}
		}
		for _, l := range literals {
			if strings.HasPrefix(l, "hongyan_") {
				made[l] = true
				continue
			}
			for _, b := range begins {
				made[b+l] = true
			}
		}
	}
	return made
}

// metricLiterals are the strings of a file that uses prometheus and that can be names.
func metricLiterals(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool {
		return i.Path.Value == `"github.com/prometheus/client_golang/prometheus"`
	}) {
		return nil
	}
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && name.MatchString(s) {
				found = append(found, s)
			}
		}
		return true
	})
	return found
}

// TestPromtoolTakesTheRules runs the unit tests of the alerts, where promtool (Debian: prometheus)
// is. Every alert that pages must have one.
func TestPromtoolTakesTheRules(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert  string
				Labels map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(readAll(t, "monitoring/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Tests []struct {
			Checks []struct {
				Alert string `yaml:"alertname"`
				Fires []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readAll(t, "monitoring/alerts_test.yaml")), &cases); err != nil {
		t.Fatal(err)
	}
	fires := map[string]bool{}
	for _, c := range cases.Tests {
		for _, check := range c.Checks {
			fires[check.Alert] = fires[check.Alert] || len(check.Fires) > 0
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Labels["severity"] == "page" && !fires[r.Alert] {
				t.Errorf("no case of alerts_test.yaml lets %s fire", r.Alert)
			}
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool here; Debian has it in the package prometheus")
	}
	for _, args := range [][]string{{"check", "config", "prometheus.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "monitoring"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
