//go:build race

package gate

// raced: under the race detector a sync.Pool forgets at random, so allocations say nothing.
const raced = true
