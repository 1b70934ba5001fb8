package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Redis is the presence cache: a server, sentinels, or nodes of a cluster.
type Redis struct {
	Addrs []string
	// Sentinel tells that the addresses are sentinels' of the primary Master.
	Sentinel bool
	Master   string
	Cluster  bool

	User, Password                 string
	SentinelUser, SentinelPassword string
	TLS                            *tls.Config // nil = none
}

// redisServer is one server with what it said of itself.
type redisServer struct {
	client  rueidis.Client
	cluster bool
	info    map[string]string
}

// examine looks at each address by itself: a client of the whole would hide one that is away.
func (r *Redis) examine(ctx context.Context, k *skews) (findings []Finding) {
	for _, addr := range r.Addrs {
		if r.Sentinel {
			findings = append(findings, r.examineSentinel(ctx, addr, k)...)
			continue
		}
		findings = append(findings, r.examineServer(ctx, addr, k)...)
	}
	return findings
}

func (r *Redis) dial(addr, user, password string) (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, Username: user, Password: password, TLSConfig: r.TLS,
		ForceSingleClient: true, DisableCache: true, DisableRetry: true,
		Dialer: net.Dialer{Timeout: 3 * time.Second}, ConnWriteTimeout: 3 * time.Second,
	})
}

func (r *Redis) examineServer(ctx context.Context, addr string, k *skews) []Finding {
	name := "redis " + addr
	client, err := r.dial(addr, r.User, r.Password)
	if err != nil {
		return unreachable(name, err)
	}
	defer client.Close()
	s := &redisServer{client: client, cluster: r.Cluster}
	text, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err != nil {
		return unreachable(name, err)
	}
	s.info = infoOf(text)
	findings := append([]Finding{reachable(name, "Redis "+s.info["redis_version"])}, examine(ctx, name, s, redisChecks())...)
	clock := k.clock(ctx, name, 0, s.now)
	clock.Server, clock.Check = name, "clock"
	return append(findings, clock)
}

