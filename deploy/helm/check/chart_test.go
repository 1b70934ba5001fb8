// Package helm checks the chart beside it: it is rendered as helm does, and what comes out is
// held to what every tier needs. A module of its own, so that helm stays out of the product's.
package helm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

const chart = "../hongyan"

func tiers() []string {
	return []string{"entry", "httpentry", "logic", "das", "extlogic", "imui", "jtransit"}
}

type object map[string]any

// at walks down an object; nil if something is missing.
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, key := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			if len(in) == 0 {
				return nil
			}
			v = in[0].(map[string]any)[key]
		default:
			return nil
		}
	}
	return v
}

// render gives the chart's objects by kind/name.
func render(t *testing.T, values map[string]any) map[string]object {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "im", Namespace: "im"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, all)
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]object{}
	for name, text := range files {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		for _, doc := range strings.Split(text, "\n---") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			o := object{}
			if err := yaml.UnmarshalStrict([]byte(doc), (*map[string]any)(&o)); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, doc)
			}
			key := o["kind"].(string) + "/" + o.at("metadata", "name").(string)
			if objects[key] != nil {
				t.Errorf("%s is there twice", key)
			}
			objects[key] = o
		}
	}
	return objects
}

func TestLint(t *testing.T) {
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	result := lint.All(chart, c.Values, "im", true)
	for _, m := range result.Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}

func TestEveryTierIsWhole(t *testing.T) {
	objects := render(t, nil)
	for _, tier := range tiers() {
		name := "im-" + tier
		work := objects["Deployment/"+name]
		if tier == "logic" || tier == "das" {
			work = objects["StatefulSet/"+name]
		}
		if work == nil {
			t.Errorf("%s: no workload", tier)
			continue
		}
		pod := []string{"spec", "template", "spec"}
		in := func(path ...string) any { return work.at(append(pod[:3:3], path...)...) }
		for _, path := range [][]string{
			{"containers", "startupProbe"}, {"containers", "livenessProbe", "httpGet", "path"}, {"containers", "readinessProbe", "httpGet", "path"},
			{"containers", "lifecycle", "preStop", "exec", "command"}, {"containers", "resources", "limits", "memory"},
			{"containers", "securityContext", "readOnlyRootFilesystem"}, {"securityContext", "runAsNonRoot"}, {"topologySpreadConstraints"},
		} {
			if in(path...) == nil {
				t.Errorf("%s has no %s", tier, strings.Join(path, "."))
			}
		}
		if in("containers", "readinessProbe", "httpGet", "path") != "/readyz" {
			t.Errorf("%s is ready by another word than /readyz", tier)
		}
		if in("enableServiceLinks") != false {
			t.Errorf("%s takes variables of services, which a release called hongyan has too", tier)
		}
		if work.at("spec", "minReadySeconds") == nil {
			t.Errorf("%s is replaced as soon as a pod says it is ready", tier)
		}
		budget := objects["PodDisruptionBudget/"+name]
		if budget.at("spec", "maxUnavailable") != float64(1) {
			t.Errorf("%s has no disruption budget of one", tier)
		}
		if a, b := work.at("spec", "selector", "matchLabels"), budget.at("spec", "selector", "matchLabels"); !same(a, b) {
			t.Errorf("%s: the budget is for %v, the pods are %v", tier, b, a)
		}
		grace, _ := in("terminationGracePeriodSeconds").(float64)
		if drain := drainOf(t, objects, tier); time.Duration(grace)*time.Second < drain+20*time.Second {
			t.Errorf("%s drains for %v and has %v s", tier, drain, grace)
		}
	}
	for _, service := range []string{"im-entry", "im-httpentry", "im-imui"} {
		if objects["Service/"+service] == nil {
			t.Errorf("no service %s", service)
		}
	}
	if objects["Secret/im-das"] == nil || objects["ConfigMap/im-das"] != nil {
		t.Error("the databases' passwords are not in a Secret")
	}
}

func same(a, b any) bool {
	x, _ := yaml.Marshal(a)
	y, _ := yaml.Marshal(b)
	return len(x) > 5 && bytes.Equal(x, y)
}

// configOf is the configuration file of a tier.
func configOf(t *testing.T, objects map[string]object, tier string) string {
	t.Helper()
	if o := objects["Secret/im-"+tier]; o != nil {
		return o.at("stringData", "hongyan.yaml").(string)
	}
	text, ok := objects["ConfigMap/im-"+tier].at("data", "hongyan.yaml").(string)
	if !ok {
		t.Fatalf("%s has no configuration", tier)
	}
	return text
}

