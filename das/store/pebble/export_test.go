package pebblestore

// Metrics is Pebble's table of levels, for benchmarks to look at.
func (s *Store) Metrics() string { return s.db.Metrics().String() }
