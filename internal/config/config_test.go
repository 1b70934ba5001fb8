package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type limits struct {
	MaxBody int           `koanf:"max_body" live:"true"`
	Idle    time.Duration `koanf:"idle"`
}

type sample struct {
	Data   string         `koanf:"data"`
	Secret string         `koanf:"secret" secret:"true"`
	Entry  limits         `koanf:"entry"`
	List   []string       `koanf:"list"`
	Lanes  map[string]int `koanf:"lanes"`
}

func defaults() sample {
	return sample{Data: "data", Entry: limits{MaxBody: 10, Idle: time.Second}, Lanes: map[string]int{"message": 1}}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hongyan.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadPrecedence(t *testing.T) {
	cfg := defaults()
	err := Load(&cfg, Sources{
		File:  writeFile(t, "data: from-file\nentry:\n  max_body: 20\n  idle: 2s\nlanes: {query: 2}\n"),
		Env:   []string{"HONGYAN_ENTRY_MAX_BODY=30", "HONGYAN_LIST=a,b", "PATH=/bin"},
		Flags: map[string]any{"data": "from-flag"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Data != "from-flag" || cfg.Entry.MaxBody != 30 || cfg.Entry.Idle != 2*time.Second || len(cfg.List) != 2 ||
		cfg.Lanes["message"] != 1 || cfg.Lanes["query"] != 2 {
		t.Fatalf("got %+v", cfg)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		src  func(t *testing.T) Sources
		want string
	}{
		"unknown key in file":   {func(t *testing.T) Sources { return Sources{File: writeFile(t, "entry:\n  max_bdy: 1\n")} }, "unknown key max_bdy in entry"},
		"unknown section":       {func(t *testing.T) Sources { return Sources{File: writeFile(t, "entri: {}")} }, "unknown key entri"},
		"unknown variable":      {func(*testing.T) Sources { return Sources{Env: []string{"HONGYAN_ENTRY_MAX_BDY=1"}} }, "HONGYAN_ENTRY_MAX_BDY"},
		"not YAML":              {func(t *testing.T) Sources { return Sources{File: writeFile(t, "a: [")} }, "not YAML"},
		"missing file":          {func(*testing.T) Sources { return Sources{File: "/nonexistent/x.yaml"} }, "read configuration"},
		"wrong type":            {func(t *testing.T) Sources { return Sources{File: writeFile(t, "entry: {max_body: many}")} }, "max_body"},
		"duration without unit": {func(t *testing.T) Sources { return Sources{File: writeFile(t, "entry: {idle: 5}")} }, "unit"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaults()
			err := Load(&cfg, c.src(t))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

func TestYAMLHidesSecretsAndLoadsAgain(t *testing.T) {
	cfg := defaults()
	cfg.Secret = "s3cret"
	out, err := YAML(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "s3cret") || !strings.Contains(string(out), "idle: 1s") {
		t.Fatalf("got:\n%s", out)
	}
	again := defaults()
	if err := Load(&again, Sources{File: writeFile(t, string(out))}); err != nil {
		t.Fatal(err)
	}
	if again.Entry != cfg.Entry {
		t.Fatalf("got %+v", again)
	}
}

func TestOverlayIsBetweenFileAndEnvironment(t *testing.T) {
	load := func(overlay string) (sample, error) {
		cfg := defaults()
		err := Load(&cfg, Sources{
			File:    writeFile(t, "data: from-file\nentry:\n  max_body: 20\n  idle: 2s\n"),
			Overlay: []byte(overlay), OverlayName: "config/entry", OverlayFixed: []string{"data", "entry.idle"},
			Env: []string{"HONGYAN_LIST=a,b"},
		})
		return cfg, err
	}
	cfg, err := load("entry: {max_body: 30}\nlist: [c]\nlanes: {query: 2}\n")
	if err != nil || cfg.Data != "from-file" || cfg.Entry.MaxBody != 30 || cfg.Entry.Idle != 2*time.Second || len(cfg.List) != 2 || cfg.Lanes["query"] != 2 {
		t.Errorf("got %+v, %v", cfg, err)
	}
	for overlay, want := range map[string]string{
		"data: x":                 "config/entry: data is of this process alone",
		"entry: {idle: 3s}":       "config/entry: entry.idle is of this process alone",
		"entry: {max_bdy: 3}":     "config/entry: unknown key max_bdy",
		"entry: {max_body: many}": "max_body",
		"[":                       "config/entry is not YAML",
		"- a":                     "config/entry is not YAML",
	} {
		if _, err := load(overlay); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", overlay, err, want)
		}
	}
}

func TestChangedAndLiveKeys(t *testing.T) {
	a, b := defaults(), defaults()
	if got := Changed(&a, &b); got != nil {
		t.Errorf("equal ones differ in %v", got)
	}
	b.Entry.MaxBody++
	b.Lanes["message"] = 5
	b.List = []string{"x"}
	if got := strings.Join(Changed(&a, &b), " "); got != "entry.max_body lanes list" {
		t.Errorf("changed: %s", got)
	}
	if got := strings.Join(LiveKeys(&a), " "); got != "entry.max_body" {
		t.Errorf("live: %s", got)
	}
}

func FuzzOverlay(f *testing.F) {
	f.Add([]byte("entry: {max_body: 30}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		cfg := defaults()
		_ = Load(&cfg, Sources{Overlay: data, OverlayName: "x", OverlayFixed: []string{"data", "entry.idle"}})
	})
}
