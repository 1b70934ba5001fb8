package das

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/sql"
	real "hongyan/tests/servers"
)

// openSQL makes a database that lasts as long as the test.
func openSQL(t testing.TB, s real.SQL) store.Store {
	t.Helper()
	cfg := sqlstore.DefaultConfig()
	cfg.DSN = s.DSN + s.Database(t)
	cfg.DialTimeout, cfg.CommitTimeout, cfg.ReadTimeout = 30*time.Second, time.Minute, time.Minute // a busy machine is no failure
	if _, err := sqlstore.Migrate(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	st, err := sqlstore.Open(context.Background(), cfg, sqlstore.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFlowsOverSQL plays the flows of several das over real databases.
func TestFlowsOverSQL(t *testing.T) {
	files, err := filepath.Glob("testdata/flows/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	real.EachSQL(t, func(t *testing.T, s real.SQL) {
		for _, file := range files {
			f := newFlow(t, file)
			if f.exclusive {
				continue // it needs a store of its own
			}
			t.Run(filepath.Base(file), func(t *testing.T) {
				onBed(t, &trapped{openSQL(t, s), &f.before, &f.after}, f.play)
				f.compare(t)
			})
		}
	})
}

func TestR24OverSQL(t *testing.T) {
	real.EachSQL(t, func(t *testing.T, s real.SQL) { onBed(t, openSQL(t, s), unreadSteps(1, false)) })
}
