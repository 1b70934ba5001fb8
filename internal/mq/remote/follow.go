package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/route"
)

const (
	// followWait is how long a host is asked to wait for the next broadcast.
	followWait = 8 * time.Second
	// followSlack is what an answer may take beyond that.
	followSlack = 4 * time.Second
	// followRetry is the pause after a host did not answer.
	followRetry = time.Second
)

// SubscribeAll implements mq.Queue: it follows every host, those that appear later too. What
// a host tells while it cannot be reached is missed, or late.
func (p *Publisher) SubscribeAll(ctx context.Context, topic string, handler mq.Handler) error {
	if err := mq.CheckSubscribeAll(ctx, topic, handler); err != nil {
		return fmt.Errorf("subscribe to all of %s: %w", topic, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("subscribe to all of %s: %w", topic, mq.ErrClosed)
	}
	p.listeners.Go(func() {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		var mu sync.Mutex // handlers run one at a time
		p.followAll(ctx, stop, topic, func(ctx context.Context, m mq.Message) error {
			mu.Lock()
			defer mu.Unlock()
			return hear(ctx, handler, m)
		})
	})
	return nil
}

// followAll keeps one follower for each host, until ctx ends or the queue is closed.
func (p *Publisher) followAll(ctx context.Context, stop context.CancelFunc, topic string, handler mq.Handler) {
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	running := map[string]context.CancelFunc{}
	for {
		changed := p.hosts.Changed()
		here := map[string]bool{}
		for _, peer := range p.hosts.All() {
			here[peer.Addr] = true
			if running[peer.Addr] != nil {
				continue
			}
			ctx, leave := context.WithCancel(ctx)
			running[peer.Addr] = leave
			followers.Go(func() { p.follow(ctx, peer, topic, handler) })
		}
		for addr, leave := range running {
			if !here[addr] {
				leave()
				delete(running, addr)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-p.closing:
			return
		}
	}
}

// follow asks one host for broadcasts, from now on.
func (p *Publisher) follow(ctx context.Context, peer route.Peer[tier.Queue], topic string, handler mq.Handler) {
	at := &tier.FollowRequest{Topic: topic, WaitMs: followWait.Milliseconds()}
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, followWait+followSlack)
		reply, err := peer.Client.Follow(call, at)
		cancel()
		if err != nil {
			pause(ctx, followRetry)
			continue
		}
		at = &tier.FollowRequest{Topic: topic, WaitMs: at.WaitMs, Boot: reply.Boot, Next: reply.Next}
		for _, it := range reply.Items {
			_ = handler(ctx, mq.Message{Topic: it.Topic, Key: it.Key, Payload: it.Payload, Attempt: 1}) // not tried again
		}
	}
}

// hear runs the handler; a panic is an error.
func hear(ctx context.Context, handler mq.Handler, m mq.Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = code.Errorf(code.Internal, "broadcast handler panicked: %v", r)
		}
	}()
	return handler(ctx, m)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
