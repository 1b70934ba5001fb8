package pebblestore_test

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hongyan/das/store"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/das/store/storetest"
)

// small makes every cache and table turn over within a test.
func small() pebblestore.Config {
	cfg := pebblestore.DefaultConfig()
	cfg.CacheMiB, cfg.MemTableMiB, cfg.HeadConvs, cfg.HeadRows = 1, 1, 4, 8
	return cfg
}

func open(t testing.TB, cfg pebblestore.Config, fs vfs.FS) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open(cfg, pebblestore.Deps{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrBroken) {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, small(), vfs.NewMem()) })
}

func TestSameAsMemoryOverReopening(t *testing.T) {
	for seed := uint64(100); seed < 103; seed++ {
		fs := vfs.NewMem()
		storetest.Compare(t, seed, 400, open(t, small(), fs), func(s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, small(), fs)
		})
	}
}
