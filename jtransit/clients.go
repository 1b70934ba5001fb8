package jtransit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/internal/control"
	"hongyan/internal/rpc"
)

// service is one instance of a service of the platform (rpc.Foreign).
type service interface {
	Call(ctx context.Context, method string, request []byte) ([]byte, error)
	Close()
}

// clientKey names a client. The IDL is no part of it: bodies are forwarded as bytes.
type clientKey struct {
	of   rpc.ForeignService
	addr string
}

// client is shared by all calls of a service at an address. It is closed when no table and
// no call under way uses it any more.
type client struct {
	service
	key  clientKey
	uses int          // guarded by clients.mu
	down atomic.Int64 // Unix nanoseconds until which others go first
}

// downFor is how long an instance that could not be reached comes after the others.
const downFor = time.Second

func (c *client) isDown(now time.Time) bool { return now.UnixNano() < c.down.Load() }

func (c *client) failed(now time.Time) { c.down.Store(now.Add(downFor).UnixNano()) }

// clients are all there are, by service and address.
type clients struct {
	dial func(clientKey) (service, error)

	mu  sync.Mutex
	all map[clientKey]*client
}

func newClients(maxBody int) *clients {
	return &clients{all: map[clientKey]*client{}, dial: func(key clientKey) (service, error) {
		// Encoded, a body is seldom larger than its JSON; with room for small ones.
		return rpc.DialForeign(key.addr, key.of, rpc.Options{MaxBody: maxBody + 64<<10})
	}}
}

// use returns the client, which is to be given back.
func (p *clients) use(key clientKey) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.all[key]
	if c == nil {
		made, err := p.dial(key)
		if err != nil {
			return nil, err
		}
		c = &client{service: made, key: key}
		p.all[key] = c
	}
	c.uses++
	return c, nil
}

func (p *clients) giveBack(used []*client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range used {
		if c.uses--; c.uses == 0 {
			delete(p.all, c.key)
			c.Close()
		}
	}
}

func (p *clients) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// mostTurns bounds the rotation that weights make.
const mostTurns = 64

// rotation is the order in which instances have their turns: each as often as its weight
// says, spread evenly.
func rotation(at []control.Endpoint) []int {
	sum, even := 0, true
	for _, e := range at {
		sum += max(1, e.Weight)
		even = even && e.Weight == at[0].Weight
	}
	turns := len(at)
	if !even {
		turns = max(len(at), min(sum, mostTurns))
	}
	credit := make([]int, len(at))
	var order []int
	for range turns {
		best := 0
		for i, e := range at {
			credit[i] += max(1, e.Weight)
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= sum
		order = append(order, best)
	}
	return order
}
