package redis_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence/redis"
)

// shared names the Redis that tests share, each under a prefix of its own.
func shared(t testing.TB) string {
	t.Helper()
	addr := os.Getenv("HONGYAN_TEST_REDIS")
	missing(t, addr == "", "HONGYAN_TEST_REDIS is not set: run make servers")
	return addr
}

// missing skips a test, or fails it where servers are required.
func missing(t testing.TB, is bool, why string) {
	t.Helper()
	switch {
	case is && os.Getenv("HONGYAN_TEST_REQUIRE_SERVERS") != "":
		t.Fatal(why)
	case is:
		t.Skip(why)
	}
}

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

// server is a process of this test's own.
type server struct {
	t       testing.TB
	program string
	args    []string
	dir     string
	port    int
	cmd     *exec.Cmd
	ended   chan struct{}
}

func (s *server) addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// binary of Redis: the one that make servers keeps, or the machine's.
func binary(t testing.TB) string {
	t.Helper()
	cache := os.Getenv("SERVERS_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(dir, "hongyan", "servers")
	}
	found, _ := filepath.Glob(filepath.Join(cache, "redis-*", "redis-server"))
	slices.Sort(found)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath("redis-server")
	missing(t, err != nil, "no redis-server: run make servers SERVERS=redis")
	return path
}

// start runs redis-server on a free port until the test ends.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{t: t, program: binary(t), args: args, dir: t.TempDir(), port: freePort(t)}
	t.Cleanup(func() { s.signal(syscall.SIGKILL); s.wait() })
	s.start()
	return s
}

// start begins, or begins again on the same port, without data.
func (s *server) start() {
	s.t.Helper()
	args := s.args
	if !slices.Contains(args, "--sentinel") {
		args = append([]string{"--save", "", "--appendonly", "no"}, args...)
	}
	args = append(args, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir)
	s.cmd = exec.Command(s.program, args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	eventually(s.t, "redis-server listens", func() bool {
		c, err := net.DialTimeout("tcp", s.addr(), time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *server) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }
func (s *server) wait()                     { <-s.ended }

func (s *server) kill() { s.signal(syscall.SIGKILL); s.wait() }

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
func startCluster(t testing.TB) []*server {
	t.Helper()
	var nodes []*server
	for range 3 {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(t)),
			"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"))
	}
	for i, n := range nodes {
		c := one(t, n.addr())
		do(t, c, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*5462), fmt.Sprint(min(i*5462+5461, 16383)))
		do(t, c, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, n := range nodes[1:] {
		do(t, one(t, nodes[0].addr()), "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(n.port), n.args[3])
	}
	for _, n := range nodes {
		c := one(t, n.addr())
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
func startSentinel(t testing.TB, port int) *server {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor presence 127.0.0.1 %d 2\nsentinel down-after-milliseconds presence 500\n"+
		"sentinel failover-timeout presence 3000\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, conf, "--sentinel")
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
