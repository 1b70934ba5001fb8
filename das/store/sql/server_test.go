package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
	"hongyan/tests/servers"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if err := pairs.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// server is where tests make their databases.
type server struct{ servers.SQL }

// database makes an empty database that lasts as long as the test.
func (s server) database(t testing.TB) sqlstore.Config {
	t.Helper()
	return s.config(s.Database(t))
}

// config is that of a database, for machines that are busy: no test is about speed.
func (s server) config(database string) sqlstore.Config {
	cfg := sqlstore.DefaultConfig()
	cfg.DSN = s.DSN + database
	cfg.DialTimeout, cfg.CommitTimeout, cfg.ReadTimeout, cfg.LockWait = 30*time.Second, 2*time.Minute, 2*time.Minute, 30*time.Second
	return cfg
}

// migrated makes a database with all tables.
func (s server) migrated(t testing.TB) sqlstore.Config {
	t.Helper()
	cfg := s.database(t)
	if _, err := sqlstore.Migrate(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// empty makes a database as it was when it was migrated, which takes longer than most tests.
func (s server) empty(t testing.TB, cfg sqlstore.Config) {
	t.Helper()
	db, err := sql.Open("mysql", cfg.DSN+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var deletions string
	if err := db.QueryRow("SELECT GROUP_CONCAT('DELETE FROM ',table_name SEPARATOR ';') FROM information_schema.tables" +
		" WHERE table_schema=DATABASE() AND table_name NOT IN ('bucket','hongyan_schema')").Scan(&deletions); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("BEGIN;" + deletions + ";UPDATE bucket SET epoch=1,open=1;COMMIT"); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg sqlstore.Config) *sqlstore.Store {
	t.Helper()
	return openWith(t, cfg, nil)
}

func openWith(t testing.TB, cfg sqlstore.Config, reg prometheus.Registerer) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(context.Background(), cfg, sqlstore.Deps{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// onServers runs a test over each server.
func onServers(t *testing.T, test func(t *testing.T, s server)) {
	t.Helper()
	servers.EachSQL(t, func(t *testing.T, s servers.SQL) { test(t, server{s}) })
}

func commit(t testing.TB, s *sqlstore.Store, b *store.Batch) {
	t.Helper()
	if err := s.Commit(context.Background(), b); err != nil {
		t.Fatalf("commit: %v", err)
	}
}
