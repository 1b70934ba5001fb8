package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/hooks"
	"github.com/apache/rocketmq-client-go/v2/primitive"

	"hongyan/internal/mq"
)

// pushConsumer is what we use of the client's.
type pushConsumer interface {
	Start() error
	Shutdown() error
	Subscribe(topic string, selector consumer.MessageSelector, f func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)) error
	GetOffsetDiffMap() map[string]int64
	UpdateTopicSubscribeInfo(topic string, queues []*primitive.MessageQueue)
}

// group consumes a topic for the members of a group in this process: one push consumer,
// however many members.
type group struct {
	q           *Queue
	topic, name string
	lanes       *lanes
	running     chan struct{} // capacity Config.Parallel: a token for each handler
	stopping    chan struct{} // closed: no handler starts any more
	stopped     chan struct{} // closed: the consumer is gone
	once        sync.Once     // stop

	handlers sync.WaitGroup

	mu      sync.Mutex
	push    pushConsumer // nil until start
	queues  func() int   // that it consumes
	since   time.Time    // of start
	members []*member
	turn    int           // of the member that is next
	left    bool          // the last member has gone
	joined  chan struct{} // closed when a member joins
	failed  int           // failures since the last warning
	warned  time.Time
}

type member struct {
	ctx     context.Context
	handler mq.Handler
}

func newGroup(q *Queue, topic, name string) *group {
	return &group{
		q: q, topic: topic, name: name, lanes: newLanes(), running: make(chan struct{}, q.cfg.Parallel),
		stopping: make(chan struct{}), stopped: make(chan struct{}), joined: make(chan struct{}),
	}
}

// Numbers of a consumer. A queue holds up to its threshold of pulled messages, each with a
// goroutine that waits for its turn: beyond the pull batch it waits for them.
const (
	pullBatch     = 64
	pullThreshold = 512
	goroutines    = 1 << 16 // more than all queues' thresholds
	maxSpan       = 16384   // how far the newest pulled message may be from one that is not finished
)

// start makes the consumer, unless it runs.
func (g *group) start(ctx context.Context) error {
	if push, _ := g.consumer(); push != nil {
		return nil
	}
	name, topic := g.q.cfg.groupName(g.topic, g.name), g.q.cfg.topicName(g.topic)
	if err := g.q.await(ctx, func(ctx context.Context) error {
		return g.q.topics.ensureAll(ctx, topic, name)
	}); err != nil {
		return err
	}
	push, err := consumer.NewPushConsumer(
		consumer.WithNsResolver(resolver(g.q.cfg.NameServers)),
		consumer.WithGroupName(name),
		consumer.WithInstance(g.q.instance),
		consumer.WithCredentials(g.q.credentials()),
		consumer.WithConsumerModel(consumer.Clustering),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithMaxReconsumeTimes(mq.MaxAttempts-1),
		consumer.WithConsumeMessageBatchMaxSize(1),
		consumer.WithPullBatchSize(pullBatch),
		consumer.WithPullThresholdForQueue(pullThreshold),
		consumer.WithConsumeConcurrentlyMaxSpan(maxSpan),
		consumer.WithConsumeGoroutineNums(goroutines),
		consumer.WithFilterMessageHook([]hooks.FilterMessageHook{g.pulled}),
	)
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if err := push.Subscribe(topic, consumer.MessageSelector{}, g.consume); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	if err := push.Start(); err != nil {
		return errors.Join(fmt.Errorf("consumer: %w", err), push.Shutdown())
	}
	g.mu.Lock()
	g.push, g.since = push, time.Now()
	g.queues = func() int { return queuesOf(push.GetConsumerRunningInfo(false).MQTable, topic) }
	g.mu.Unlock()
	g.knowRetries(ctx, push, retryPrefix+name)
	return g.q.await(ctx, func(context.Context) error {
		if g.queues() == 0 && time.Since(g.since) < queuesWithin {
			return errNoQueue // others may hold them all
		}
		return nil
	})
}

func (g *group) consumer() (pushConsumer, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.push, g.since
}

// queuesOf tells how many queues of a topic are in a consumer's table.
func queuesOf[V any](table map[primitive.MessageQueue]V, topic string) (n int) {
	for queue := range table {
		if queue.Topic == topic {
			n++
		}
	}
	return n
}

