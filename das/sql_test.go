package das

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/sql"
)

// openSQL makes a database for the test on the server that HONGYAN_TEST_MARIADB names, a DSN
// without database.
func openSQL(t testing.TB) store.Store {
	t.Helper()
	dsn := os.Getenv("HONGYAN_TEST_MARIADB")
	if dsn == "" {
		t.Skip("HONGYAN_TEST_MARIADB is not set")
	}
	admin, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	exec := func(q string) {
		if _, err := admin.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	name := fmt.Sprintf("hongyan_das_%d", os.Getpid())
	exec("DROP DATABASE IF EXISTS " + name)
	exec("CREATE DATABASE " + name)
	t.Cleanup(func() { exec("DROP DATABASE " + name) })
	cfg := sqlstore.DefaultConfig()
	cfg.DSN = dsn + name
	if _, err := sqlstore.Migrate(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := sqlstore.Open(context.Background(), cfg, sqlstore.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFlowsOverSQL plays the flows of several das over a real database.
func TestFlowsOverSQL(t *testing.T) {
	files, err := filepath.Glob("testdata/flows/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f := newFlow(t, file)
		if f.exclusive {
			continue // it needs a store of its own
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			onBed(t, &trapped{openSQL(t), &f.before, &f.after}, f.play)
			f.compare(t)
		})
	}
}

func TestR24OverSQL(t *testing.T) {
	onBed(t, openSQL(t), unreadSteps(1, false))
}
