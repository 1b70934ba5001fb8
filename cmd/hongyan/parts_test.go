package main

import (
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"

	"hongyan/internal/telemetry"
	"hongyan/tests/servers"
)

// Whoever publishes and whoever consumes in a process share one client of RocketMQ. Seen red:
// each opened its own.
func TestOneClientOfRocketMQ(t *testing.T) {
	cfg := defaultConfig()
	cfg.Queue.NameServers = []string{servers.Shared(t, "HONGYAN_TEST_ROCKETMQ")}
	cfg.Queue.Prefix = "t" + strings.ToLower(rand.Text()[:8]) + "_"
	p := &process{supervisor: supervisor{log: slog.New(slog.DiscardHandler)}, cfg: &cfg, metrics: telemetry.NewRegistry()}
	hosted, err := p.openQueue()
	if err != nil {
		t.Fatal(err)
	}
	reached, err := p.reachQueue()
	if err != nil {
		t.Fatal(err)
	}
	online, err := p.broadcastQueue()
	if err != nil {
		t.Fatal(err)
	}
	if reached != hosted || online != hosted {
		t.Error("more than one client")
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}
