package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// queueOdds are how likely a message of the queue meets what.
type queueOdds struct {
	refused float64 // not stored, an error
	hidden  float64 // stored, an error
	lost    float64 // answered as stored, and lost: a queue only wakes
	twice   float64
	late    float64 // up to 10 s
}

var errQueue = errors.New("message queue is down")

// broker is the message queue of the cluster. It stands for one that loses, repeats and
// delays: the promises do not rest on it.
type broker struct {
	cluster   *cluster
	down      atomic.Bool
	cacheDown atomic.Bool // the presence cache, beside it

	mu      sync.Mutex
	rng     *rand.Rand
	waiting []mq.Message
	arrived chan struct{} // capacity 1
}

func newBroker(c *cluster) *broker {
	return &broker{cluster: c, rng: newRand(c.seed, "queue"), arrived: make(chan struct{}, 1)}
}

// queueAt is the queue as a process sees it.
type queueAt struct {
	mq.Queue
	broker *broker
	proc   *process
}

func (b *broker) of(p *process) mq.Queue { return queueAt{broker: b, proc: p} }

// Publish implements mq.Queue.
func (q queueAt) Publish(ctx context.Context, msgs ...mq.Message) error {
	if err := q.proc.awake(ctx); err != nil {
		return err
	}
	if q.broker.down.Load() {
		return errQueue
	}
	return q.broker.publish(msgs)
}

func (b *broker) publish(msgs []mq.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, r := b.cluster.profile.queue, b.rng.Float64()
	if b.cluster.calm.Load() {
		o = queueOdds{}
	}
	b.cluster.stats.add("offline events", len(msgs))
	if r < o.refused {
		return errQueue
	}
	for _, m := range msgs {
		if b.rng.Float64() < o.lost {
			continue
		}
		b.waiting = append(b.waiting, m)
		if b.rng.Float64() < o.twice {
			b.waiting = append(b.waiting, m)
		}
	}
	select {
	case b.arrived <- struct{}{}:
	default:
	}
	if r < o.refused+o.hidden {
		return errQueue
	}
	return nil
}

// take waits for a message.
func (b *broker) take(ctx context.Context) (mq.Message, time.Duration, bool) {
	for {
		b.mu.Lock()
		if len(b.waiting) > 0 && !b.down.Load() {
			m := b.waiting[0]
			b.waiting = b.waiting[1:]
			wait := time.Duration(0)
			if late, size := b.rng.Float64(), b.rng.Float64(); late < b.cluster.profile.queue.late && !b.cluster.calm.Load() {
				wait = scaled(size, 10*time.Second)
			}
			b.mu.Unlock()
			return m, wait, true
		}
		b.mu.Unlock()
		poll := time.NewTimer(time.Hour)
		if b.down.Load() {
			poll.Reset(time.Second)
		}
		select {
		case <-b.arrived:
		case <-poll.C:
		case <-ctx.Done():
			poll.Stop()
			return mq.Message{}, 0, false
		}
		poll.Stop()
	}
}

func (b *broker) giveBack(m mq.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, m)
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

// waker stands in for extlogic: it looks at a user's progress once more and raises
// woken_version, whether there was a device to wake or not (R09).
type waker struct {
	cluster *cluster
	proc    *process
	das     *route.Pool[tier.Das]
}

func (c *cluster) newExtlogic(p *process) (func(context.Context) error, error) {
	pool := route.NewPool(c.center, tierDas, c.dases(p), route.PoolOptions{})
	w := &waker{cluster: c, proc: p, das: pool}
	return c.with(p, w.run, pool), nil
}

func (w *waker) run(ctx context.Context) error {
	for {
		m, wait, ok := w.cluster.queue.take(ctx)
		if !ok {
			return nil
		}
		if wait > 0 {
			w.cluster.work.Go(func() {
				_ = sleep(w.cluster.ctx, wait)
				w.cluster.queue.giveBack(m)
			})
			continue
		}
		if err := w.wake(ctx, m); err != nil {
			w.cluster.queue.giveBack(m)
			if sleep(ctx, time.Second) != nil {
				return nil
			}
		}
	}
}

func (w *waker) wake(ctx context.Context, m mq.Message) error {
	var e event.Offline
	if err := e.Unmarshal(m.Payload); err != nil {
		return fmt.Errorf("offline event: %w", err)
	}
	das, err := w.das.Pick(route.Hash(e.Tenant, e.Uid))
	if err != nil {
		return err
	}
	reply, err := das.Client.Progress(ctx, &tier.ProgressRequest{Tenant: e.Tenant, Uids: []string{e.Uid}, Devices: true})
	if err != nil {
		w.das.Failed(das)
		return err
	}
	if u := reply.Users[0]; u.Epoch != e.Epoch || max(u.Cursor, u.Woken) >= e.Version {
		return nil
	}
	w.cluster.stats.count("woken")
	settled, err := das.Client.Write(ctx, &tier.SubmitBatch{
		Logic: w.proc.Addr, Boot: w.proc.Boot,
		Items: []*tier.Submit{{Id: 1, Tenant: e.Tenant, Woken: &tier.Woken{Uid: e.Uid, Epoch: e.Epoch, Version: e.Version}}},
	})
	if err != nil {
		w.das.Failed(das)
		return err
	}
	if len(settled.Items) != 1 || settled.Items[0].Code != 0 {
		return fmt.Errorf("woken was not settled: %v", settled.Items)
	}
	return nil
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

func (a cacheAt) Put(ctx context.Context, user presence.User, routes ...presence.Route) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	return a.Cache.Put(ctx, user, routes...)
}

func (a cacheAt) Remove(ctx context.Context, user presence.User, device string, epoch uint64) error {
	if err := a.reach(ctx); err != nil {
		return err
	}
	return a.Cache.Remove(ctx, user, device, epoch)
}

func (a cacheAt) Get(ctx context.Context, users []presence.User) ([]presence.Entry, error) {
	if err := a.reach(ctx); err != nil {
		return nil, err
	}
	return a.Cache.Get(ctx, users)
}
