// Package engine delivers messages from a log: in order per key, in parallel across keys,
// again after failures, and to the dead letters in the end. Memory and the embedded queue
// differ only in the Log behind it.
//
//	Publish    -> committer: all that waits becomes one Append (law 4)
//	group.run  -> load (from the log) -> start (handlers) -> save (where the group stands)
//
// Delivery is at least once: an Append is durable when Publish returns, the state of a
// group is saved a little later, and what it has not recorded is delivered again.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/batch"
	"hongyan/internal/mq"
)

// Entry is a message in its topic's log.
type Entry struct {
	Topic   string
	N       uint64 // dense within the topic, from 1
	Key     string
	Payload []byte
	Group   string // the only one that handles it; empty = every group
}

// Letter is a dead letter of a group.
type Letter struct {
	Entry
	Attempts int
	At       time.Time
	Error    string
}

// State says where a group stands: everything below Next is finished, but for Pending.
type State struct {
	Next    uint64
	Pending []Pending // ascending N
}

// Pending is an unfinished message below State.Next.
type Pending struct {
	N       uint64
	Attempt int   // failed so far
	DueMS   int64 // Unix milliseconds; not to be tried before
}

// Topic is what a log holds of a topic when it is opened.
type Topic struct {
	First, Next uint64 // the entries held are First..Next-1
	Groups      map[string]State
}

// Log keeps what must not be forgotten. Append is called by one goroutine, Save and Bury by
// one at a time for each group, the rest by any.
type Log interface {
	Topics() (map[string]Topic, error)
	// Append stores entries durably, all or none.
	Append(entries []Entry) error
	// Read returns at most limit entries of a topic from a number on, ascending.
	Read(topic string, from uint64, limit int) ([]Entry, error)
	// Save records the state of a group, durably or a little later, and drops the entries of
	// the topic below keep (0 = none).
	Save(topic, group string, s State, keep uint64) error
	// Bury adds a dead letter, not later than a Save that follows it, and forgets the oldest
	// of its group beyond Options.MaxDead; it returns how many.
	Bury(group string, l Letter) (forgotten int, err error)
	// Dead returns at most limit dead letters from a number on, ascending.
	Dead(topic, group string, from uint64, limit int) ([]Letter, error)
	// Unbury forgets a dead letter.
	Unbury(topic, group string, n uint64) error
	Close() error
}

// Options; zero fields take their defaults.
type Options struct {
	// Parallel is how many handlers a group runs at once. Default 32.
	Parallel int `koanf:"parallel"`
	// Window is how many unfinished messages a group holds in memory; when so many fail, it
	// waits for them. Default 4096.
	Window int `koanf:"window"`
	// MinBackoff is the delay after the first failure, doubled after each up to MaxBackoff.
	// Defaults 1 s and 1 min: sixteen attempts take ten minutes.
	MinBackoff time.Duration `koanf:"min_backoff"`
	MaxBackoff time.Duration `koanf:"max_backoff"`
	// SaveEvery is how long the state of a group may stay unsaved. Default 200 ms.
	SaveEvery time.Duration `koanf:"save_every"`
	// MaxDead is how many dead letters of a topic and group are kept, the newest. Default
	// 100,000.
	MaxDead int `koanf:"max_dead"`

	Log     *slog.Logger          `koanf:"-"` // default: none
	Metrics prometheus.Registerer `koanf:"-"` // default: none
}

// maxPublishes bounds the publishes of one commit.
const maxPublishes = 512

// WithDefaults fills the zero fields.
func (o Options) WithDefaults() Options {
	o.Parallel = cmp.Or(max(o.Parallel, 0), 32)
	o.Window = cmp.Or(max(o.Window, 0), 4096)
	o.MinBackoff = cmp.Or(max(o.MinBackoff, 0), time.Second)
	o.MaxBackoff = max(o.MinBackoff, cmp.Or(max(o.MaxBackoff, 0), time.Minute))
	o.SaveEvery = cmp.Or(max(o.SaveEvery, 0), 200*time.Millisecond)
	o.MaxDead = cmp.Or(max(o.MaxDead, 0), 100_000)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Queue implements mq.Queue over a Log.
type Queue struct {
	log     Log
	opt     Options
	metrics *metrics
	commits *batch.Sender[*publish]

	stop       context.CancelFunc // ends the committer
	committing sync.WaitGroup     // the committer
	publishing sync.WaitGroup     // Publish calls
	delivering sync.WaitGroup     // groups
	closing    chan struct{}      // closed by Close: groups start nothing more
	closed     chan struct{}      // closed when Close is done

	mu        sync.Mutex
	ended     bool
	topics    map[string]*topic
	listeners map[string][]*listener // of broadcasts
}

type topic struct {
	first, next uint64 // entries held durably
	groups      map[string]*group
}

// publish is one call of Publish on its way to the log.
type publish struct {
	msgs  []mq.Message
	group string     // the only one that handles them; empty = every group
	done  chan error // capacity 1: the committer never waits for the caller
}

// Open starts delivering from a log, which the queue owns from then on, also on error.
func Open(log Log, opt Options) (*Queue, error) {
	q := &Queue{log: log, opt: opt.WithDefaults(), topics: map[string]*topic{}, listeners: map[string][]*listener{}, closing: make(chan struct{}), closed: make(chan struct{})}
	var err error
	if q.metrics, err = newMetrics(opt.Metrics); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	held, err := log.Topics()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open queue: %w", err), log.Close())
	}
	for name, h := range held {
		t := &topic{first: max(1, h.First), next: max(1, h.Next), groups: map[string]*group{}}
		for group, state := range h.Groups {
			t.groups[group] = newGroup(q, name, group, state)
		}
		q.topics[name] = t
	}
	q.commits = batch.New(maxPublishes, 0, q.commit)
	ctx, stop := context.WithCancel(context.Background())
	q.stop = stop
	q.committing.Go(func() { q.commits.Run(ctx) })
	return q, nil
}

