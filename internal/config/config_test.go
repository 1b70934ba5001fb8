package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type limits struct {
	MaxBody int           `koanf:"max_body"`
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
