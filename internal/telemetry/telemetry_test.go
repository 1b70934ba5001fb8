package telemetry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestLoggerWritesLevelAndSource(t *testing.T) {
	var buf bytes.Buffer
	log := NewLogger(Config{Level: "warn", Format: "json"}, &buf)
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
	a, err := ListenAdmin("127.0.0.1:0", NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenAdmin(a.Addr(), NewRegistry()); err == nil {
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
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
