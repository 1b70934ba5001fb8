package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The committed page is what sources and program make: who changes a configuration struct or
// its comments runs `make gen`.
func TestConfigurationPageIsUpToDate(t *testing.T) {
	want, err := generate("../../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("../../..", page))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is stale: run make gen", page)
	}
}

// small is a program with one of each.
var small = map[string]string{
	"go.mod": "module small\n",
	"cmd/small/config.go": `package main

import (
	"time"

	gw "small/gateway"
	"small/work"
)

// Config is everything.
type Config struct {
	// Dir is where it all stands.
	Dir string ` + "`koanf:\"dir\"`" + `

	Gateway gw.Config  ` + "`koanf:\"gateway\"`" + `
	Work    work.Config ` + "`koanf:\"work\"`" + `
	Later   LaterConfig ` + "`koanf:\"later\"`" + `
	started time.Time
}

// LaterConfig is for later.
type LaterConfig struct {
	Log *int ` + "`koanf:\"-\"`" + `
	After time.Duration ` + "`koanf:\"after\"`" + ` // in which Log|s are kept
}
`,
	"gateway/config.go": `// Package gateway lets people in. It does more.
package gateway

type Config struct {
	// MaxBody in bytes, MaxHead
	// likewise.
	MaxBody int ` + "`koanf:\"max_body\"`" + `
	MaxHead int ` + "`koanf:\"max_head\"`" + `

	Level Level ` + "`koanf:\"level\" live:\"true\"`" + `
	// Apps are who may call.
	Apps []App ` + "`koanf:\"apps\"`" + `
}

type Level string

// App calls.
type App struct {
	Key string ` + "`koanf:\"key\" secret:\"true\"`" + ` // at least 16 bytes
}
`,
	"work/config.go": `package work

type Config struct {
	Lanes map[string]Lane ` + "`koanf:\"lanes\"`" + ` // by <name>
}

type Lane struct {
	Size int ` + "`koanf:\"size\"`" + ` // at most Size
}
`,
}

const smallPrinted = `dir: data
gateway: {max_body: 1, max_head: 2, level: "", apps: []}
work: {lanes: {a: {size: 1}}}
later: {after: 5s}
`

func smallFields(t *testing.T, change ...string) ([]*field, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range small {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.NewReplacer(change...).Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := newSources(dir)
	if err != nil {
		return nil, err
	}
	return s.root("cmd/small", "Config")
}

func TestRender(t *testing.T) {
	fields, err := smallFields(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := addDefaults(fields, []byte(smallPrinted)); err != nil {
		t.Fatal(err)
	}
	got, ok := strings.CutPrefix(string(render(fields)), introduction)
	if !ok {
		t.Fatal("the page does not begin with the introduction")
	}
	const head = "\n| key | environment | default | meaning |\n|---|---|---|---|\n"
	want := "\n## The process\n" + head +
		"| `dir` | `HONGYAN_DIR` | `data` | where it all stands |\n" +
		"\n## gateway\n\n`gateway` lets people in.\n" + head +
		"| `gateway.max_body` | `HONGYAN_GATEWAY_MAX_BODY` | `1` | `max_body` in bytes, `max_head` likewise |\n" +
		"| `gateway.max_head` | `HONGYAN_GATEWAY_MAX_HEAD` | `2` | see `max_body` |\n" +
		"| `gateway.level` | `HONGYAN_GATEWAY_LEVEL` |  | **live:** |\n" +
		"| `gateway.apps` |  | `[]` | who may call |\n" +
		"| `gateway.apps[].key` |  |  | **secret:** at least 16 bytes |\n" +
		"\n## work\n" + head +
		"| `work.lanes` |  | `{a: {size: 1}}` | by &lt;name&gt; |\n" +
		"| `work.lanes.<name>.size` |  |  | at most `size` |\n" +
		"\n## later\n\n`later` is for later.\n" + head +
		"| `later.after` | `HONGYAN_LATER_AFTER` | `5s` | in which Log\\|s are kept |\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGenerateRefuses(t *testing.T) {
	cases := []struct {
		name, printed, want string
		change              []string
	}{
		{name: "a key that is not printed", printed: "dir: data", want: "gateway is in the sources"},
		{name: "a key that is printed only", printed: smallPrinted + "new: 1\n", want: "the program prints new"},
		{name: "nothing printed", want: "is empty"},
		{name: "no YAML", printed: "a: [", want: "printed configuration"},
		{name: "no such type", change: []string{"work.Config", "work.Missing"}, want: "no type Missing"},
		{name: "no root", change: []string{"type Config struct {\n\t// Dir", "type Other struct {\n\t// Dir"}, want: "no type Config"},
		{name: "no Go", change: []string{"package work", "packing"}, want: "config.go"},
		{name: "no module", change: []string{"module small", "go 1"}, want: "go.mod"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fields, err := smallFields(t, c.change...)
			if err == nil {
				err = addDefaults(fields, []byte(c.printed))
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}