// queuesWithin is how long a new consumer may take to get queues before it counts as idle.
const queuesWithin = 5 * time.Second

var errNoQueue = errors.New("no queue yet")

// knowRetries tells the client of the topic of the group's retries. Of a new group the broker
// makes it when the consumer registers; by itself the client would learn of it half a minute
// later. (Its Rebalance must not be called for that: it is not safe beside its own.)
func (g *group) knowRetries(ctx context.Context, push pushConsumer, topic string) {
	ctx, cancel := context.WithTimeout(ctx, queuesWithin)
	defer cancel()
	var list []queueOf
	err := g.q.await(ctx, func(ctx context.Context) (err error) {
		list, err = g.q.topics.queues(ctx, topic)
		return err
	})
	if err != nil {
		g.q.log.Warn("topic of retries is not known yet", "topic", topic, "err", err)
		return
	}
	var queues []*primitive.MessageQueue
	for _, q := range list {
		queues = append(queues, &primitive.MessageQueue{Topic: topic, BrokerName: q.broker, QueueId: q.id})
	}
	push.UpdateTopicSubscribeInfo(topic, queues)
}

// await repeats until it works or ctx ends, and then returns the last error.
func (q *Queue) await(ctx context.Context, try func(context.Context) error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, errMissing) && !q.cfg.CreateTopics && ctx.Err() == nil && pause >= time.Second {
			return err // it will not come by itself
		}
		if brief(ctx, pause) != nil {
			return err
		}
	}
}

// join adds a member until ctx ends. False: the group is stopping.
func (g *group) join(ctx context.Context, handler mq.Handler) bool {
	m := &member{ctx, handler}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left {
		return false
	}
	g.members = append(g.members, m)
	close(g.joined)
	g.joined = make(chan struct{})
	context.AfterFunc(ctx, func() { g.leave(m) })
	return true
}

// leave takes a member out. With the last one the consumer goes: its queues are for others.
func (g *group) leave(m *member) {
	g.mu.Lock()
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	last := len(g.members) == 0 && !g.left
	g.left = g.left || last
	g.mu.Unlock()
	if !last {
		return
	}
	g.q.mu.Lock()
	ended := g.q.ended
	if !ended {
		g.q.stopping.Add(1)
	}
	g.q.mu.Unlock()
	if ended {
		return // Close stops it
	}
	defer g.q.stopping.Done()
	g.stop()
	g.q.forget(groupKey{g.topic, g.name}, g)
}

// settleFor is what the client needs to note the result of a handler that has just returned;
// without it the message would come again.
const settleFor = 20 * time.Millisecond

// stop waits for the handlers and ends the consumer. What is pulled and not handled is for
// the next consumer of its queue.
func (g *group) stop() {
	g.once.Do(func() {
		g.mu.Lock()
		g.left = true
		close(g.stopping) // under the lock: handle adds to handlers only before
		g.mu.Unlock()
		g.handlers.Wait()
		if push, _ := g.consumer(); push != nil {
			time.Sleep(settleFor)
			if err := push.Shutdown(); err != nil {
				g.q.log.Warn("consumer not shut down", "topic", g.topic, "group", g.name, "err", err)
			}
		}
		close(g.stopped)
	})
	<-g.stopped
}

// stands tells how many queues are consumed and how many messages of them are not finished.
// Not ok: too young to tell.
func (g *group) stands() (queues int, lag int64, ok bool) {
	select {
	case <-g.stopping:
		return 0, 0, false
	default:
	}
	push, since := g.consumer()
	if push == nil || time.Since(since) < queuesWithin {
		return 0, 0, false
	}
	for _, n := range push.GetOffsetDiffMap() {
		lag += n
	}
	return g.queues(), lag, true
}

// pulled is called with what was pulled from a queue, in order: it gives each message its
// place in its lane.
func (g *group) pulled(ctx *hooks.FilterMessageContext) ([]*primitive.MessageExt, error) {
	for _, m := range ctx.Msg {
		g.lanes.enter(keyOf(m), idOf(m, ctx.MQ.BrokerName))
	}
	return ctx.Msg, nil
}

