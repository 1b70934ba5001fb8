package pebblestore_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
	pebblestore "hongyan/das/store/pebble"
)

func TestLockedDirectory(t *testing.T) {
	cfg := small()
	cfg.Dir = t.TempDir()
	first := open(t, cfg, nil)
	if !first.Exclusive() {
		t.Error("not exclusive")
	}
	want := "data directory " + cfg.Dir + " is in use by another process"
	_, err := pebblestore.Open(cfg, pebblestore.Deps{})
	if !errors.Is(err, pebblestore.ErrLocked) || err.Error() != want {
		t.Errorf("second open: %v, want %q", err, want)
	}
	out, err := exec.Command(os.Args[0], "-test.run=TestHelperOpens", "-test.v", "open="+cfg.Dir).CombinedOutput()
	if !bytes.Contains(out, []byte(want)) {
		t.Errorf("open by another process: %v, %s, want %q", err, out, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	open(t, cfg, nil)
}

// TestHelperOpens is the other process of TestLockedDirectory.
func TestHelperOpens(t *testing.T) {
	dir, ok := strings.CutPrefix(os.Args[len(os.Args)-1], "open=")
	if !ok {
		t.Skip("runs as a process of its own")
	}
	cfg := small()
	cfg.Dir = dir
	_, err := pebblestore.Open(cfg, pebblestore.Deps{})
	t.Log(err)
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, small(), fs)
	if err := s.SetFormat(2); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := pebblestore.Open(small(), pebblestore.Deps{FS: fs})
	if err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("open: %v, want it to name format 2", err)
	}
}

func TestUnwritableDirectory(t *testing.T) {
	cfg := small()
	cfg.Dir = t.TempDir() + "/file/data"
	if err := os.WriteFile(strings.TrimSuffix(cfg.Dir, "/data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pebblestore.Open(cfg, pebblestore.Deps{}); err == nil || !strings.Contains(err.Error(), cfg.Dir) {
		t.Errorf("open: %v, want it to name %s", err, cfg.Dir)
	}
}

func TestConfig(t *testing.T) {
	if err := pebblestore.DefaultConfig().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	for name, spoil := range map[string]func(*pebblestore.Config){
		"dir":           func(c *pebblestore.Config) { c.Dir = "" },
		"cache_mib":     func(c *pebblestore.Config) { c.CacheMiB = 0 },
		"mem_table_mib": func(c *pebblestore.Config) { c.MemTableMiB = -1 },
		"head_convs":    func(c *pebblestore.Config) { c.HeadConvs = 0 },
		"head_rows":     func(c *pebblestore.Config) { c.HeadRows = 1 },
	} {
		cfg := pebblestore.DefaultConfig()
		spoil(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := pebblestore.Open(cfg, pebblestore.Deps{}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestCloseNamesOpenViews(t *testing.T) {
	var log bytes.Buffer
	s, err := pebblestore.Open(small(), pebblestore.Deps{FS: vfs.NewMem(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "1 views") {
		t.Errorf("close: %v", err)
	}
	if _, err := v.Conv(chat); !errors.Is(err, store.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	v.Close()
	if log.Len() > 0 {
		t.Errorf("a quiet life was logged: %s", log.String())
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s, err := pebblestore.Open(small(), pebblestore.Deps{FS: vfs.NewMem(), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, nth(1))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	if len(got) != 7 || got["hongyan_store_heads"] != 2 || got["hongyan_store_broken"] != 0 || got["hongyan_store_disk_bytes"] == 0 {
		t.Errorf("metrics: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Gather(); err != nil {
		t.Errorf("metrics of a closed store: %v", err)
	}
}
