package core

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// TestMergeIsApplyingBoth compares a merged change with its parts, over random changes.
func TestMergeIsApplyingBoth(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var one, both Saved
		var merged *Change
		for range 6 {
			a, b := randomChange(rng), &Change{}
			one.Apply(a())
			if merged == nil {
				merged = &Change{}
			}
			b = a()
			merged.Merge(b)
		}
		both.Apply(merged)
		if !reflect.DeepEqual(one, both) {
			t.Fatalf("seed %d:\n%+v\n%+v", seed, one, both)
		}
	}
}

// randomChange returns a maker of equal changes.
func randomChange(rng *rand.Rand) func() *Change {
	seed := rng.Uint64()
	return func() *Change {
		rng := rand.New(rand.NewPCG(seed, 4))
		c := &Change{}
		if rng.IntN(2) == 0 {
			c.Cursor = &Cursor{1, rng.Uint64N(100), 0}
		}
		c.Counter = rng.Uint64N(9)
		for i := range 3 {
			id := fmt.Sprint("c", i)
			switch rng.IntN(4) {
			case 0:
				c.Forget = append(c.Forget, id)
			case 1, 2:
				from := rng.Uint64N(5) + 1
				v := &Conv{ID: id, Last: 10, Held: Ranges{{from, 10}}, Refs: map[uint64]Ref{from: {ClientMsgID: fmt.Sprint(rng.IntN(9))}}}
				c.Convs = append(c.Convs, v)
			}
			switch id := fmt.Sprint("m", i); rng.IntN(4) {
			case 0:
				c.Put = append(c.Put, &Queued{Outgoing: Outgoing{ClientMsgID: id}, N: rng.Uint64N(9)})
			case 1:
				c.Drop = append(c.Drop, id)
			}
		}
		return c
	}
}
