package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"

	"hongyan/internal/mq"
)

// everyone hears a broadcast topic for all listeners of this process: one broadcasting push
// consumer.
type everyone struct {
	q     *Queue
	topic string
	group string
	once  sync.Once
	push  pushConsumer

	mu        sync.Mutex
	listeners []*member
	ended     bool // the last listener has gone
	gone      chan struct{}
}

// SubscribeAll implements mq.Queue.
func (q *Queue) SubscribeAll(ctx context.Context, topic string, handler mq.Handler) error {
	if err := mq.CheckSubscribeAll(ctx, topic, handler); err != nil {
		return fmt.Errorf("subscribe to all of %s: %w", topic, err)
	}
	q.starting.Lock()
	defer q.starting.Unlock()
	q.mu.Lock()
	ended, e := q.ended, q.all[topic]
	q.mu.Unlock()
	if ended {
		return fmt.Errorf("subscribe to all of %s: %w", topic, mq.ErrClosed)
	}
	if e != nil && e.join(ctx, handler) {
		return nil
	}
	if e != nil {
		<-e.gone
	}
	e = &everyone{q: q, topic: topic, group: q.cfg.groupName(topic, "all"), gone: make(chan struct{})}
	start, cancel := q.startContext(ctx)
	defer cancel()
	e.join(ctx, handler)
	if err := e.start(start); err != nil {
		e.stop()
		return fmt.Errorf("subscribe to all of %s: %w", topic, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended { // Close waits for starting, and ends what it finds
		return fmt.Errorf("subscribe to all of %s: %w", topic, mq.ErrClosed)
	}
	q.all[topic] = e
	return nil
}

// start returns when every queue of the topic is followed: what is published from then on
// is heard.
func (e *everyone) start(ctx context.Context) error {
	topic := e.q.cfg.topicName(e.topic)
	if err := e.q.await(ctx, func(ctx context.Context) error {
		return errors.Join(e.q.topics.ensure(ctx, topic), e.q.topics.ensureGroup(ctx, e.group))
	}); err != nil {
		return err
	}
	push, err := consumer.NewPushConsumer(
		consumer.WithNsResolver(resolver(e.q.cfg.NameServers)),
		consumer.WithGroupName(e.group),
		consumer.WithInstance(e.q.instance),
		consumer.WithCredentials(e.q.credentials()),
		consumer.WithConsumerModel(consumer.BroadCasting),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset),
		consumer.WithConsumeMessageBatchMaxSize(1),
		consumer.WithConsumeGoroutineNums(1), // one at a time, in the order of their queue
	)
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if err := push.Subscribe(topic, consumer.MessageSelector{}, e.hear); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if err := push.Start(); err != nil {
		return errors.Join(fmt.Errorf("consumer: %w", err), push.Shutdown())
	}
	e.push = push
	return e.q.await(ctx, func(ctx context.Context) error {
		queues, err := e.q.topics.queues(ctx, topic)
		if err == nil && queuesOf(push.GetConsumerRunningInfo(false).MQTable, topic) < len(queues) {
			err = errNoQueue
		}
		return err
	})
}

// join adds a listener until ctx ends. False: the last one has left.
func (e *everyone) join(ctx context.Context, handler mq.Handler) bool {
	m := &member{ctx, handler}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return false
	}
	e.listeners = append(e.listeners, m)
	context.AfterFunc(ctx, func() { e.leave(m) })
	return true
}

func (e *everyone) leave(m *member) {
	e.mu.Lock()
	e.listeners = slices.DeleteFunc(e.listeners, func(other *member) bool { return other == m })
	last := len(e.listeners) == 0 && !e.ended
	e.ended = e.ended || last
	e.mu.Unlock()
	if !last {
		return
	}
	e.q.starting.Lock() // not while it starts
	defer e.q.starting.Unlock()
	e.q.mu.Lock()
	if e.q.all[e.topic] == e {
		delete(e.q.all, e.topic)
	}
	e.q.mu.Unlock()
	e.stop()
}

// stop ends the consumer and removes the file in which the client keeps where it stands: a
// later life of the process begins with what is then new.
func (e *everyone) stop() {
	e.once.Do(func() {
		if e.push != nil {
			if err := e.push.Shutdown(); err != nil {
				e.q.log.Warn("consumer not shut down", "topic", e.topic, "err", err)
			}
			e.removeFile()
		}
		close(e.gone)
	})
	<-e.gone
}

// removeFile knows where the client keeps the offsets of broadcasts:
// .rocketmq_client_go/GROUP/IP@INSTANCE.
func (e *everyone) removeFile() {
	base := os.Getenv("rocketmq.client.localOffsetStoreDir")
	if base == "" {
		base = filepath.Join(os.Getenv("HOME"), ".rocketmq_client_go")
	}
	dirs, _ := filepath.Glob(filepath.Join(base, e.group, "*@"+e.q.instance))
	for _, dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// hear hands a broadcast to the listeners. Whatever they say, it does not come again.
func (e *everyone) hear(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	e.mu.Lock()
	listeners := slices.Clone(e.listeners)
	e.mu.Unlock()
	for _, raw := range msgs {
		m := mq.Message{Topic: e.topic, Key: keyOf(raw), Payload: payloadOf(raw), Attempt: 1}
		for _, l := range listeners {
			e.tell(l, m)
		}
		e.q.metrics.Handled.WithLabelValues(e.topic, "all", "done").Inc()
	}
	return consumer.ConsumeSuccess, nil
}

func (e *everyone) tell(l *member, m mq.Message) {
	if l.ctx.Err() != nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			e.q.log.Error("broadcast handler panicked", "topic", m.Topic, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	if err := l.handler(l.ctx, m); err != nil && l.ctx.Err() == nil {
		e.q.log.Warn("broadcast not handled", "topic", m.Topic, "key", m.Key, "err", err)
	}
}
