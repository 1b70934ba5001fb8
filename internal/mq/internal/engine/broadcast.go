package engine

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"

	"hongyan/internal/mq"
)

// backlog is how many broadcasts may wait for one listener; beyond, he misses them.
const backlog = 1024

// listener hears the broadcasts of a topic.
type listener struct {
	ctx     context.Context
	handler mq.Handler
	waiting chan mq.Message // capacity backlog; full: missed and counted
}

// SubscribeAll implements mq.Queue.
func (q *Queue) SubscribeAll(ctx context.Context, topicName string, handler mq.Handler) error {
	if err := mq.CheckSubscribeAll(ctx, topicName, handler); err != nil {
		return fmt.Errorf("subscribe to all of %s: %w", topicName, err)
	}
	l := &listener{ctx, handler, make(chan mq.Message, backlog)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return fmt.Errorf("subscribe to all of %s: %w", topicName, mq.ErrClosed)
	}
	q.listeners[topicName] = append(q.listeners[topicName], l)
	q.delivering.Go(func() { q.listen(topicName, l) })
	return nil
}

// listen runs the handler until ctx ends or the queue closes.
func (q *Queue) listen(topicName string, l *listener) {
	for {
		select {
		case m := <-l.waiting:
			q.hear(l, m)
		case <-q.closing:
			return
		case <-l.ctx.Done():
			q.mu.Lock()
			defer q.mu.Unlock()
			q.listeners[topicName] = slices.DeleteFunc(q.listeners[topicName], func(other *listener) bool { return other == l })
			return
		}
	}
}

// hear runs the handler once; nothing is tried again.
func (q *Queue) hear(l *listener, m mq.Message) {
	defer func() {
		if r := recover(); r != nil {
			q.opt.Log.Error("broadcast handler panicked", "topic", m.Topic, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	if err := l.handler(l.ctx, m); err != nil && l.ctx.Err() == nil {
		q.opt.Log.Warn("broadcast not handled", "topic", m.Topic, "key", m.Key, "err", err)
	}
}

// broadcast hands messages to all who listen, and waits for nobody.
func (q *Queue) broadcast(msgs []mq.Message) {
	if len(msgs) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range msgs {
		q.metrics.Published.WithLabelValues(m.Topic).Inc()
		m.Attempt = 1
		for _, l := range q.listeners[m.Topic] {
			select {
			case l.waiting <- m:
			default:
				q.metrics.missed.WithLabelValues(m.Topic).Inc()
			}
		}
	}
}

// split parts work from broadcasts. The slices may alias msgs.
func split(msgs []mq.Message) (work, broadcasts []mq.Message) {
	if !slices.ContainsFunc(msgs, func(m mq.Message) bool { return mq.Broadcast(m.Topic) }) {
		return msgs, nil
	}
	for _, m := range msgs {
		if mq.Broadcast(m.Topic) {
			broadcasts = append(broadcasts, m)
		} else {
			work = append(work, m)
		}
	}
	return work, broadcasts
}
