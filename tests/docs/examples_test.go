// Package docs runs the examples of the pages in docs against a real 'hongyan dev', and those of
// docs/cluster.md against a cluster on real servers.
package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hongyan/tests/e2e/cluster"
)

// blocks are the fenced blocks of a language on a page, in order.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(text, -1) {
		out = append(out, string(m[1]))
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return out
}

// run executes a command and returns what it printed; it must succeed.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
	return out.String()
}

// TestHTTPExamples runs every line of docs/http-api.md, in order, in one shell. Any status
// that is an error ends it.
func TestHTTPExamples(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "openssl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the examples need %s: %v", tool, err)
		}
	}
	s := cluster.Dev(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"bin/hongyan": cluster.Binary(t), "data": s.Data} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte("fail-with-body\nshow-error\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := strings.Join(blocks(t, "http-api.md", "sh"), "")
	if !strings.Contains(script, "HTTP=http://127.0.0.1:8000") {
		t.Fatal("the first block does not name the server")
	}
	script = strings.Replace(script, "http://127.0.0.1:8000", s.HTTP[0], 1)
	out := run(t, dir, []string{"CURL_HOME=" + dir}, "sh", "-eux", "-c", script)
	for _, want := range []string{`"seq":"1"`, `"remark":"Bobby"`, `"online":`, `"nextCursor":`, `"duplicate":false`, `"ready":true`} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing printed %s:\n%s", want, out)
		}
	}
}

// TestGoExample runs the program of docs/clients.md, once over TCP and once over long poll.
func TestGoExample(t *testing.T) {
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(blocks(t, "clients.md", "go")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	s := cluster.Dev(t)
	for name, first := range map[string]string{"tcp": "tcp://" + s.TCP[0], "long poll": s.HTTP[0]} {
		t.Run(name, func(t *testing.T) {
			out := run(t, "../..", []string{
				"TCP=" + first, "HTTP=" + s.HTTP[0], "ALICE=" + s.Token(t, "alice"), "BOB=" + s.Token(t, "bob"),
			}, "go", "run", file)
			if !strings.Contains(out, "bob reads: hello\n") || !strings.Contains(out, "stored: ") {
				t.Errorf("it printed %q", out)
			}
		})
	}
}
