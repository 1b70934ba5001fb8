package sqlstore_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	sqlstore "hongyan/das/store/sql"
	"hongyan/tests/servers"
)

// pair is a source and its replica, semi-synchronous, as the cluster has them: a test's own,
// to be killed, stopped and promoted.
type pair struct {
	*servers.Set
	engine          string // mysql or mariadb
	source, replica server
}

// semiSync is the word of an engine for a source.
func (p *pair) semiSync(rest string) string {
	word := map[string]string{"mysql": "source", "mariadb": "master"}[p.engine]
	return "rpl_semi_sync_" + word + "_" + rest
}

var pairs servers.Pairs

// onPairs runs a test over a pair of MySQL and one of MariaDB.
func onPairs(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	for _, engine := range []string{"mysql", "mariadb"} {
		t.Run(engine, func(t *testing.T) {
			p := &pair{Set: pairs.Take(t, engine), engine: engine}
			name := strings.ToUpper(engine)
			p.source = server{servers.SQL{Name: name, DSN: "root@tcp(" + p.Env("SERVERS_"+name+"_0_SOURCE") + ")/"}}
			p.replica = server{servers.SQL{Name: name, DSN: "root@tcp(" + p.Env("SERVERS_"+name+"_0_REPLICA") + ")/"}}
			p.whole(t)
			test(t, p)
		})
	}
}

// sourceName is the instance of the set.
func (p *pair) sourceName() string { return p.engine + "-0-source" }

// whole waits until the source's commits wait for the replica.
func (p *pair) whole(t *testing.T) {
	t.Helper()
	eventually(t, "semi-synchronous replication", func() bool {
		return p.status(p.semiSync("status")) == "ON" && p.status(p.semiSync("clients")) == "1"
	})
}

// status is a status variable of the source, "" while it does not answer.
func (p *pair) status(name string) (value string) {
	db, err := sql.Open("mysql", p.source.DSN)
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

// schema makes a database with all tables, on both servers, which lasts as long as the pair.
func (p *pair) schema(t *testing.T) (source, replica sqlstore.Config) {
	t.Helper()
	database := p.source.Lasting(t)
	source, replica = p.source.config(database), p.replica.config(database)
	if _, err := sqlstore.Migrate(context.Background(), source); err != nil {
		t.Fatal(err)
	}
	opened(t, replica)
	return source, replica
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !true(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain: %s", what)
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
