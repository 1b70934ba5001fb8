package pebblestore

import "github.com/cockroachdb/pebble/v2"

// Metrics is Pebble's table of levels, for benchmarks to look at.
func (s *Store) Metrics() string { return s.db.Metrics().String() }

// Issued is how many synced commits have been applied, flushed or not.
func (s *Store) Issued() uint64 {
	s.flushes.mu.Lock()
	defer s.flushes.mu.Unlock()
	return s.flushes.issued
}

// SetFormat writes the format of the database.
func (s *Store) SetFormat(n uint64) error {
	return s.db.Set([]byte{tableFormat}, appendSeq(nil, n), pebble.Sync)
}
