// Package route places keys on the instances of a tier: the same user always meets the
// same Logic, the same conversation the same Das (ZZ-16), and the keys of a dead instance
// spread evenly over all the others (ZZ-17, R30). Placement is a hint: two callers may see
// different instances for a moment, and heads fence what then goes wrong (law 5).
package route

import (
	"iter"

	"github.com/cespare/xxhash/v2"
)

// Buckets is how many logical buckets keys fall into, for all time.
const Buckets = 1024

// Hash of a user or conversation of a tenant. It is the same in every process, version
// and SDK: xxhash64 of tenant, a zero byte, id.
func Hash(tenant, id string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(tenant) // a Digest never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(id)
	return d.Sum64()
}

// Bucket of a hash, 0..1023.
func Bucket(h uint64) uint32 { return uint32(h % Buckets) }

// Walk yields every slot of n once, in the order in which a key tries them: x = h % n, its
// own; then (x+p) % n with p in [1, n) drawn from the key, so that the keys of x spread
// over all the others; from there on one by one. Repeating +p instead would miss slots
// whenever p and n share a factor. n <= 0 yields nothing.
func Walk(h uint64, n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		if n <= 0 {
			return
		}
		own := int(h % uint64(n))
		if !yield(own) || n == 1 {
			return
		}
		slot := second(h, own, n)
		for range n - 1 {
			if slot == own {
				slot = (slot + 1) % n
			}
			if !yield(slot) {
				return
			}
			slot = (slot + 1) % n
		}
	}
}

// second is (own+p) % n. p comes from the part of the hash that own left over: keys of one
// slot have different quotients.
func second(h uint64, own, n int) int {
	p := 1 + int(h/uint64(n)%uint64(n-1))
	return (own + p) % n
}
