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

// draws is how many slots a key draws before it asks everybody in turn: with three of
// sixteen serving, one key in a million gets that far.
const draws = 64

// Among yields the slots that a key tries in a tier whose instances serve different things:
// x and (x+p) % n as in Walk, then slots drawn anew, at last all one by one. A slot may come
// twice; every slot comes.
//
// Who serves something else is passed over like the dead. So the keys of a duty spread evenly
// over those who serve it, those of a dead one over all the others, and whoever goes or comes
// that does not serve a key does not move it.
func Among(h uint64, n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		if n <= 0 {
			return
		}
		slot := int(h % uint64(n))
		if !yield(slot) || n == 1 {
			return
		}
		if slot = second(h, slot, n); !yield(slot) {
			return
		}
		for range draws {
			h = mix(h)
			if slot = int(h % uint64(n)); !yield(slot) {
				return
			}
		}
		for range n {
			if slot = (slot + 1) % n; !yield(slot) {
				return
			}
		}
	}
}

// mix is a step of splitmix64: a number that has nothing to do with h, and always the same.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
