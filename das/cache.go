package das

// cached is what every remembered state carries.
type cached struct {
	used bool // since the cache last looked at it
	// dead: dropped or evicted. Who still points to it must load anew; two live states of one
	// key would number the same version twice (R02).
	dead bool
	plan uint64 // the plan in whose snapshot it was read
}

func (c *cached) meta() *cached { return c }

// cache remembers states by key, about least recently used: a state that was used since it
// came up for eviction gets one more round. It is of one goroutine.
type cache[K comparable, V any, P interface {
	*V
	meta() *cached
}] struct {
	max   int
	slots map[K]*slot[K, V]
	ring  slot[K, V] // sentinel: next is the newest, prev the oldest
}

type slot[K comparable, V any] struct {
	key        K
	value      V
	prev, next *slot[K, V]
}

func (c *cache[K, V, P]) init(max int) {
	c.max, c.slots = max, make(map[K]*slot[K, V])
	c.ring.prev, c.ring.next = &c.ring, &c.ring
}

func (c *cache[K, V, P]) get(k K) *V {
	s := c.slots[k]
	if s == nil {
		return nil
	}
	P(&s.value).meta().used = true
	return &s.value
}

// put makes room for a state, which the caller fills. The key must not alias a buffer.
func (c *cache[K, V, P]) put(k K) *V {
	c.drop(k)
	s := &slot[K, V]{key: k}
	c.slots[k] = s
	c.front(s)
	return &s.value
}

func (c *cache[K, V, P]) front(s *slot[K, V]) {
	s.prev, s.next = &c.ring, c.ring.next
	s.prev.next, s.next.prev = s, s
}

func (s *slot[K, V]) unlink() { s.prev.next, s.next.prev = s.next, s.prev }

func (c *cache[K, V, P]) drop(k K) {
	if s := c.slots[k]; s != nil {
		c.remove(s)
	}
}

func (c *cache[K, V, P]) remove(s *slot[K, V]) {
	P(&s.value).meta().dead = true
	s.unlink()
	delete(c.slots, s.key)
}

// trim evicts down to the bound. Between two batches only: the states of a batch are
// pinned while it is planned and committed (R02).
func (c *cache[K, V, P]) trim() {
	for len(c.slots) > c.max {
		s := c.ring.prev
		if m := P(&s.value).meta(); m.used {
			m.used = false
			s.unlink()
			c.front(s)
			continue
		}
		c.remove(s)
	}
}

// slab hands out zero values from pieces of some: fewer, larger allocations. Whoever keeps
// one keeps its piece.
type slab[T any] struct{ free []T }

// slabSize is how many values share a piece.
const slabSize = 16

func (s *slab[T]) next() *T {
	if len(s.free) == 0 {
		s.free = make([]T, slabSize)
	}
	v := &s.free[0]
	s.free = s.free[1:]
	return v
}
