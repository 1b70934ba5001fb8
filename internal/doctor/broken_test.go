package doctor_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/redis/rueidis"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	sqlstore "hongyan/das/store/sql"
	"hongyan/internal/doctor"
	"hongyan/tests/servers"
)

// spoilt is one setting that breaks a promise, and the check that must say so.
type spoilt struct {
	name           string
	on             string // the server: source or replica
	spoil, restore []string
	server, check  string
	verdict        doctor.Verdict
}

func mySQLSpoilt() []spoilt {
	global := func(on, name, bad, good, check string, v doctor.Verdict) spoilt {
		return spoilt{
			name, on, []string{"SET GLOBAL " + name + "=" + bad}, []string{"SET GLOBAL " + name + "=" + good}, "database ", check, v,
		}
	}
	return []spoilt{
		global("source", "innodb_flush_log_at_trx_commit", "2", "1", "commits are flushed", doctor.Violation),
		global("source", "sync_binlog", "0", "1", "binary log is flushed", doctor.Violation),
		global("replica", "sync_binlog", "100", "1", "binary log is flushed", doctor.Violation),
		global("source", "rpl_semi_sync_source_enabled", "OFF", "ON", "semi-synchronous: enabled", doctor.Violation),
		global("source", "rpl_semi_sync_source_enabled", "OFF", "ON", "semi-synchronous: active", doctor.Violation),
		global("source", "rpl_semi_sync_source_wait_point", "AFTER_COMMIT", "AFTER_SYNC", "semi-synchronous: wait point", doctor.Violation),
		global("source", "rpl_semi_sync_source_timeout", "10000", "4294967295", "semi-synchronous: timeout", doctor.Violation),
		global("source", "transaction_isolation", "'REPEATABLE-READ'", "'READ-COMMITTED'", "isolation", doctor.Warning),
		global("source", "time_zone", "'+08:00'", "'+00:00'", "time zone", doctor.Warning),
		global("source", "sql_mode", "''", "DEFAULT", "sql_mode", doctor.Warning),
		{"character_set_server", "source", []string{"SET GLOBAL character_set_server=latin1"}, []string{"SET GLOBAL collation_server=utf8mb4_bin"},
			"database ", "character set", doctor.Warning},
		global("source", "max_allowed_packet", "65536", "67108864", "packets", doctor.Violation),
		global("source", "max_connections", "100", "1000", "connections", doctor.Violation),
		global("source", "wait_timeout", "60", "28800", "idle connections", doctor.Warning),
		global("replica", "super_read_only", "OFF", "ON", "replica takes no writes", doctor.Violation),
		global("replica", "rpl_semi_sync_replica_enabled", "OFF", "ON", "replica acknowledges", doctor.Violation),
		{"a writable replica", "replica", []string{"SET GLOBAL read_only=OFF"}, []string{"SET GLOBAL super_read_only=ON"},
			"database ", "role", doctor.Violation},
		{"two primaries", "replica", []string{"SET GLOBAL read_only=OFF"}, []string{"SET GLOBAL super_read_only=ON"},
			"shard ", "one primary", doctor.Violation},
		{"no primary", "source", []string{"SET GLOBAL super_read_only=ON"}, []string{"SET GLOBAL read_only=OFF"},
			"shard ", "one primary", doctor.Violation},
		{"nothing is applied", "replica", []string{"STOP REPLICA SQL_THREAD"}, []string{"START REPLICA SQL_THREAD"},
			"database ", "replication runs", doctor.Violation},
		{"nothing is received", "replica", []string{"STOP REPLICA IO_THREAD"}, []string{"START REPLICA IO_THREAD"},
			"database ", "replication runs", doctor.Violation},
		{"order", "replica", []string{"STOP REPLICA", "SET GLOBAL replica_preserve_commit_order=OFF", "START REPLICA"},
			[]string{"STOP REPLICA", "SET GLOBAL replica_preserve_commit_order=ON", "START REPLICA"},
			"database ", "replica keeps the order", doctor.Warning},
		{"a bucket of another shard is open", "source", []string{"UPDATE bucket SET open=1 WHERE id IN (600,601)"},
			[]string{"UPDATE bucket SET open=0 WHERE id IN (600,601)"}, "database ", "buckets", doctor.Violation},
		{"a bucket of this shard is closed", "source", []string{"UPDATE bucket SET open=0 WHERE id=7"},
			[]string{"UPDATE bucket SET open=1 WHERE id=7"}, "database ", "buckets", doctor.Violation},
		{"old tables", "source", []string{"UPDATE hongyan_schema SET is_applied=0 WHERE version_id>0"},
			[]string{"UPDATE hongyan_schema SET is_applied=1 WHERE version_id>0"}, "database ", "schema", doctor.Violation},
	}
}

