package redis_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence"
	"hongyan/internal/presence/redis"
	"hongyan/tests/servers"
)

const (
	stop = syscall.SIGSTOP
	cont = syscall.SIGCONT
)

func TestCluster(t *testing.T) {
	nodes := startCluster(t)
	cfg := config(nodes[0].Addr)
	cfg.Mode = redis.Cluster
	cfg.Addrs = append(cfg.Addrs, nodes[1].Addr)
	var each []rueidis.Client
	for _, n := range nodes {
		each = append(each, one(t, n.Addr))
	}
	t.Run("suite", func(t *testing.T) { suite(t, admin(t, nodes[0].Addr), each, cfg) })
	t.Run("a dead node hides its users only", func(t *testing.T) {
		cfg := cfg
		cfg.Pause = 50 * time.Millisecond
		c := open(t, cfg)
		var users []presence.User
		var changes []presence.Change
		for i := range 300 {
			users = append(users, presence.User{UID: fmt.Sprint(i)})
			changes = append(changes, presence.Change{User: users[i], Routes: []presence.Route{phone(1)}})
		}
		known := func() (n int) {
			got, err := c.Get(t.Context(), users)
			for _, e := range got {
				if e.Known {
					n++
				}
			}
			if err != nil {
				t.Log(err)
			}
			return n
		}
		if err := c.Apply(t.Context(), changes); err != nil || known() != len(users) {
			t.Fatalf("%d of %d are known, %v", known(), len(users), err)
		}
		nodes[2].Kill()
		eventually(t, "two thirds are known", func() bool { n := known(); return n > 150 && n < 300 })
		if err := c.Apply(t.Context(), changes); err == nil {
			t.Error("writes to a dead node look made")
		}
		nodes[2].Start() // empty, with the cluster's configuration
		eventually(t, "all are known again", func() bool { return c.Apply(t.Context(), changes) == nil && known() == len(users) })
	})
}

// DD-10: the primary dies, sentinels promote its replica, the cache follows.
func TestDD10Sentinel(t *testing.T) {
	primary := servers.StartRedis(t)
	replica := servers.StartRedis(t, "--replicaof", "127.0.0.1", fmt.Sprint(primary.Port))
	cfg := config(primary.Addr)
	cfg.Mode, cfg.Master, cfg.Addrs, cfg.Pause = redis.Sentinel, "presence", nil, 50*time.Millisecond
	for range 3 {
		s := startSentinel(t, primary.Port)
		cfg.Addrs = append(cfg.Addrs, s.Addr)
	}
	watcher := one(t, cfg.Addrs[0])
	eventually(t, "sentinels know each other and the replica", func() bool {
		m, err := do(t, watcher, "SENTINEL", "MASTER", "presence").AsStrMap()
		return err == nil && m["num-slaves"] == "1" && m["num-other-sentinels"] == "2"
	})
	c := open(t, cfg)
	if err := c.Put(t.Context(), alice, phone(1)); err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	began := time.Now()
	eventually(t, "the promoted replica takes writes", func() bool { return c.Put(t.Context(), alice, phone(2)) == nil })
	t.Logf("writes went on after %v", time.Since(began).Round(time.Millisecond))
	if role, err := do(t, one(t, replica.Addr), "ROLE").ToArray(); err != nil {
		t.Fatal(err)
	} else if name, _ := role[0].ToString(); name != "master" {
		t.Errorf("the replica is %s", name)
	}
	if got, err := c.Get(t.Context(), []presence.User{alice}); err != nil || len(got[0].Routes) != 1 || got[0].Routes[0].SessionEpoch != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}
