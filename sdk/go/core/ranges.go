package core

import "slices"

// Range is the interval [From, To] of seq.
type Range struct {
	From uint64 `json:"f"`
	To   uint64 `json:"t"`
}

// Ranges is a set of seq as ascending intervals that neither touch nor overlap.
type Ranges []Range

// Has tells whether seq is in the set.
func (r Ranges) Has(seq uint64) bool {
	i := r.at(seq)
	return i < len(r) && r[i].From <= seq
}

// at is the first interval that ends at or after seq.
func (r Ranges) at(seq uint64) int {
	i, _ := slices.BinarySearchFunc(r, seq, func(x Range, seq uint64) int {
		if x.To < seq {
			return -1
		}
		return 1
	})
	return i
}

// Add puts [from, to] into the set. It may write into r's memory.
func (r Ranges) Add(from, to uint64) Ranges {
	if from > to {
		return r
	}
	lo, hi := len(r), 0
	for i, x := range r {
		if x.To+1 >= from || x.To == ^uint64(0) {
			lo = i
			break
		}
	}
	for hi = lo; hi < len(r) && (to == ^uint64(0) || r[hi].From <= to+1); hi++ {
		from, to = min(from, r[hi].From), max(to, r[hi].To)
	}
	return slices.Replace(r, lo, hi, Range{from, to})
}

// Below is the set without anything above seq.
func (r Ranges) Below(seq uint64) Ranges {
	n := r.at(seq)
	if n < len(r) && r[n].From <= seq {
		r[n].To = min(r[n].To, seq)
		n++
	}
	return r[:n]
}

// Through is the last seq of the unbroken run that starts at from, from-1 if from is not
// in the set.
func (r Ranges) Through(from uint64) uint64 {
	if i := r.at(from); i < len(r) && r[i].From <= from {
		return r[i].To
	}
	return from - 1
}

// LastMissing is the highest interval of [from, to] that is not in the set, cut to its
// newest limit entries.
func (r Ranges) LastMissing(from, to, limit uint64) (Range, bool) {
	for i := len(r) - 1; i >= 0 && to >= from; i-- {
		if r[i].From > to {
			continue
		}
		if r[i].To < to {
			from = max(from, r[i].To+1)
			break
		}
		if r[i].From == 0 {
			return Range{}, false
		}
		to = r[i].From - 1
	}
	if from > to || to == 0 {
		return Range{}, false
	}
	if to-from >= limit {
		from = to - limit + 1
	}
	return Range{from, to}, true
}
