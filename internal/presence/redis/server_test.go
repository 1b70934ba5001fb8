package redis_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence/redis"
	"hongyan/tests/servers"
)

// config of a cache on one server.
func config(addr string) redis.Config {
	cfg := redis.DefaultConfig()
	cfg.Addrs = []string{addr}
	cfg.Prefix = "hongyan:test:" + rand.Text() + ":"
	return cfg
}

func open(t testing.TB, cfg redis.Config) *redis.Cache {
	t.Helper()
	c, err := redis.Open(t.Context(), cfg, redis.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// admin is a client that looks behind the cache.
func admin(t testing.TB, addrs ...string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, DisableCache: true, Dialer: net.Dialer{Timeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func do(t testing.TB, c rueidis.Client, args ...string) rueidis.RedisResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r := c.Do(ctx, c.B().Arbitrary(args...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%v: %v", args, err)
	}
	return r
}

// keys of a prefix.
func keys(t testing.TB, c rueidis.Client, prefix string) []string {
	t.Helper()
	all, err := do(t, c, "KEYS", prefix+"*").AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func clean(t testing.TB, c rueidis.Client, prefix string) {
	t.Helper()
	for _, key := range keys(t, c, prefix) {
		do(t, c, "UNLINK", key)
	}
}

// freePort of loopback.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startCluster runs a Redis cluster of three primaries.
func startCluster(t testing.TB) []*servers.Redis {
	t.Helper()
	var nodes []*servers.Redis
	for range 3 {
		nodes = append(nodes, servers.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(t)),
			"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"))
	}
	for i, n := range nodes {
		c := one(t, n.Addr)
		do(t, c, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*5462), fmt.Sprint(min(i*5462+5461, 16383)))
		do(t, c, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, n := range nodes[1:] {
		do(t, one(t, nodes[0].Addr), "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(n.Port), n.Args[3])
	}
	for _, n := range nodes {
		c := one(t, n.Addr)
		eventually(t, "the cluster is formed", func() bool {
			info, err := do(t, c, "CLUSTER", "INFO").ToString()
			// The state may be ok before all slots are known, and slots known before it is ok.
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") &&
				strings.Contains(info, "cluster_slots_ok:16384")
		})
	}
	return nodes
}

// startSentinel runs a sentinel that watches "presence" on a port.
func startSentinel(t testing.TB, port int) *servers.Redis {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor presence 127.0.0.1 %d 2\nsentinel down-after-milliseconds presence 500\n"+
		"sentinel failover-timeout presence 3000\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return servers.StartRedis(t, conf, "--sentinel")
}

// one is a client of this very server, whatever it is part of.
func one(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// eventually polls until a thing holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