// idOf is where the broker has a message. The client renames the topic of retried ones.
func idOf(m *primitive.MessageExt, broker string) messageID {
	topic := m.Topic
	if m.GetProperty(primitive.PropertyRetryTopic) != "" {
		topic = retryPrefix
	}
	return messageID{topic, broker, m.Queue.QueueId, m.QueueOffset}
}

// consume handles one message, on a goroutine that the client has started for it.
func (g *group) consume(ctx context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	m := msgs[0]
	key := keyOf(m)
	t := g.lanes.claim(key, idOf(m, m.Queue.BrokerName))
	defer g.lanes.leave(t)
	if !g.lanes.wait(t, g.stopping) || !g.slot() {
		<-g.stopped // from then on what we return does not count
		return consumer.ConsumeRetryLater, nil
	}
	defer func() { <-g.running }()
	attempt := int(m.ReconsumeTimes) + 1
	err, ran := g.handle(mq.Message{Topic: g.topic, Key: key, Payload: payloadOf(m), Attempt: attempt})
	if !ran {
		<-g.stopped
		return consumer.ConsumeRetryLater, nil
	}
	if err == nil {
		g.q.metrics.Handled.WithLabelValues(g.topic, g.name, "done").Inc()
		return consumer.ConsumeSuccess, nil
	}
	level := g.note(m, key, attempt, err)
	if level == levelDead {
		failed := g.bury(m, key, attempt, err)
		if failed == nil {
			return consumer.ConsumeSuccess, nil
		}
		g.q.log.Debug("dead letter is left to the broker, without its error", "topic", g.topic, "group", g.name, "err", failed)
	}
	if c, ok := primitive.GetConcurrentlyCtx(ctx); ok {
		c.DelayLevelWhenNextConsume = level
	}
	return consumer.ConsumeRetryLater, nil
}

// slot waits until a handler may run. False: the group is stopping.
func (g *group) slot() bool {
	select {
	case g.running <- struct{}{}:
		return true
	case <-g.stopping:
		return false
	}
}

// handle runs the handler of a member. When that one leaves in the middle, another takes
// over. Not ran: the group is stopping.
func (g *group) handle(msg mq.Message) (err error, ran bool) {
	for {
		m, joined := g.next()
		if m == nil {
			select {
			case <-joined:
				continue
			case <-g.stopping:
				return nil, false
			}
		}
		err := g.call(m, msg)
		g.handlers.Done()
		if err == nil || m.ctx.Err() == nil || errors.Is(err, mq.ErrReject) {
			return err, true
		}
	}
}

// next picks a member and counts its handler in; nil: there is none, wait for joined.
func (g *group) next() (*member, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.stopping:
		return nil, nil
	default:
	}
	for range g.members {
		m := g.members[g.turn%len(g.members)]
		g.turn++
		if m.ctx.Err() == nil {
			g.handlers.Add(1)
			return m, nil
		}
	}
	return nil, g.joined
}

// call runs the handler; a panic is an error.
func (g *group) call(m *member, msg mq.Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("handler panicked: %v", r)
			g.q.log.Error("queue handler panicked", "topic", msg.Topic, "group", g.name, "key", msg.Key, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return m.handler(m.ctx, msg)
}

// levelDead sends a message to the dead letters.
const levelDead = -1

// warnEvery bounds the log lines of a group whose handler fails.
const warnEvery = 10 * time.Second

// note counts a failure and returns the delay level of the next attempt.
func (g *group) note(m *primitive.MessageExt, key string, attempt int, err error) int {
	if attempt >= mq.MaxAttempts || errors.Is(err, mq.ErrReject) {
		g.q.metrics.Handled.WithLabelValues(g.topic, g.name, "dead").Inc()
		g.q.log.Error("message is a dead letter", "topic", g.topic, "group", g.name, "key", key, "msg_id", m.MsgId, "attempts", attempt, "err", err)
		return levelDead
	}
	g.q.metrics.Handled.WithLabelValues(g.topic, g.name, "again").Inc()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed++; time.Since(g.warned) >= warnEvery {
		g.q.log.Warn("queue handler failed, the message comes again", "topic", g.topic, "group", g.name, "key", key,
			"attempt", attempt, "failures", g.failed, "err", err)
		g.failed, g.warned = 0, time.Now()
	}
	levels := g.q.cfg.RetryLevels
	return levels[min(attempt, len(levels))-1]
}
