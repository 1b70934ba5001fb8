package gate

import (
	"cmp"
	"slices"
	"sync"
)

// shards of the registry: each has its own lock, and renewals go through one at a time.
const shards = 64

// registry finds the open connections by number.
type registry struct {
	shard [shards]struct {
		mu    sync.RWMutex
		conns map[uint64]*Conn
	}
}

func (r *registry) put(c *Conn) {
	s := &r.shard[c.id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[uint64]*Conn{}
	}
	s.conns[c.id] = c
}

func (r *registry) get(id uint64) *Conn {
	s := &r.shard[id%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.conns[id]
}

func (r *registry) remove(id uint64) {
	s := &r.shard[id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, id)
}

// of returns the connections of a shard, oldest first.
func (r *registry) of(shard int) []*Conn {
	s := &r.shard[shard]
	s.mu.RLock()
	conns := make([]*Conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.RUnlock()
	slices.SortFunc(conns, byAge)
	return conns
}

// all returns every connection, oldest first.
func (r *registry) all() []*Conn {
	var conns []*Conn
	for i := range shards {
		conns = append(conns, r.of(i)...)
	}
	slices.SortFunc(conns, byAge)
	return conns
}

func byAge(a, b *Conn) int { return cmp.Compare(a.id, b.id) }

func (r *registry) len() int {
	n := 0
	for i := range r.shard {
		s := &r.shard[i]
		s.mu.RLock()
		n += len(s.conns)
		s.mu.RUnlock()
	}
	return n
}
