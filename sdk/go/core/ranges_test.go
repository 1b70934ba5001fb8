package core

import (
	"math/rand/v2"
	"testing"
)

// TestRangesAgainstASet compares the intervals with a plain set over random operations.
func TestRangesAgainstASet(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var r Ranges
		set := map[uint64]bool{}
		for range 30 {
			from := rng.Uint64N(40) + 1
			to := from + rng.Uint64N(6)
			if rng.IntN(8) == 0 {
				r = r.Below(from)
				for s := range set {
					if s > from {
						delete(set, s)
					}
				}
			} else {
				r = r.Add(from, to)
				for s := from; s <= to; s++ {
					set[s] = true
				}
			}
			checkRanges(t, r, set)
		}
	}
}

func checkRanges(t *testing.T, r Ranges, set map[uint64]bool) {
	t.Helper()
	for i, x := range r {
		if x.From > x.To || i > 0 && r[i-1].To+1 >= x.From {
			t.Fatalf("not minimal: %v", r)
		}
	}
	for s := uint64(1); s < 50; s++ {
		if r.Has(s) != set[s] {
			t.Fatalf("Has(%d) = %v in %v", s, r.Has(s), r)
		}
		through := s - 1
		for set[through+1] {
			through++
		}
		if got := r.Through(s); got != through {
			t.Fatalf("Through(%d) = %d, want %d in %v", s, got, through, r)
		}
	}
	var top uint64
	for s := uint64(45); s > 2 && top == 0; s-- {
		if !set[s] {
			top = s
		}
	}
	low := top
	for low > 3 && !set[low-1] && top-low+1 < 5 {
		low--
	}
	if got, ok := r.LastMissing(3, 45, 5); ok != (top != 0) || ok && got != (Range{low, top}) {
		t.Fatalf("LastMissing = %v, %v, want %d..%d in %v", got, ok, low, top, r)
	}
}
