package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sqlstore "hongyan/das/store/sql"
)

// pair is a source and its replica, semi-synchronous, as deploy/servers makes them and the
// cluster has them: a test's own, to be killed, stopped and promoted.
type pair struct {
	engine          string // mysql or mariadb
	source, replica server
	env             []string
	ports           map[string]int
	dir             string
	spent           bool // the test leaves it unusable
}

// semiSync is the word of an engine for a source.
func (p *pair) semiSync(rest string) string {
	word := map[string]string{"mysql": "source", "mariadb": "master"}[p.engine]
	return "rpl_semi_sync_" + word + "_" + rest
}

// spares are whole pairs that a test has given back.
var spares = struct {
	sync.Mutex
	byEngine map[string]*pair
}{byEngine: map[string]*pair{}}

// onPairs runs a test over a pair of MySQL and one of MariaDB.
func onPairs(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	if os.Getenv("HONGYAN_TEST_CHAOS") == "" {
		unavailable(t, "HONGYAN_TEST_CHAOS is not set: servers would be started and killed (make servers, then make test-cluster)")
	}
	for _, engine := range []string{"mysql", "mariadb"} {
		t.Run(engine, func(t *testing.T) {
			p := takePair(t, engine)
			t.Cleanup(func() {
				if p.spent || t.Failed() {
					p.end()
					return
				}
				spares.Lock()
				defer spares.Unlock()
				spares.byEngine[engine] = p
			})
			test(t, p)
		})
	}
}

func takePair(t *testing.T, engine string) *pair {
	t.Helper()
	spares.Lock()
	p := spares.byEngine[engine]
	delete(spares.byEngine, engine)
	spares.Unlock()
	if p == nil {
		p = newPair(t, engine)
	}
	p.whole(t)
	return p
}

func newPair(t *testing.T, engine string) *pair {
	t.Helper()
	dir, err := os.MkdirTemp("", "hongyan-pair-") // a short path: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{engine: engine, dir: dir, ports: map[string]int{}, env: append(os.Environ(), "SERVERS_STATE="+dir, "SERVERS_OFFSET=0")}
	for _, kind := range []string{"source", "replica"} {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		p.ports[kind] = port
		p.env = append(p.env, fmt.Sprintf("SERVERS_%s_0_%s_PORT=%d", strings.ToUpper(engine), strings.ToUpper(kind), port))
	}
	atEnd = append(atEnd, p.end)
	for _, kind := range []string{"replica", "source"} {
		if out, err := p.script("start", kind); err != nil {
			unavailable(t, fmt.Sprintf("no pair of %s (make servers SERVERS=%s): %v\n%s", engine, engine, err, out))
		}
	}
	p.source = server{strings.ToUpper(engine), fmt.Sprintf("root@tcp(127.0.0.1:%d)/", p.ports["source"])}
	p.replica = server{strings.ToUpper(engine), fmt.Sprintf("root@tcp(127.0.0.1:%d)/", p.ports["replica"])}
	p.replica.exec(t, "?multiStatements=true", p.join(t, p.ports["source"]))
	return p
}

// join is the SQL that makes a server the replica of another.
func (p *pair) join(t *testing.T, port int) string {
	t.Helper()
	if p.engine == "mariadb" {
		return fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='repl', MASTER_PASSWORD='repl', "+
			"MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE", port)
	}
	out, err := exec.Command("sh", "../../../deploy/servers/conf/mysql-join.sh", "127.0.0.1", strconv.Itoa(port)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// script runs a command of deploy/servers/servers.sh for one of the two.
func (p *pair) script(command, kind string) (string, error) {
	cmd := exec.Command("../../../deploy/servers/servers.sh", command, p.engine+"-0-"+kind)
	cmd.Env = p.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

func (p *pair) must(t *testing.T, command, kind string) string {
	t.Helper()
	out, err := p.script(command, kind)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", command, kind, err, out)
	}
	return out
}

// terminate asks the source to stop, as a service manager does, and waits for its end.
func (p *pair) terminate(t *testing.T) {
	t.Helper()
	pid, err := strconv.Atoi(p.must(t, "pid", "source"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the source ends", func() bool { return p.must(t, "pid", "source") == "" })
}

func (p *pair) end() {
	for _, kind := range []string{"source", "replica"} {
		_, _ = p.script("kill", kind) // its data are thrown away
	}
	_ = os.RemoveAll(p.dir)
}

// whole waits until the source's commits wait for the replica.
func (p *pair) whole(t *testing.T) {
	t.Helper()
	eventually(t, "semi-synchronous replication", func() bool {
		return p.status(p.semiSync("status")) == "ON" && p.status(p.semiSync("clients")) == "1"
	})
}

// status is a status variable of the source, "" while it does not answer.
func (p *pair) status(name string) (value string) {
	db, err := sql.Open("mysql", p.source.dsn)
	if err != nil {
		return ""
	}
	defer db.Close()
	_ = db.QueryRow("SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&name, &value)
	return value
}

// waiting waits until a commit waits for the replica.
func (p *pair) waiting(t *testing.T, done <-chan error) {
	t.Helper()
	eventually(t, "a commit waits for the replica", func() bool {
		select {
		case err := <-done:
			t.Fatalf("did not wait for the replica: %v", err)
		default:
		}
		return p.status(p.semiSync("wait_sessions")) == "1"
	})
}

// schema makes a database with all tables, which lasts as long as the pair.
func (p *pair) schema(t *testing.T) (source, replica sqlstore.Config) {
	t.Helper()
	source = p.source.lasting(t)
	if _, err := sqlstore.Migrate(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	replica = source
	replica.DSN = strings.Replace(source.DSN, fmt.Sprintf(":%d)", p.ports["source"]), fmt.Sprintf(":%d)", p.ports["replica"]), 1)
	return source, replica
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !true(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s in vain: %s", what)
		}
	}
}

// opened opens the store of a server that may still be starting, or be without the schema yet.
func opened(t *testing.T, cfg sqlstore.Config) (s *sqlstore.Store) {
	t.Helper()
	eventually(t, "the store can be opened", func() bool {
		var err error
		s, err = sqlstore.Open(context.Background(), cfg, sqlstore.Deps{})
		return err == nil
	})
	t.Cleanup(func() { s.Close() })
	return s
}
