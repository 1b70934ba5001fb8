package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMF12OneFileADayWithSourceLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := DefaultConfig()
		cfg.Dir, cfg.Format, cfg.KeepDays = filepath.Join(dir, "log"), "json", 3
		out, err := Open(cfg, "logic-0", nil)
		if err != nil {
			t.Fatal(err)
		}
		log := NewLogger(cfg, cfg.SlogLevel(), out)
		first := time.Now()
		for range 5 {
			log.Info("hello", "uid", "alice")
			log.Debug("not this")
			time.Sleep(24 * time.Hour)
		}
		var want []string
		for day := 2; day < 5; day++ { // a file is opened with its first line; three days' are kept
			want = append(want, "logic-0-"+first.AddDate(0, 0, day).Format("2006-01-02")+".log")
		}
		if got := names(t, cfg.Dir); !slices.Equal(got, want) {
			t.Fatalf("files %v, want %v", got, want)
		}
		text, err := os.ReadFile(filepath.Join(cfg.Dir, want[0]))
		if err != nil {
			t.Fatal(err)
		}
		var line struct{ Level, Msg, UID, At string }
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if line.Msg != "hello" || line.UID != "alice" || line.Level != "INFO" || !strings.HasPrefix(line.At, "telemetry/daily_test.go:") {
			t.Errorf("line %+v", line)
		}
		if strings.Contains(string(text), "not this") {
			t.Errorf("a line below the level was written: %q", text)
		}
		if err := errors.Join(out.Close(), out.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"logic-1-2001-01-01.log", "logic-2001-01-01.log", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := Open(Config{Dir: dir, KeepDays: 1}, "logic", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	want := []string{"logic-" + time.Now().Format("2006-01-02") + ".log", "logic-1-2001-01-01.log", "notes.txt"}
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func TestLogToStderr(t *testing.T) {
	var stderr bytes.Buffer
	cfg := Config{Format: "text", Level: "warn"}
	out, err := Open(cfg, "", &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log := NewLogger(cfg, cfg.SlogLevel(), out)
	log.Info("quiet")
	log.Warn("loud")
	if got := stderr.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "msg=loud") || !strings.Contains(got, "at=telemetry/") {
		t.Errorf("wrote %q", got)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadLogFiles(t *testing.T) {
	if (Config{Level: "info", Format: "text", KeepDays: -1}).Validate() == nil {
		t.Error("keep_days below 0 was taken")
	}
	for _, name := range []string{"", "../x", "x*", "a/b"} {
		if _, err := Open(Config{Dir: t.TempDir()}, name, nil); err == nil {
			t.Errorf("file name %q was taken", name)
		}
	}
	if _, err := Open(Config{Dir: "/dev/null/x"}, "x", nil); err == nil {
		t.Error("a directory that cannot be made was taken")
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
