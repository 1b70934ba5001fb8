package das

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/pebble"
)

// The flows and the counting of TestR24 once more, over the store of `hongyan dev`.

func openPebble(t testing.TB) *pebblestore.Store {
	t.Helper()
	cfg := pebblestore.DefaultConfig()
	cfg.Dir, cfg.CacheMiB, cfg.MemTableMiB = t.TempDir(), 8, 8
	s, err := pebblestore.Open(cfg, pebblestore.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trapped is a store with hooks around its commits.
type trapped struct {
	store.Store
	before, after *trap
}

func (s *trapped) Commit(ctx context.Context, b *store.Batch) error {
	if err := s.before.hit(b); err != nil {
		return err
	}
	if err := s.Store.Commit(ctx, b); err != nil {
		return err
	}
	return s.after.hit(b)
}

func TestFlowsOverPebble(t *testing.T) {
	files, err := filepath.Glob("testdata/flows/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f := newFlow(t, file)
		if !f.exclusive {
			continue // it needs several das
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			onBed(t, &trapped{openPebble(t), &f.before, &f.after}, f.play)
			f.compare(t)
		})
	}
}

func TestR24OverPebble(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { onBed(t, openPebble(t), unreadSteps(seed, true)) })
	}
}
