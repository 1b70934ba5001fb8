// Package remote is how processes without a broker share the embedded queue: one extlogic
// hosts it, the others publish to it over RPC.
package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/route"
)

// ErrPublishOnly: messages are handled where the queue is hosted.
var ErrPublishOnly = errors.New("this process only publishes and listens; the queue's host subscribes")

var (
	_ tier.Queue = (*Host)(nil)
	_ mq.Queue   = (*Publisher)(nil)
)

// Publisher implements mq.Queue for publishing and for listening to broadcasts.
type Publisher struct {
	hosts *route.Pool[tier.Queue]

	mu        sync.Mutex
	closed    bool
	closing   chan struct{} // closed by Close
	listeners sync.WaitGroup
}

// NewPublisher returns a queue that publishes to the processes which host it. Its owner
// runs the pool.
func NewPublisher(hosts *route.Pool[tier.Queue]) *Publisher {
	return &Publisher{hosts: hosts, closing: make(chan struct{})}
}

// Publish implements mq.Queue. Messages of one key go to one host. With several hosts some
// may be stored when another fails; repeating all of them is harmless.
func (p *Publisher) Publish(ctx context.Context, msgs ...mq.Message) error {
	batches := map[string]*tier.PublishBatch{}
	peers := map[string]route.Peer[tier.Queue]{}
	for i, m := range msgs {
		if err := mq.Check(m); err != nil {
			return fmt.Errorf("publish: message %d: %w", i, err)
		}
		peer, err := p.hosts.Pick(route.Hash(m.Topic, m.Key))
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		b, ok := batches[peer.Addr]
		if !ok {
			b = &tier.PublishBatch{}
			batches[peer.Addr], peers[peer.Addr] = b, peer
		}
		b.Items = append(b.Items, &tier.QueueMessage{Topic: m.Topic, Key: m.Key, Payload: m.Payload})
	}
	var errs []error
	for addr, b := range batches {
		if _, err := peers[addr].Client.Publish(ctx, b); err != nil {
			if unreachable(err) {
				p.hosts.Failed(peers[addr])
			}
			errs = append(errs, fmt.Errorf("publish at %s: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}

// unreachable tells that an error is not the answer of a host.
func unreachable(err error) bool {
	if e, ok := errors.AsType[*code.Error](err); ok {
		return e.Code == code.Unavailable || e.Code == code.UnknownOutcome
	}
	return true
}

// Subscribe implements mq.Queue: it is refused.
func (p *Publisher) Subscribe(context.Context, string, string, mq.Handler) error {
	return ErrPublishOnly
}

// Dead implements mq.Queue: it is refused.
func (p *Publisher) Dead(context.Context, string, string, int) ([]mq.DeadLetter, error) {
	return nil, ErrPublishOnly
}

// Retry implements mq.Queue: it is refused.
func (p *Publisher) Retry(context.Context, string, string, ...string) (int, error) {
	return 0, ErrPublishOnly
}

// Close implements mq.Queue: it waits for the listeners. The pool is its owner's.
func (p *Publisher) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.closing)
	}
	p.mu.Unlock()
	p.listeners.Wait()
	return nil
}
