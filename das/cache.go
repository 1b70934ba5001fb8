package das

// cached is what every remembered state carries.
type cached struct {
	used bool // since the cache last looked at it
	// dead: dropped or evicted. Who still points to it must load anew; two live states of one
	// key would number the same version twice (R02).
	dead bool
	plan uint64 // the plan in whose snapshot it was read
}

// cache remembers states by key, about least recently used: a state that was used since it
// came up for eviction gets one more round. It is of one goroutine.
type cache[K comparable, V any] struct {
	max   int
	slots map[K]*slot[K, V]
	ring  slot[K, V] // sentinel: next is the newest, prev the oldest
}

type slot[K comparable, V any] struct {
	key        K
	value      *V
	state      *cached
	prev, next *slot[K, V]
}

func newCache[K comparable, V any](max int) *cache[K, V] {
	c := &cache[K, V]{max: max, slots: make(map[K]*slot[K, V])}
	c.ring.prev, c.ring.next = &c.ring, &c.ring
	return c
}

func (c *cache[K, V]) get(k K) *V {
	s := c.slots[k]
	if s == nil {
		return nil
	}
	s.state.used = true
	return s.value
}

// put remembers a state. The key must not alias a buffer that is used again.
func (c *cache[K, V]) put(k K, v *V, state *cached) {
	c.drop(k)
	s := &slot[K, V]{key: k, value: v, state: state}
	c.slots[k] = s
	c.front(s)
}

func (c *cache[K, V]) front(s *slot[K, V]) {
	s.prev, s.next = &c.ring, c.ring.next
	s.prev.next, s.next.prev = s, s
}

func (s *slot[K, V]) unlink() { s.prev.next, s.next.prev = s.next, s.prev }

func (c *cache[K, V]) drop(k K) {
	if s := c.slots[k]; s != nil {
		s.state.dead = true
		s.unlink()
		delete(c.slots, k)
	}
}

// trim evicts down to the bound. Between two batches only: the states of a batch are
// pinned while it is planned and committed (R02).
func (c *cache[K, V]) trim() {
	for len(c.slots) > c.max {
		s := c.ring.prev
		s.unlink()
		if s.state.used {
			s.state.used = false
			c.front(s)
			continue
		}
		s.state.dead = true
		delete(c.slots, s.key)
	}
}
