package rocketmq

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"hongyan/internal/mq"
	"hongyan/internal/mq/mqtest"
	"hongyan/internal/mq/rocketmq/remoting"
	"hongyan/tests/servers"
)

// server is the address of the name server that tests use.
func server(t testing.TB) string {
	t.Helper()
	return servers.Shared(t, "HONGYAN_TEST_ROCKETMQ")
}

// config has names of its own, which are removed at the end, and retries after 1 s.
func config(t testing.TB, addr string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.NameServers = []string{addr}
	cfg.Prefix = "t" + strings.ToLower(rand.Text()[:8]) + "_"
	cfg.CreateTopics = true
	cfg.Queues = 4
	cfg.Slots = 8
	cfg.RetryLevels = []int{1}
	t.Cleanup(func() { remove(t, cfg) })
	return cfg
}

// remove drops every topic and group of a configuration's prefix.
func remove(t testing.TB, cfg Config) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ts := &topics{cfg: &cfg}
	masters, err := ts.masters(ctx)
	if err != nil {
		t.Logf("topics are not removed: %v", err)
		return
	}
	for _, topic := range []string{"t", "other", mq.TopicOnline, mq.TopicSystem} {
		for _, name := range []string{"", "g", "a", "b", "late", "other", "h", "gg", "all"} {
			group := cfg.groupName(topic, name)
			for _, addr := range masters {
				if name != "" {
					_, _ = ts.call(ctx, addr, remoting.DeleteGroup, map[string]string{"groupName": group, "removeOffset": "true"}, nil)
				}
				for _, dropped := range []string{cfg.topicName(topic), retryPrefix + group, deadPrefix + group} {
					_, _ = ts.call(ctx, addr, remoting.DropTopic, map[string]string{"topic": dropped}, nil)
					_, _ = ts.call(ctx, cfg.NameServers[0], remoting.ForgetTopic, map[string]string{"topic": dropped}, nil)
				}
			}
		}
	}
}

func open(t testing.TB, cfg Config) *Queue {
	t.Helper()
	var log *slog.Logger
	if os.Getenv("HONGYAN_TEST_VERBOSE") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	q, err := Open(t.Context(), cfg, Deps{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestSuite(t *testing.T) {
	addr := server(t)
	mqtest.Run(t, mqtest.Backend{
		Backoff:   100 * time.Millisecond,
		Overtakes: true,
		Patience:  90 * time.Second,
		Open: func(t *testing.T, opt mqtest.Options) mq.Queue {
			cfg := config(t, addr)
			cfg.Parallel = cmp.Or(opt.Parallel, cfg.Parallel)
			return open(t, cfg)
		},
	})
}
