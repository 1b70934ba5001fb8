package rocketmq

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/mq"
)

// Deps of a Queue. Log and Metrics may be nil.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Queue implements mq.Queue on RocketMQ.
type Queue struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	topics   *topics
	instance string // names this life of the process to the brokers
	producer client.Producer
	slot     atomic.Uint32 // of the next message without a key

	life       context.Context // ends when Close begins: no subscription goes on
	end        context.CancelFunc
	stop       context.CancelFunc
	sending    sync.WaitGroup // senders and the watch
	publishing sync.WaitGroup // Publish, Dead and Retry calls
	stopping   sync.WaitGroup // consumers whose last member has left

	starting sync.Mutex // one subscription at a time

	mu      sync.Mutex
	ended   bool
	ctx     context.Context // of the senders
	senders map[senderKey]*sender
	groups  map[groupKey]*group
	all     map[string]*everyone // by topic
}

var _ mq.Queue = (*Queue)(nil)

type groupKey struct{ topic, group string }

// Open makes a queue. It does not wait for a broker: one that is down is found when it is
// needed, and again when it is back. The process's log of the client becomes deps.Log.
func Open(ctx context.Context, cfg Config, deps Deps) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rocketmq configuration: %w", err)
	}
	q := &Queue{
		cfg: cfg, log: deps.Log, instance: "hongyan-" + rand.Text()[:12],
		senders: map[senderKey]*sender{}, groups: map[groupKey]*group{}, all: map[string]*everyone{},
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	LogTo(q.log)
	q.topics = &topics{cfg: &q.cfg, known: map[string]bool{}}
	var err error
	if q.metrics, err = newMetrics(deps.Metrics); err != nil {
		return nil, fmt.Errorf("rocketmq metrics: %w", err)
	}
	q.producer, err = client.NewProducer(
		producer.WithNsResolver(resolver(cfg.NameServers)),
		producer.WithGroupName(cfg.Prefix+"producer"),
		producer.WithInstanceName(q.instance),
		producer.WithCredentials(q.credentials()),
		producer.WithQueueSelector(selector{}),
		producer.WithSendMsgTimeout(cfg.SendTimeout),
		producer.WithRetry(0), // ours: a sender knows which broker failed
	)
	if err != nil {
		return nil, fmt.Errorf("rocketmq producer: %w", err)
	}
	if err := q.producer.Start(); err != nil {
		return nil, fmt.Errorf("rocketmq producer: %w", err)
	}
	q.life, q.end = context.WithCancel(context.WithoutCancel(ctx))
	q.ctx, q.stop = context.WithCancel(context.WithoutCancel(ctx))
	q.sending.Go(func() { q.watch(q.ctx) })
	return q, nil
}

func (q *Queue) credentials() primitive.Credentials {
	return primitive.Credentials{AccessKey: q.cfg.AccessKey, SecretKey: q.cfg.SecretKey}
}

// resolver gives the client the addresses of name servers: it takes no host names itself.
type resolver []string

// Resolve implements primitive.NsResolver. A name that cannot be resolved now is left out.
func (r resolver) Resolve() []string {
	var out []string
	for _, addr := range r {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		if net.ParseIP(host) != nil {
			out = append(out, addr)
			continue
		}
		ips, err := net.LookupHost(host)
		if err == nil && len(ips) > 0 {
			slices.SortFunc(ips, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
			out = append(out, net.JoinHostPort(ips[0], port))
		}
	}
	return out
}

// Description implements primitive.NsResolver.
func (r resolver) Description() string { return "name servers " + strings.Join(r, ", ") }

// enter counts a call in, unless the queue is closed.
func (q *Queue) enter() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return mq.ErrClosed
	}
	q.publishing.Add(1)
	return nil
}

// Subscribe implements mq.Queue.
func (q *Queue) Subscribe(ctx context.Context, topic, groupName string, handler mq.Handler) error {
	if err := mq.CheckSubscribe(ctx, topic, groupName, handler); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	q.starting.Lock()
	defer q.starting.Unlock()
	start, cancel := q.startContext(ctx)
	defer cancel()
	key := groupKey{topic, groupName}
	for {
		g, err := q.group(key)
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if err := g.start(start); err != nil {
			g.stop()
			q.forget(key, g)
			return fmt.Errorf("subscribe to %s as %s: %w", topic, groupName, err)
		}
		if g.join(ctx, handler) {
			return nil
		}
		select { // its last member has just left
		case <-g.stopped:
		case <-start.Done():
			return fmt.Errorf("subscribe to %s as %s: %w", topic, groupName, start.Err())
		}
	}
}

// startContext bounds what makes a subscription stand.
func (q *Queue) startContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.StartTimeout)
	unlink := context.AfterFunc(q.life, cancel)
	return ctx, func() { unlink(); cancel() }
}

// group returns the consumer of a group, new or running.
func (q *Queue) group(key groupKey) (*group, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return nil, mq.ErrClosed
	}
	g, ok := q.groups[key]
	if !ok {
		g = newGroup(q, key.topic, key.group)
		q.groups[key] = g
	}
	return g, nil
}

func (q *Queue) forget(key groupKey, g *group) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.groups[key] == g {
		delete(q.groups, key)
	}
}

// Close implements mq.Queue: what is being published is sent, what is being handled is
// finished.
func (q *Queue) Close() error {
	q.mu.Lock()
	first := !q.ended
	q.ended = true
	q.mu.Unlock()
	q.end()
	q.publishing.Wait()
	q.starting.Lock() // no subscription is on its way any more
	defer q.starting.Unlock()
	if !first {
		return nil
	}
	q.mu.Lock()
	groups, all := q.groups, q.all
	q.groups, q.all = nil, nil
	q.mu.Unlock()
	var ending sync.WaitGroup
	for _, g := range groups {
		ending.Go(g.stop)
	}
	for _, e := range all {
		ending.Go(e.stop)
	}
	ending.Wait()
	q.stopping.Wait()
	q.stop()
	q.sending.Wait()
	if err := q.producer.Shutdown(); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}

// watchEvery is how often consumers are looked at.
const watchEvery = 5 * time.Second

// watch tells the metrics how consumers stand, and the log of those without queues.
func (q *Queue) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var told time.Time
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := q.Health(); err != nil && time.Since(told) > time.Minute {
			told = time.Now()
			q.log.Warn("queue consumers", "err", err)
		}
	}
}

// Health names the groups of this process that stand for longer than a moment and have no
// queue to consume: their subscription group may be missing at the brokers (they tell
// nobody), no broker may be there, or the topic has fewer queues than the group has members.
func (q *Queue) Health() error {
	q.mu.Lock()
	groups := make([]*group, 0, len(q.groups))
	for _, g := range q.groups {
		groups = append(groups, g)
	}
	q.mu.Unlock()
	var errs []error
	for _, g := range groups {
		queues, lag, ok := g.stands()
		if !ok {
			continue
		}
		q.metrics.queues.WithLabelValues(g.topic, g.name).Set(float64(queues))
		q.metrics.Lag.WithLabelValues(g.topic, g.name).Set(float64(lag))
		if queues == 0 {
			errs = append(errs, fmt.Errorf("group %s of topic %s has no queue: does the group exist, is a broker there, are there more members than queues?",
				q.cfg.groupName(g.topic, g.name), q.cfg.topicName(g.topic)))
		}
	}
	return errors.Join(errs...)
}
