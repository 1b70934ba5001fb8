package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/extlogic"
	"hongyan/idl/event"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	mqmem "hongyan/internal/mq/memory"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// queueOdds are how likely a message of the queue meets what.
type queueOdds struct {
	refused float64 // not stored, an error
	hidden  float64 // stored, an error
	lost    float64 // an offline event answered as stored, and lost: a queue only wakes
	twice   float64
	late    float64 // handled up to 10 s later
	vendor  float64 // a vendor of pushes does not answer
}

var errQueue = errors.New("message queue is down")

// broker is the message queue of the cluster: the real one of the embedded parts, behind a
// way to it that loses, repeats and delays.
type broker struct {
	mq.Queue
	cluster   *cluster
	down      atomic.Bool
	cacheDown atomic.Bool // the presence cache, beside it

	mu  sync.Mutex
	rng *rand.Rand
}

func newBroker(c *cluster) (*broker, error) {
	q, err := mqmem.Open(mqmem.Options{MaxBackoff: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	return &broker{Queue: q, cluster: c, rng: newRand(c.seed, "queue")}, nil
}

func (b *broker) float() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.Float64()
}

// odds of now.
func (b *broker) odds() queueOdds {
	if b.cluster.calm.Load() {
		return queueOdds{}
	}
	return b.cluster.profile.queue
}

// queueAt is the queue as a process sees it.
type queueAt struct {
	*broker
	proc *process
}

func (b *broker) of(p *process) mq.Queue { return queueAt{b, p} }

// Publish implements mq.Queue.
func (q queueAt) Publish(ctx context.Context, msgs ...mq.Message) error {
	if err := q.proc.awake(ctx); err != nil {
		return err
	}
	return q.publish(ctx, msgs)
}

func (b *broker) publish(ctx context.Context, msgs []mq.Message) error {
	o, fate := b.odds(), b.float()
	if b.down.Load() || fate < o.refused {
		return errQueue
	}
	var kept []mq.Message
	for _, m := range msgs {
		b.cluster.stats.count("events of " + m.Topic)
		if m.Topic == mq.TopicOffline && b.float() < o.lost || b.cluster.rules.loses(m.Topic) {
			continue
		}
		kept = append(kept, m)
		if b.float() < o.twice {
			kept = append(kept, m)
		}
	}
	if len(kept) > 0 {
		if err := b.Queue.Publish(ctx, kept...); err != nil {
			return err
		}
	}
	if fate < o.refused+o.hidden {
		return errQueue
	}
	return nil
}

// Subscribe implements mq.Queue.
func (q queueAt) Subscribe(ctx context.Context, topic, group string, handle mq.Handler) error {
	return q.Queue.Subscribe(ctx, topic, group, func(ctx context.Context, m mq.Message) error {
		if q.float() < q.odds().late {
			if err := sleep(ctx, scaled(q.float(), 10*time.Second)); err != nil {
				return err
			}
		}
		if q.down.Load() {
			return errQueue
		}
		if err := q.proc.awake(ctx); err != nil {
			return err
		}
		return handle(ctx, m)
	})
}

// vendor pushes to devices that are not connected, or does not answer.
type vendor struct{ broker *broker }

func (vendor) Name() string { return "sim" }

func (v vendor) Push(context.Context, extlogic.Notification) (extlogic.Result, error) {
	if v.broker.float() < v.broker.odds().vendor {
		return 0, errors.New("the vendor does not answer")
	}
	v.broker.cluster.stats.count("pushes by vendor")
	return extlogic.Accepted, nil
}

func (c *cluster) newExtlogic(p *process) (func(context.Context) error, error) {
	dases := route.NewPool(c.center, tierDas, c.dases(p), route.PoolOptions{})
	logics := route.NewPool(c.center, tierLogic, c.logics(p), route.PoolOptions{})
	x, err := extlogic.New(extlogic.DefaultConfig(), extlogic.Deps{
		Das: dases, Logics: logics, Queue: c.queue.of(p), Self: p.Instance, Log: c.logOf(p),
		Vendors: map[string]extlogic.Vendor{"": vendor{c.queue}},
	})
	if err != nil {
		return nil, err
	}
	return c.with(p, x.Run, dases, logics), nil
}

// notice is what a business system had sent to a user, as a channel.
type notice struct{ tenant, uid, conv, id, text string }

const channel = "shop"

// announce publishes notices until the queue has taken each.
func (w *world) announce(ctx context.Context, length time.Duration) {
	rng := newRand(w.cluster.seed, "notices")
	p := w.cluster.profile.people
	for i := range p.notices {
		if sleep(ctx, scaled(rng.Float64()*2, length)/time.Duration(p.notices)) != nil {
			return
		}
		tenant := []string{"acme", "bolt"}[rng.IntN(2)]
		uid := w.users[tenant][rng.IntN(len(w.users[tenant]))]
		n := &notice{tenant, uid, "s:" + channel + ":" + uid, fmt.Sprintf("notice-%d", i), fmt.Sprintf("%s|notice %d", tenant, i)}
		w.publish(ctx, n)
	}
}

func (w *world) publish(ctx context.Context, n *notice) {
	payload, err := (&event.SystemNotice{Tenant: n.tenant, Channel: channel, Uid: n.uid, ClientMsgId: n.id, Text: n.text}).Marshal(nil)
	if err != nil {
		panic(err)
	}
	w.notices = append(w.notices, n)
	for {
		err := w.cluster.queue.publish(ctx, []mq.Message{{Topic: mq.TopicSystem, Key: n.tenant + "/" + n.uid, Payload: payload}})
		if err == nil || sleep(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// cacheAt is the presence cache as a process sees it.
type cacheAt struct {
	presence.Cache
	cluster *cluster
	proc    *process
}

var errCache = errors.New("presence cache is down")

func cacheOf(c *cluster, p *process) presence.Cache { return cacheAt{c.presence, c, p} }

func (a cacheAt) reach(ctx context.Context) error {
	if a.cluster.queue.cacheDown.Load() {
		return errCache
	}
	return a.proc.awake(ctx)
}

// Put implements presence.Cache.
func (a cacheAt) Put(ctx context.Context, user presence.User, routes ...presence.Route) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	return a.Cache.Put(ctx, user, routes...)
}

// Remove implements presence.Cache.
func (a cacheAt) Remove(ctx context.Context, user presence.User, device string, epoch uint64) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	return a.Cache.Remove(ctx, user, device, epoch)
}

// Apply implements presence.Cache.
func (a cacheAt) Apply(ctx context.Context, changes []presence.Change) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	return a.Cache.Apply(ctx, changes)
}

// Get implements presence.Cache.
func (a cacheAt) Get(ctx context.Context, users []presence.User) ([]presence.Entry, error) {
	if err := a.reach(ctx); err != nil {
		return nil, err
	}
	return a.Cache.Get(ctx, users)
}

var _ tier.Logic = logicAt{}
