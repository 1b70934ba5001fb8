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
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, small(), vfs.NewMem()) }, storetest.Limits{})
}

func TestSameAsMemoryOverReopening(t *testing.T) {
	for seed := uint64(100); seed < 102; seed++ {
		fs := vfs.NewMem()
		storetest.Compare(t, seed, 200, open(t, small(), fs), func(s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, small(), fs)
		}, storetest.Limits{})
	}
}

func TestR18BucketsSurviveARestart(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, small(), fs)
	want := store.BucketState{Epoch: 2, Open: true}
	if err := s.SetBucket(t.Context(), 700, want); err != nil {
		t.Fatal(err)
	}
	if err := s.SetBucket(t.Context(), store.Buckets, want); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("bucket %d: %v", store.Buckets, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, small(), fs)
	var fence *store.FenceError
	err := s.Commit(t.Context(), &store.Batch{Buckets: []store.BucketFence{{ID: 700, Epoch: 1}, {ID: 701, Epoch: 1}}})
	if !errors.As(err, &fence) || len(fence.Buckets) != 1 || fence.Buckets[0] != 700 {
		t.Errorf("the old epoch: %v", err)
	}
	if err := s.Commit(t.Context(), &store.Batch{Buckets: []store.BucketFence{{ID: 700, Epoch: 2}}}); err != nil {
		t.Errorf("the new epoch: %v", err)
	}
}
