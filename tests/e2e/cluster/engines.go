package cluster

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/tests/servers"
)

// Engines are the real servers that a cluster stands on, as make servers has started them,
// with databases, topics and keys of its own.
type Engines struct {
	Name     string // mysql, mariadb or tidb
	RocketMQ string // host:port of a name server
	Redis    string
	Etcd     string
	Shards   []Shard

	run string // begins the name of everything that this cluster owns
}

// Shard is one database: the source first, then its replicas.
type Shard struct {
	Name    string
	Members []string // DSNs
}

// engineNames are the engines that the suite runs over besides the embedded parts:
// HONGYAN_TEST_CLUSTER=mysql,tidb, with the addresses of servers.env in the environment.
func engineNames() []string {
	return strings.FieldsFunc(os.Getenv("HONGYAN_TEST_CLUSTER"), func(r rune) bool { return r == ',' || r == ' ' })
}

// RequireEngines skips a test that needs them where there are none.
func RequireEngines(t testing.TB) {
	t.Helper()
	if len(engineNames()) == 0 {
		t.Skip("HONGYAN_TEST_CLUSTER is not set: make test-cluster runs this on real servers")
	}
}

// Full is the whole cluster, several of every tier, on the first of the engines.
func Full(t testing.TB) *System {
	t.Helper()
	RequireEngines(t)
	return onEngines(t, engineNames()[0], "", nil)
}

// FullOn is the whole cluster on MySQL, RocketMQ, Redis and etcd of a set of its own.
func FullOn(t testing.TB, set *servers.Set) *System {
	t.Helper()
	return onEngines(t, "mysql", "", set)
}

// onEngines starts the whole cluster on the engines of a name: those of a set, or, where that
// is nil, those that tests share.
func onEngines(t testing.TB, name, more string, set *servers.Set) *System {
	t.Helper()
	e := newEngines(t, name, set)
	p := newPlan(t, name, full)
	p.Engines = e
	p.text += e.config() + more
	config := p.write(t, "hongyan.yaml", p.text)
	out, err := exec.Command(Binary(t), "db", "migrate", "--config", config).CombinedOutput()
	if err != nil {
		t.Fatalf("hongyan db migrate: %v\n%s", err, out)
	}
	p.run(t)
	return p.System
}

func newEngines(t testing.TB, name string, set *servers.Set) *Engines {
	t.Helper()
	need := func(name string) string {
		t.Helper()
		if set == nil {
			return servers.Shared(t, name)
		}
		return set.Env(name)
	}
	e := &Engines{
		Name: name, RocketMQ: need("SERVERS_ROCKETMQ_NAMESRV"), Redis: need("SERVERS_REDIS"), Etcd: need("SERVERS_ETCD"),
		run: "hy" + strings.ToLower(rand.Text()[:8]),
	}
	switch name {
	case "mysql", "mariadb":
		for i := range 2 {
			var members []string
			for _, role := range []string{"SOURCE", "REPLICA"} {
				members = append(members, e.database(need(fmt.Sprintf("SERVERS_%s_%d_%s", strings.ToUpper(name), i, role)), i))
			}
			e.Shards = append(e.Shards, Shard{fmt.Sprintf("s%d", i), members})
		}
	case "tidb":
		for i := range 2 { // one server, two databases: shards for all that das can tell
			e.Shards = append(e.Shards, Shard{fmt.Sprintf("s%d", i), []string{e.database(need("SERVERS_TIDB"), i)}})
		}
	default:
		t.Fatalf("HONGYAN_TEST_CLUSTER: %q is none of mysql, mariadb and tidb", name)
	}
	for _, s := range e.Shards {
		create(t, s.Members[0])
	}
	if set == nil { // those of a set are thrown away; a source that lost its replica would wait for it for ever
		t.Cleanup(func() { e.clean(t) })
	}
	return e
}

// database is the DSN of this run's database on a server.
func (e *Engines) database(addr string, shard int) string {
	return fmt.Sprintf("root@tcp(%s)/%s_%d", addr, e.run, shard)
}

// config of every process that stands on these engines.
func (e *Engines) config() string {
	shards := make([]string, len(e.Shards))
	for i, s := range e.Shards {
		members := make([]string, len(s.Members))
		for n, dsn := range s.Members {
			members[n] = fmt.Sprintf("%q", dsn)
		}
		shards[i] = fmt.Sprintf("{name: %s, members: [%s]}", s.Name, strings.Join(members, ", "))
	}
	return fmt.Sprintf(`
control: {endpoints: [%q], prefix: /%s/, services_prefix: %s/services, lease: 3s}
presence: {addrs: [%q], prefix: "%s:"}
queue: {name_servers: [%q], prefix: %s_, create_topics: true, queues: 2, slots: 2}
databases: {shards: [%s]}
sql: {require_replica: %v}
`, e.Etcd, e.run, e.run, e.Redis, e.run, e.RocketMQ, e.run, strings.Join(shards, ", "), e.Name != "tidb")
}

// create makes the database of a DSN anew.
func create(t testing.TB, dsn string) {
	t.Helper()
	if err := onServer(dsn, "CREATE DATABASE `%s`"); err != nil {
		t.Fatal(err)
	}
}

func onServer(dsn, statement string) error {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	name := cfg.DBName
	cfg.DBName = ""
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(fmt.Sprintf(statement, name))
	return err
}

// clean removes what the run has left on the servers. Topics stay: they are empty files.
func (e *Engines) clean(t testing.TB) {
	for _, s := range e.Shards {
		dropped := slices.ContainsFunc(s.Members, func(dsn string) bool { return onServer(dsn, "DROP DATABASE `%s`") == nil })
		if !dropped {
			t.Logf("database of %s could not be dropped", s.Name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Etcd}, Context: ctx})
	if err != nil {
		t.Logf("etcd: %v", err)
		return
	}
	defer c.Close()
	if _, err := c.Delete(ctx, "/"+e.run+"/", clientv3.WithPrefix()); err != nil {
		t.Logf("etcd: %v", err)
	}
}