// Publish implements mq.Queue.
func (q *Queue) Publish(ctx context.Context, msgs ...mq.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for i, m := range msgs {
		if err := mq.Check(m); err != nil {
			return fmt.Errorf("publish: message %d: %w", i, err)
		}
	}
	if !q.enter() {
		return fmt.Errorf("publish: %w", mq.ErrClosed)
	}
	defer q.publishing.Done()
	if len(msgs) == 0 {
		return nil
	}
	work, broadcasts := split(msgs)
	if err := q.store(ctx, &publish{msgs: work, done: make(chan error, 1)}); err != nil {
		return err
	}
	q.broadcast(broadcasts)
	return nil
}

// store waits until the committer has stored the messages.
func (q *Queue) store(ctx context.Context, p *publish) error {
	if len(p.msgs) == 0 {
		return nil
	}
	q.commits.Add(p)
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("publish: outcome unknown: %w", ctx.Err())
	}
}

// enter counts a Publish in, unless the queue is closed.
func (q *Queue) enter() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.publishing.Add(1)
	return true
}

// commit numbers and stores what waits, and tells publishers and groups. It runs on the
// committer alone, so numbers are given in the order of the log.
func (q *Queue) commit(_ context.Context, waiting []*publish) {
	next := map[string]uint64{}
	var entries []Entry
	for _, p := range waiting {
		for _, m := range p.msgs {
			n, ok := next[m.Topic]
			if !ok {
				n = q.nextOf(m.Topic)
			}
			entries = append(entries, Entry{m.Topic, n, m.Key, m.Payload, p.group})
			next[m.Topic] = n + 1
		}
	}
	err := q.log.Append(entries)
	if err != nil {
		err = fmt.Errorf("publish: %w", err)
	} else {
		q.advance(next)
		for _, e := range entries {
			q.metrics.Published.WithLabelValues(e.Topic).Inc()
		}
	}
	for _, p := range waiting {
		p.done <- err
	}
}

func (q *Queue) nextOf(name string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.topicLocked(name).next
}

// advance makes new entries known to the groups.
func (q *Queue) advance(next map[string]uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, n := range next {
		t := q.topicLocked(name)
		t.next = n
		for _, g := range t.groups {
			g.signal()
		}
	}
}

func (q *Queue) topicLocked(name string) *topic {
	t, ok := q.topics[name]
	if !ok {
		t = &topic{first: 1, next: 1, groups: map[string]*group{}}
		q.topics[name] = t
	}
	return t
}

// Subscribe implements mq.Queue.
func (q *Queue) Subscribe(ctx context.Context, topicName, groupName string, handler mq.Handler) error {
	if err := mq.CheckSubscribe(ctx, topicName, groupName, handler); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return fmt.Errorf("subscribe: %w", mq.ErrClosed)
	}
	t := q.topicLocked(topicName)
	g, ok := t.groups[groupName]
	if !ok {
		g = newGroup(q, topicName, groupName, State{Next: t.first})
		if err := q.log.Save(topicName, groupName, State{Next: t.first}, 0); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		t.groups[groupName] = g
	}
	if !g.running {
		g.running = true
		q.delivering.Go(g.run)
	}
	g.join(ctx, handler)
	return nil
}

// committed is the number after the topic's last durable entry.
func (q *Queue) committed(name string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.topics[name].next
}

// Close implements mq.Queue: what is being published is stored, what is being handled is
// finished, and then the log is closed.
func (q *Queue) Close() error {
	q.mu.Lock()
	first := !q.ended
	q.ended = true
	q.mu.Unlock()
	if !first {
		<-q.closed
		return nil
	}
	defer close(q.closed)
	q.publishing.Wait()
	q.stop()
	q.committing.Wait()
	close(q.closing)
	q.delivering.Wait()
	if err := q.log.Close(); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}
