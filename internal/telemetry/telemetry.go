// Package telemetry is what a process tells about itself: structured logs, and an admin
// listener with metrics, health and profiles that is never exposed to clients.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config of logs and the admin listener.
type Config struct {
	// Level is debug, info, warn or error.
	Level string `koanf:"level" live:"true"`
	// Format is text or json.
	Format string `koanf:"format"`
	// Dir takes one file a day, <name>-2026-11-22.log; empty = standard error.
	Dir string `koanf:"dir"`
	// KeepDays is how many days' files stay in Dir; 0 = all.
	KeepDays int `koanf:"keep_days"`
	// Admin is the host:port of /metrics, /healthz and /debug/pprof; empty = none. Bind it
	// to loopback or an internal network.
	Admin string `koanf:"admin"`
}

// DefaultConfig logs readable lines from info on, to standard error.
func DefaultConfig() Config { return Config{Level: "info", Format: "text", KeepDays: 14} }

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return fmt.Errorf("level %q: must be debug, info, warn or error", c.Level)
	}
	if c.Format != "text" && c.Format != "json" {
		return fmt.Errorf("format %q: must be text or json", c.Format)
	}
	if c.KeepDays < 0 {
		return fmt.Errorf("keep_days %d: must be at least 0", c.KeepDays)
	}
	if c.Admin != "" {
		if _, _, err := net.SplitHostPort(c.Admin); err != nil {
			return fmt.Errorf("admin %q: %w", c.Admin, err)
		}
	}
	return nil
}

// SlogLevel is Level, info if that is not valid.
func (c Config) SlogLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // info stays
	return level
}

// NewLogger writes to w, with the source line of each record. c must be valid. The level may
// change meanwhile: a slog.LevelVar.
func NewLogger(c Config, level slog.Leveler, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, AddSource: true, ReplaceAttr: shortSource}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// shortSource keeps "logic/push.go:42" of a whole path.
func shortSource(groups []string, a slog.Attr) slog.Attr {
	if a.Key != slog.SourceKey || len(groups) > 0 {
		return a
	}
	if src, ok := a.Value.Any().(*slog.Source); ok {
		dir, file := filepath.Split(src.File)
		return slog.String("at", fmt.Sprintf("%s/%s:%d", filepath.Base(dir), file, src.Line))
	}
	return a
}

// NewRegistry is a metrics registry with the process's own figures in it.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// Admin serves the admin listener.
type Admin struct {
	listener net.Listener
	server   *http.Server
}

// ListenAdmin takes the port at once, so that a busy one is known at the start.
// notReady names what keeps the process from serving; empty = nothing.
func ListenAdmin(addr string, metrics prometheus.Gatherer, notReady func() []string) (*Admin, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reasons := notReady(); len(reasons) > 0 {
			http.Error(w, strings.Join(reasons, "; "), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	return &Admin{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

// Addr it listens on.
func (a *Admin) Addr() string { return a.listener.Addr().String() }

// Run serves until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	stopped := context.AfterFunc(ctx, func() { _ = a.server.Close() })
	defer stopped()
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin listener: %w", err)
	}
	return nil
}
