// Package remote reaches the embedded queue of another process: Host serves a queue over
// the generated interface, Publisher puts messages into it. Each key goes to one host.
package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/route"
)

// Host serves a queue to other processes. It implements tier.Queue.
type Host struct{ queue mq.Queue }

// NewHost serves queue.
func NewHost(queue mq.Queue) *Host { return &Host{queue} }

// Publish implements tier.Queue.
func (h *Host) Publish(ctx context.Context, req *tier.PublishBatch) (*tier.Accepted, error) {
	msgs := make([]mq.Message, 0, len(req.Items))
	for _, m := range req.Items {
		msgs = append(msgs, mq.Message{Topic: strings.Clone(m.Topic), Key: strings.Clone(m.Key), Payload: m.Payload})
	}
	if err := h.queue.Publish(ctx, msgs...); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return &tier.Accepted{}, nil
}

// Publisher is the publishing side of a queue whose hosts are a tier's instances.
type Publisher struct{ hosts *route.Pool[tier.Queue] }

// NewPublisher publishes to hosts, which the caller runs.
func NewPublisher(hosts *route.Pool[tier.Queue]) *Publisher { return &Publisher{hosts} }

// ErrPublishOnly: messages are handled where the queue is hosted.
var ErrPublishOnly = errors.New("this process only publishes; the queue's host subscribes")

// Publish stores the messages at their hosts. With several hosts some may be stored when
// another fails; repeating all of them is harmless.
func (p *Publisher) Publish(ctx context.Context, msgs ...mq.Message) error {
	batches := map[string]*tier.PublishBatch{}
	peers := map[string]route.Peer[tier.Queue]{}
	for _, m := range msgs {
		peer, err := p.hosts.Pick(route.Hash(m.Topic, m.Key))
		if err != nil {
			return fmt.Errorf("publish to %s: %w", m.Topic, err)
		}
		b := batches[peer.Addr]
		if b == nil {
			b = &tier.PublishBatch{}
			batches[peer.Addr], peers[peer.Addr] = b, peer
		}
		b.Items = append(b.Items, &tier.QueueMessage{Topic: m.Topic, Key: m.Key, Payload: m.Payload})
	}
	for addr, b := range batches {
		if _, err := peers[addr].Client.Publish(ctx, b); err != nil {
			p.hosts.Failed(peers[addr])
			return fmt.Errorf("publish at %s: %w", addr, err)
		}
	}
	return nil
}

// Subscribe answers ErrPublishOnly.
func (p *Publisher) Subscribe(context.Context, string, string, mq.Handler) error {
	return ErrPublishOnly
}

// Dead answers ErrPublishOnly.
func (p *Publisher) Dead(context.Context, string, string, int) ([]mq.Message, error) {
	return nil, ErrPublishOnly
}

// Close does nothing: the pool belongs to the caller.
func (p *Publisher) Close() error { return nil }

var (
	_ tier.Queue = (*Host)(nil)
	_ mq.Queue   = (*Publisher)(nil)
)