func drainOf(t *testing.T, objects map[string]object, tier string) time.Duration {
	t.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(configOf(t, objects, tier)), (*map[string]any)(&o)); err != nil {
		t.Fatal(err)
	}
	text, _ := o.at(tier, "gate", "drain_delay").(string)
	d, _ := time.ParseDuration(text)
	return d
}

// The hongyan of this checkout can use what the chart writes.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "hongyan")
	if out, err := exec.Command("go", "-C", "../../..", "build", "-o", binary, "./cmd/hongyan").CombinedOutput(); err != nil {
		t.Fatalf("build hongyan: %v\n%s", err, out)
	}
	objects := render(t, nil)
	for _, tier := range tiers() {
		file := filepath.Join(dir, tier+".yaml")
		if err := os.WriteFile(file, []byte(configOf(t, objects, tier)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "config", "check", "--config", file)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s\n%s", tier, out, configOf(t, objects, tier))
		}
	}
}

// env is the environment of a tier's container: literal values only.
func env(t *testing.T, work object) map[string]string {
	t.Helper()
	list, _ := work.at("spec", "template", "spec", "containers", "env").([]any)
	out := map[string]string{}
	for _, e := range list {
		v, _ := object(e.(map[string]any))["value"].(string)
		out[e.(map[string]any)["name"].(string)] = v
	}
	return out
}

// Keys are placed by slot: logic and das must find theirs again after a restart, at whatever
// address; and their names must resolve before they are ready.
func TestPlacedTiersAdvertiseNamesThatStay(t *testing.T) {
	objects := render(t, nil)
	for _, tier := range []string{"logic", "das"} {
		work, service := objects["StatefulSet/im-"+tier], objects["Service/im-"+tier]
		if got, want := env(t, work)["HONGYAN_CLUSTER_ADVERTISE"], "$(POD_NAME).im-"+tier+":9100"; got != want {
			t.Errorf("%s advertises %q, want %q", tier, got, want)
		}
		if work.at("spec", "serviceName") != "im-"+tier || service.at("spec", "clusterIP") != "None" || service.at("spec", "publishNotReadyAddresses") != true {
			t.Errorf("%s: the service %v does not give its pods names", tier, service.at("spec"))
		}
	}
}

func TestMemoryLeavesRoomBelowTheLimit(t *testing.T) {
	objects := render(t, nil)
	for kind, want := range map[string]string{"Deployment/im-entry": "7372MiB", "Deployment/im-imui": "460MiB", "StatefulSet/im-das": "3686MiB"} {
		if got := env(t, objects[kind])["GOMEMLIMIT"]; got != want {
			t.Errorf("%s: GOMEMLIMIT %q, want %q", kind, got, want)
		}
	}
}

// A pod that is killed while it drains throws its clients out at once.
func TestDrainHasItsTime(t *testing.T) {
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	for delay, want := range map[string]string{"40s": "", "41s": "are 61 s", "1m": "are 80 s", "1h": "not whole seconds"} {
		gate := map[string]any{"entry": map[string]any{"gate": map[string]any{"drain_delay": delay}}}
		values, err := chartutil.ToRenderValues(c, map[string]any{"tiers": map[string]any{"entry": map[string]any{"config": gate}}}, chartutil.ReleaseOptions{Name: "im"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = engine.Render(c, values); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("a drain_delay of %s: %v, want %q", delay, err, want)
		}
	}
}

// The alerts go by the job hongyan-TIER.
func TestPodMonitorsNameTheJob(t *testing.T) {
	objects := render(t, map[string]any{"podMonitor": map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}})
	for _, tier := range tiers() {
		m := objects["PodMonitor/im-"+tier]
		if got := m.at("spec", "podMetricsEndpoints", "relabelings", "replacement"); got != "hongyan-"+tier {
			t.Errorf("%s is scraped as job %v", tier, got)
		}
		if m.at("metadata", "labels", "release") != "prometheus" {
			t.Errorf("%s: labels %v", tier, m.at("metadata", "labels"))
		}
	}
	if render(t, nil)["PodMonitor/im-das"] != nil {
		t.Error("a PodMonitor without being asked for")
	}
}

func TestGatewaysScaleByConnections(t *testing.T) {
	on := map[string]any{"tiers": map[string]any{"entry": map[string]any{"autoscale": map[string]any{"enabled": true}}}}
	objects := render(t, on)
	if got := objects["HorizontalPodAutoscaler/im-entry"].at("spec", "metrics", "pods", "metric", "name"); got != "hongyan_entry_connections" {
		t.Errorf("it scales by %v", got)
	}
	if objects["Deployment/im-entry"].at("spec", "replicas") != nil {
		t.Error("the deployment says how many as well")
	}
}
