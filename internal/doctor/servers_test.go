package doctor_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hongyan/internal/doctor"
	"hongyan/tests/servers"
)

func run(t *testing.T, target doctor.Target) []doctor.Finding {
	t.Helper()
	target.Machine.DataDir = t.TempDir()
	findings := doctor.Run(t.Context(), target)
	if t.Failed() || testing.Verbose() {
		_ = doctor.Write(os.Stderr, findings)
	}
	return findings
}

// find returns the finding of a check on the first server whose name begins so.
func find(t *testing.T, findings []doctor.Finding, server, check string) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if strings.HasPrefix(f.Server, server) && f.Check == check {
			return f
		}
	}
	t.Errorf("%s: nothing was found out about %q", server, check)
	return doctor.Finding{}
}

// sound fails for each violation of these servers, but those of the checks that are excused.
func sound(t *testing.T, findings []doctor.Finding, server string, excused ...string) {
	t.Helper()
	n := 0
	for _, f := range findings {
		if !strings.HasPrefix(f.Server, server) {
			continue
		}
		n++
		if (f.Verdict == doctor.Violation || f.Verdict == doctor.NotChecked) && !slices.Contains(excused, f.Check) {
			t.Errorf("%s: %s: %s, found %s, wanted %s", f.Server, f.Check, f.Verdict, f.Found, f.Wanted)
		}
	}
	if n < 5 {
		t.Errorf("%d findings about %s", n, server)
	}
}

// The servers that deploy/servers starts are sound: what a release is tested on must not be
// what doctor warns of.
func TestDoctorMySQLIsSound(t *testing.T) {
	dsn := servers.Shared(t, "HONGYAN_TEST_MYSQL") + "mysql"
	findings := run(t, doctor.Target{
		Shards: []doctor.Shard{{Name: "a", Members: []string{dsn}, RequireReplica: true}},
		Schema: 1, Sessions: doctor.Sessions{Connections: 300, ConnLifetime: time.Hour, MaxBody: 256 << 10},
	})
	sound(t, findings, "database", "schema")
	find(t, findings, "database", "semi-synchronous: active")
}

func TestDoctorTiDBIsSound(t *testing.T) {
	findings := run(t, doctor.Target{
		Shards: []doctor.Shard{{Name: "a", Members: []string{servers.Shared(t, "HONGYAN_TEST_TIDB") + "mysql"}}},
		Schema: 1, Sessions: doctor.Sessions{Connections: 300},
	})
	sound(t, findings, "database", "schema")
	if f := find(t, findings, "database", "storage"); f.Verdict != doctor.Warning {
		t.Errorf("a storage that does not flush: %+v", f)
	}
}

func TestDoctorRedisIsSound(t *testing.T) {
	sound(t, run(t, doctor.Target{Redis: doctor.Redis{Addrs: []string{servers.Shared(t, "HONGYAN_TEST_REDIS")}}}), "redis")
}

func TestDoctorEtcdIsSound(t *testing.T) {
	findings := run(t, doctor.Target{Etcd: doctor.Etcd{
		Endpoints: []string{servers.Shared(t, "HONGYAN_TEST_ETCD")}, Prefix: "/hongyan-doctor/", Lease: 10 * time.Second,
	}})
	sound(t, findings, "etcd", "auto-compaction")
	find(t, findings, "etcd", "alarms")
}

func TestDoctorRocketMQIsSound(t *testing.T) {
	findings := run(t, doctor.Target{RocketMQ: doctor.RocketMQ{
		NameServers: []string{servers.Shared(t, "HONGYAN_TEST_ROCKETMQ")}, Topics: []string{"hongyan-doctor-has-none"}, MaxPayload: 1 << 20,
	}})
	sound(t, findings, "rocketmq", "topics", "clock")
	if f := find(t, findings, "rocketmq name server", "topics"); f.Verdict != doctor.Violation || !strings.Contains(f.Found, "has-none") {
		t.Errorf("a topic that nobody made: %+v", f)
	}
}
