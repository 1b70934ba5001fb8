package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// stats counts what happened, so that a run that tested nothing is visible.
type stats struct {
	mu sync.Mutex
	n  map[string]int
}

func newStats() *stats { return &stats{n: map[string]int{}} }

func (s *stats) count(what string) { s.add(what, 1) }

func (s *stats) add(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n[what] += n
}

// String lists the counts, the greatest first.
func (s *stats) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(s.n), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.n[b], s.n[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", s.n[name], name)
	}
	return b.String()
}