// TestDoctorNamesWhatIsSpoilt spoils one setting at a time on a pair of MySQL.
func TestDoctorNamesWhatIsSpoilt(t *testing.T) {
	own := servers.StartPair(t, "mysql")
	dsn := map[string]string{
		"source":  "root@tcp(" + own.Env("SERVERS_MYSQL_0_SOURCE") + ")/hongyan",
		"replica": "root@tcp(" + own.Env("SERVERS_MYSQL_0_REPLICA") + ")/hongyan",
	}
	cfg := sqlstore.DefaultConfig()
	cfg.DSN = dsn["source"]
	if _, err := sqlstore.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	dbs := map[string]*sql.DB{}
	for on, d := range dsn {
		db, err := sql.Open("mysql", d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		dbs[on] = db
	}
	do := func(on string, statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := dbs[on].ExecContext(t.Context(), s); err != nil {
				t.Fatalf("%s on the %s: %v", s, on, err)
			}
		}
	}
	do("source", "UPDATE bucket SET open = id < 512")
	target := doctor.Target{
		Shards: []doctor.Shard{{
			Name: "a", Members: []string{dsn["source"], dsn["replica"]}, RequireReplica: true, Buckets: func(b uint32) bool { return b < 512 },
		}},
		Schema: 1, Sessions: doctor.Sessions{Connections: 200, ConnLifetime: time.Hour, MaxBody: 256 << 10},
	}
	eventuallySound := func(when string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			bad := faulty(doctor.Run(t.Context(), target), "database", "shard")
			if len(bad) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", when, bad)
			}
		}
	}
	eventuallySound("before")
	for _, s := range mySQLSpoilt() {
		t.Run(s.name+" on the "+s.on, func(t *testing.T) {
			do(s.on, s.spoil...)
			defer eventuallySound("after")
			defer do(s.on, s.restore...)
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) { // replication takes a moment to notice
				var named bool
				bad := faulty(doctor.Run(t.Context(), target), s.server)
				for _, f := range bad {
					named = named || f.Check == s.check && f.Verdict == s.verdict && f.Advice != ""
				}
				if named {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%s is not named by %q: %+v", s.name, s.check, bad)
				}
			}
		})
	}
}

// faulty are the findings of servers that are neither ok nor left unchecked.
func faulty(findings []doctor.Finding, servers ...string) (bad []doctor.Finding) {
	for _, f := range findings {
		for _, s := range servers {
			if strings.HasPrefix(f.Server, s) && f.Verdict != doctor.OK {
				bad = append(bad, f)
			}
		}
	}
	return bad
}

func TestDoctorNamesASpoiltRedis(t *testing.T) {
	own := servers.Start(t, "redis")
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{own.Env("SERVERS_REDIS")}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	target := doctor.Target{Redis: doctor.Redis{Addrs: []string{own.Env("SERVERS_REDIS")}}}
	set := func(name, value string) {
		t.Helper()
		if err := client.Do(t.Context(), client.B().ConfigSet().ParameterValue().ParameterValue(name, value).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []struct {
		name, bad, good, check string
		verdict                doctor.Verdict
	}{
		{"maxmemory-policy", "allkeys-lru", "noeviction", "nothing is evicted", doctor.Violation},
		{"maxmemory", "0", "256mb", "memory", doctor.Warning},
		{"maxmemory", "1mb", "256mb", "memory", doctor.Warning},
	} {
		set(s.name, s.bad)
		bad := faulty(doctor.Run(t.Context(), target), "redis")
		set(s.name, s.good)
		if len(bad) != 1 || bad[0].Check != s.check || bad[0].Verdict != s.verdict {
			t.Errorf("%s = %s: %+v", s.name, s.bad, bad)
		}
	}
	target.Redis.Cluster = true
	if f := find(t, doctor.Run(t.Context(), target), "redis", "cluster"); f.Verdict != doctor.Violation {
		t.Errorf("no cluster: %+v", f)
	}
}

func TestDoctorNamesAnOddLease(t *testing.T) {
	own := servers.Start(t, "etcd")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{own.Env("SERVERS_ETCD")}, DialTimeout: 3 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	lease, err := client.Grant(t.Context(), 77)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Revoke(t.Context(), lease.ID)
	if _, err := client.Put(t.Context(), "/doctor/das/0", "x", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	target := doctor.Target{Etcd: doctor.Etcd{Endpoints: []string{own.Env("SERVERS_ETCD")}, Prefix: "/doctor/", Lease: 10 * time.Second}}
	if f := find(t, doctor.Run(t.Context(), target), "etcd cluster", "leases"); f.Verdict != doctor.Warning || !strings.Contains(f.Found, "/doctor/das/0: 77 s") {
		t.Errorf("%+v", f)
	}
}

// A server that is away is a violation, and hides nothing of the others.
func TestDoctorNamesServersThatAreAway(t *testing.T) {
	const nobody = "127.0.0.1:1"
	findings := run(t, doctor.Target{
		Timeout:  4 * time.Second,
		Shards:   []doctor.Shard{{Name: "a", Members: []string{"root@tcp(" + nobody + ")/x", "no dsn"}}},
		RocketMQ: doctor.RocketMQ{NameServers: []string{nobody}}, Redis: doctor.Redis{Addrs: []string{nobody}},
		Etcd: doctor.Etcd{Endpoints: []string{"http://" + nobody}},
	})
	for _, server := range []string{"database " + nobody, "database (shard a)", "rocketmq name server", "redis", "etcd"} {
		if f := find(t, findings, server, "reachable"); f.Verdict != doctor.Violation {
			t.Errorf("%+v", f)
		}
	}
	find(t, findings, "this machine", "open files")
}
