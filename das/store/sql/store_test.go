package sqlstore_test

import (
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/storetest"
)

func TestStore(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		cfg := s.migrated(t)
		storetest.Run(t, func(t *testing.T) store.Store {
			s.empty(t, cfg)
			return open(t, cfg)
		}, limitsOf(t, s))
	})
}

func TestSameAsMemoryOverReopening(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		cfg := s.migrated(t)
		storetest.Compare(t, 100, 200, open(t, cfg), func(old store.Store) store.Store {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, cfg)
		}, limitsOf(t, s))
	})
}
