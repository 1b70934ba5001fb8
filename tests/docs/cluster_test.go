package docs

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"hongyan/tests/e2e/cluster"
)

// script of deploy/local, whose cluster a test may have beside the one of whoever runs it.
const (
	script      = "deploy/local/cluster.sh"
	portsOffset = 5000
)

// The configuration that docs/cluster.md shows is the one that the script uses.
func TestClusterPageShowsTheConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../deploy/local/hongyan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if shown := blocks(t, "cluster.md", "yaml"); len(shown) != 1 || shown[0] != string(text) {
		t.Error("the yaml block of docs/cluster.md is not deploy/local/hongyan.yaml")
	}
}

// TestClusterQuickStart starts a cluster as docs/cluster.md says, under a name of its own, and
// runs every line of the page but those that break the servers, which others may use.
func TestClusterQuickStart(t *testing.T) {
	cluster.RequireEngines(t)
	page := strings.Join(blocks(t, "cluster.md", "sh"), "")
	if start := blocks(t, "cluster.md", "sh start")[0]; !strings.Contains(start, script+" up") {
		t.Errorf("the page does not start with %s up", script)
	}
	t.Chdir("../..") // the paths of the page are those of a checkout
	state := filepath.Join(t.TempDir(), "cluster")
	env := []string{
		"CLUSTER_NAME=hy" + strings.ToLower(rand.Text()[:8]), "CLUSTER_STATE=" + state,
		"CLUSTER_OFFSET=" + strconv.Itoa(portsOffset), "HONGYAN_BIN=" + cluster.Binary(t),
	}
	call := func(command string) (string, error) {
		cmd := exec.Command(script, command)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() { // what the page does at its end, if it did not come to it
		for _, command := range []string{"down", "reset"} {
			if out, err := call(command); err != nil {
				t.Errorf("%s %s: %v\n%s", script, command, err, out)
			}
		}
	})
	if out, err := call("up"); err != nil {
		t.Fatalf("%s up: %v\n%s", script, err, out)
	}
	page = strings.NewReplacer("bin/hongyan", cluster.Binary(t), "data/cluster", state).Replace(page)
	page = regexp.MustCompile(`127\.0\.0\.1:(\d+)`).ReplaceAllStringFunc(page, func(addr string) string {
		port, _ := strconv.Atoi(addr[len("127.0.0.1:"):])
		return fmt.Sprintf("127.0.0.1:%d", port+portsOffset)
	})
	out := run(t, ".", env, "sh", "-eux", "-c", page)
	for _, want := range []string{
		", 0 violations", "s1     127.0.0.1:", "bob: it is on its way", `"text":"it is on its way"`, `{"id":`, "lost             0 ",
		"logic  3     127.0.0.1:", "8 of 8 buckets moved from s0 to s1", "8 of 8 buckets moved from s1 to s0", "refused, as it should be",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing printed %s:\n%s", want, out)
		}
	}
}