// infoOf parses INFO.
func infoOf(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

func redisChecks() []check[*redisServer] {
	return []check[*redisServer]{
		{"version", (*redisServer).version},
		{"nothing is evicted", (*redisServer).policy},
		{"evictions so far", (*redisServer).evicted},
		{"memory", (*redisServer).memory},
		{"connections", (*redisServer).connections},
		{"role", (*redisServer).role},
		{"cluster", (*redisServer).clusterState},
	}
}

func (s *redisServer) now(ctx context.Context) (time.Time, error) {
	v, err := s.client.Do(ctx, s.client.B().Time().Build()).AsIntSlice()
	if err != nil || len(v) != 2 {
		return time.Time{}, fmt.Errorf("TIME: %v, %w", v, err)
	}
	return time.Unix(v[0], v[1]*1000), nil
}

func (s *redisServer) version(context.Context) Finding {
	var major int
	_, _ = fmt.Sscanf(s.info["redis_version"], "%d", &major)
	return expect(major >= 6, Violation, s.info["redis_version"], "6 or newer", "upgrade it: clients speak RESP3")
}

func (s *redisServer) policy(ctx context.Context) Finding {
	v := s.info["maxmemory_policy"]
	if v == "" {
		return unchecked("noeviction", "INFO does not say")
	}
	return expect(v == "noeviction", Violation, v, "noeviction",
		"CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE; a route that was evicted makes a connected user look offline")
}

func (s *redisServer) evicted(context.Context) Finding {
	v := s.info["evicted_keys"]
	return expect(v == "0", Warning, v, "0", "keys were evicted since its start: see maxmemory and maxmemory-policy")
}

// memoryFull is the share of maxmemory from which on it is too little.
const memoryFull = 0.8

func (s *redisServer) memory(context.Context) Finding {
	limit, used := number(s.info["maxmemory"]), number(s.info["used_memory"])
	if limit == 0 {
		return warn(bytesOf(used)+" used, no limit", "a limit below the machine's memory", "CONFIG SET maxmemory 2gb (about 400 bytes for each connected device): without one the kernel ends it when memory is short")
	}
	return expect(float64(used) < memoryFull*float64(limit), Warning, fmt.Sprintf("%s of %s", bytesOf(used), bytesOf(limit)), "below 80 %", "raise maxmemory: with noeviction, writes beyond it fail")
}

func (s *redisServer) connections(context.Context) Finding {
	limit, used := number(s.info["maxclients"]), number(s.info["connected_clients"])
	if limit == 0 {
		return Finding{}
	}
	return expect(used < limit*8/10, Warning, fmt.Sprintf("%d of %d", used, limit), "below 80 %", fmt.Sprintf("CONFIG SET maxclients %d", 2*limit))
}

func (s *redisServer) role(context.Context) Finding {
	const wanted = "a primary, or a replica that is in step"
	if s.info["role"] != "slave" {
		return ok("primary with "+s.info["connected_slaves"]+" replicas", wanted)
	}
	if s.cluster {
		return expect(s.info["master_link_status"] == "up", Warning, "replica, link "+s.info["master_link_status"], wanted, "see why it has lost its primary")
	}
	return violation("a replica", "a primary", "name the primary in presence.addrs, or use mode sentinel: a replica takes no writes")
}

func (s *redisServer) clusterState(ctx context.Context) Finding {
	enabled := s.info["cluster_enabled"] == "1"
	if !enabled && !s.cluster {
		return Finding{}
	}
	if enabled != s.cluster {
		return violation("cluster_enabled = "+s.info["cluster_enabled"], fmt.Sprint(s.cluster), "presence.mode does not fit this server: cluster for a cluster, standalone else")
	}
	text, err := s.client.Do(ctx, s.client.B().ClusterInfo().Build()).ToString()
	if err != nil {
		return unchecked("state ok", err)
	}
	state := infoOf(text)
	return expect(state["cluster_state"] == "ok", Violation,
		fmt.Sprintf("state %s, %s of 16384 slots", state["cluster_state"], state["cluster_slots_ok"]), "state ok", "redis-cli --cluster check ADDRESS, and mend what it names")
}

// examineSentinel asks a sentinel for its primary, and examines that through the first that knows it.
func (r *Redis) examineSentinel(ctx context.Context, addr string, k *skews) []Finding {
	name := "sentinel " + addr
	client, err := r.dial(addr, r.SentinelUser, r.SentinelPassword)
	if err != nil {
		return unreachable(name, err)
	}
	defer client.Close()
	m, err := client.Do(ctx, client.B().Arbitrary("SENTINEL", "MASTER", r.Master).Build()).AsStrMap()
	if err != nil {
		return []Finding{{
			Server: name, Check: "knows the primary", Found: err.Error(), Wanted: r.Master, Verdict: Violation,
			Advice: "SENTINEL MONITOR " + r.Master + " HOST PORT QUORUM, or correct presence.master",
		}}
	}
	findings := []Finding{reachable(name, "sentinel")}
	add := func(check string, f Finding) {
		f.Server, f.Check = name, check
		findings = append(findings, f)
	}
	down := strings.Contains(m["flags"], "down")
	add("primary is up", expect(!down, Violation, m["flags"], "master", "it is down, or failing over: see the sentinels' logs"))
	others, quorum := number(m["num-other-sentinels"]), number(m["quorum"])
	add("quorum", expect(others+1 >= 3 && quorum > (others+1)/2, Warning, fmt.Sprintf("%d of %d sentinels", quorum, others+1),
		"a majority of 3 or more", "run three sentinels on hosts of their own, quorum 2: SENTINEL SET "+r.Master+" quorum 2"))
	add("replicas", expect(number(m["num-slaves"]) > 0, Warning, m["num-slaves"], "at least 1", "without a replica there is nothing to fail over to"))
	if addr == r.Addrs[0] {
		findings = append(findings, r.examineServer(ctx, net.JoinHostPort(m["ip"], m["port"]), k)...)
	}
	return findings
}
