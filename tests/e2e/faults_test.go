package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hongyan/idl/platform"
	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
	"hongyan/tests/servers"
)

// outage is how long a server is away: HONGYAN_TEST_OUTAGE, a minute.
func outage(t testing.TB) time.Duration {
	text := os.Getenv("HONGYAN_TEST_OUTAGE")
	if text == "" {
		return time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HONGYAN_TEST_OUTAGE: %v", err)
	}
	return d
}

// TestClusterFaults breaks the whole cluster, one thing after the other, under one load; at
// the end everything that was acked is there once, in order (P1, P3, P5, P6, P7, P29).
func TestClusterFaults(t *testing.T) {
	cluster.RequireEngines(t)
	own := servers.Start(t, "rocketmq", "mysql", "redis", "etcd")
	s := cluster.FullOn(t, own)
	l := load.Start(t, s, 4)
	l.Progresses(50)
	for _, fault := range []struct {
		name string
		run  func(*testing.T, *cluster.System, *servers.Set, *load.Load)
	}{
		{"a fourth logic comes, goes, and another is killed", logicsComeAndGo},
		{"P1 a das is killed", dasKilled},
		{"buckets move", bucketsMove},
		{"P6 Redis is flushed", redisFlushed},
		{"P5 the broker is away", brokerAway},
		{"P7 etcd is away", etcdAway},
		{"P3 the MySQL source dies and its replica is promoted", sourceDies},
	} {
		ok := t.Run(fault.name, func(t *testing.T) {
			began := time.Now()
			fault.run(t, s, own, l)
			l.Progresses(50)
			t.Logf("%v", time.Since(began).Round(100*time.Millisecond))
		})
		if !ok {
			return
		}
	}
	l.Finish()
}

func logicsComeAndGo(t *testing.T, s *cluster.System, _ *servers.Set, l *load.Load) {
	extra := s.Add(t, "logic")
	cluster.Eventually(t, patience, "the fourth logic is known", func() bool { return s.Instances(t, "logic") == 4 })
	l.Progresses(50)
	extra.Stop()
	l.Progresses(50)
	s.CLI(t, "control", "forget", "--tier", "logic", "--slot", "3")
	l.Progresses(50)
	s.Procs["logic-1"].Kill()
	l.Progresses(50)
	s.Procs["logic-1"].Restart()
}

func dasKilled(t *testing.T, s *cluster.System, _ *servers.Set, l *load.Load) {
	s.Procs["das-1"].Kill()
	l.Progresses(50)
	s.Procs["das-1"].Restart()
}

func bucketsMove(t *testing.T, s *cluster.System, _ *servers.Set, l *load.Load) {
	t.Log(s.CLI(t, "db", "move-buckets", "--from", "s0", "--to", "s1", "--buckets", "0-15"))
	l.Progresses(50)
	t.Log(s.CLI(t, "db", "move-buckets", "--from", "s1", "--to", "s0", "--buckets", "0-15"))
}

// redisFlushed: presence is right again within 60 s.
func redisFlushed(t *testing.T, s *cluster.System, _ *servers.Set, l *load.Load) {
	out, err := exec.Command("bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/%s && printf 'FLUSHALL\r\n' >&3 && head -n1 <&3`,
		strings.ReplaceAll(s.Engines.Redis, ":", "/"))).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "+OK") {
		t.Fatalf("FLUSHALL: %v %s", err, out)
	}
	client, caller := s.IMUI(t)
	cluster.Eventually(t, patience, "everybody is known to be online", func() bool {
		for _, uid := range l.Users() {
			r, err := client.Online(t.Context(), &platform.OnlineRequest{Caller: caller, Uids: []string{uid}})
			if err != nil || len(r.Users) != 1 || !r.Users[0].Online {
				return false
			}
		}
		return true
	})
}

// brokerAway: messages go on; who is offline is woken when the broker is back.
func brokerAway(t *testing.T, s *cluster.System, own *servers.Set, l *load.Load) {
	store := &hongyan.Memory{}
	sleeper := openDevice(t, s, "sleeper", "phone", "tcp", store)
	if err := sleeper.Close(); err != nil {
		t.Fatal(err)
	}
	own.Kill("rocketmq-broker")
	back := time.Now().Add(outage(t))
	waker := newDevice(t, s, "waker", "app", "tcp")
	waker.say("sleeper", "wake up")
	l.Progresses(50)
	time.Sleep(time.Until(back))
	l.Progresses(50)
	own.Start("rocketmq-broker")
	cluster.Eventually(t, 2*time.Minute, "the vendor is asked to push to sleeper's phone", func() bool {
		return strings.Contains(s.Log("extlogic"), "sleeper-phone")
	})
}

// etcdAway: everything goes on; a process that restarts starts from its snapshot; afterwards
// all are registered again.
func etcdAway(t *testing.T, s *cluster.System, own *servers.Set, l *load.Load) {
	before := s.Instances(t, "")
	own.Kill("etcd")
	back := time.Now().Add(outage(t))
	l.Progresses(50)
	s.Procs["logic-2"].Kill()
	l.Progresses(50)
	s.Procs["logic-2"].Restart()
	s.Procs["das-2"].Stop()
	s.Procs["das-2"].Restart()
	l.Progresses(50)
	time.Sleep(time.Until(back))
	l.Progresses(50)
	own.Start("etcd")
	cluster.Eventually(t, patience, "all are registered again", func() bool { return s.Instances(t, "") == before })
}

// sourceDies: the pair has no second replica, so the operator goes on without one, and says
// so to every das. The old source comes back and nobody writes to it.
func sourceDies(t *testing.T, s *cluster.System, own *servers.Set, l *load.Load) {
	own.Kill("mysql-0-source")
	time.Sleep(2 * time.Second)
	t.Log(s.CLI(t, "db", "promote", "--shard", "s0", "--without-replica"))
	t.Setenv("HONGYAN_SQL_REQUIRE_REPLICA", "false")
	for i := range 3 {
		s.Procs[fmt.Sprintf("das-%d", i)].Stop()
		s.Procs[fmt.Sprintf("das-%d", i)].Restart()
	}
	l.Progresses(50)
	own.Start("mysql-0-source")
	l.Progresses(50)
}
