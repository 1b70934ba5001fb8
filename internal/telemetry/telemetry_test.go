package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

func TestLoggerWritesLevelAndSource(t *testing.T) {
	var buf bytes.Buffer
	log := NewLogger(Config{Format: "json"}, slog.LevelWarn, &buf)
	log.Info("not this")
	log.Warn("this")
	if out := buf.String(); strings.Contains(out, "not this") || !strings.Contains(out, `"at":"telemetry/telemetry_test.go:`) {
		t.Fatalf("got %s", out)
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]Config{
		"level":  {Level: "loud", Format: "text"},
		"format": {Level: "info", Format: "xml"},
		"admin":  {Level: "info", Format: "text", Admin: "nonsense"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestAdminServesMetrics(t *testing.T) {
	var reasons atomic.Pointer[[]string]
	reasons.Store(&[]string{"starting"})
	a, err := ListenAdmin("127.0.0.1:0", NewRegistry(), func() []string { return *reasons.Load() })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenAdmin(a.Addr(), NewRegistry(), nil); err == nil {
		t.Fatal("a busy port was not refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	rsp, err := http.Get("http://" + a.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(rsp.Body)
	rsp.Body.Close()
	if !strings.Contains(string(body), "go_goroutines") {
		t.Fatalf("got %s", body)
	}
	ready := func() (int, string) {
		rsp, err := http.Get("http://" + a.Addr() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer rsp.Body.Close()
		body, _ := io.ReadAll(rsp.Body)
		return rsp.StatusCode, string(body)
	}
	if status, text := ready(); status != http.StatusServiceUnavailable || text != "starting\n" {
		t.Errorf("before it is ready: %d %q", status, text)
	}
	reasons.Store(&[]string{})
	if status, _ := ready(); status != http.StatusOK {
		t.Errorf("ready: %d", status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLevelChangesWhileItRuns(t *testing.T) {
	var buf bytes.Buffer
	level := new(slog.LevelVar)
	log := NewLogger(DefaultConfig(), level, &buf)
	log.Debug("first")
	level.Set(Config{Level: "debug"}.SlogLevel())
	log.Debug("second")
	if out := buf.String(); strings.Contains(out, "first") || !strings.Contains(out, "second") {
		t.Errorf("logged %s", out)
	}
}
