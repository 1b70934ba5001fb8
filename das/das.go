package das

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"hongyan/das/store"
	"hongyan/idl/tier"
	"hongyan/internal/control"
)

// Deps are what a das needs from outside.
type Deps struct {
	Store store.Store
	// Logics finds the Logic at an address, to hand it results. It is called for every batch
	// of them and may dial.
	Logics func(addr string) (tier.Logic, error)
	// Self is this instance: its address, its slot among the das, its boot id.
	Self    control.Instance
	Log     *slog.Logger          // nil = none
	Metrics prometheus.Registerer // nil = none
}

// Das implements tier.Das over one store.
type Das struct {
	cfg       Config
	store     store.Store
	logics    func(string) (tier.Logic, error)
	self      control.Instance
	log       *slog.Logger
	metrics   *metrics
	oneCommit bool
	began     time.Time
	outbox    *outbox
	callers   callers
	bounds    [businesses]bound
	appends   atomic.Int64 // accepted and not settled
	overdue   atomic.Int64 // fan-out rows older than Lag.Age, at the last look
	lanes     lanes

	placed      store.Placed // nil: one database
	parts       []store.Store
	convWriters [][]*writer // of each database, by hash of the conversation
	userWriters [][]*writer // by hash of the user; the same one writer on an exclusive store

	senders  sync.WaitGroup
	draining chan struct{} // closed when nothing is accepted any more
	stopped  chan struct{} // closed when nothing will be settled any more
}

var _ tier.Das = (*Das)(nil)

// New makes a das. It accepts from now on, and works while Run runs.
func New(cfg Config, deps Deps) (*Das, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("das configuration: %w", err)
	}
	if deps.Store == nil || deps.Logics == nil {
		return nil, fmt.Errorf("das needs a store and a way to its logics")
	}
	if deps.Self.Slot < 0 || deps.Self.Slot >= maxSlot {
		return nil, fmt.Errorf("das slot %d is not within 0..%d", deps.Self.Slot, maxSlot-1)
	}
	d := &Das{
		cfg: cfg, store: deps.Store, logics: deps.Logics, self: deps.Self, log: deps.Log,
		oneCommit: cfg.Form == FormOneCommit || cfg.Form == FormAuto && deps.Store.Exclusive(),
		began:     time.Now(), lanes: newLanes(cfg.Reads),
		draining: make(chan struct{}), stopped: make(chan struct{}),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.findParts(); err != nil {
		return nil, err
	}
	d.outbox = newOutbox(deps.Self.Slot, d.began)
	d.callers = callers{das: d, list: make(map[callerKey]*caller)}
	for b := range businesses {
		q := cfg.Queues.of(b)
		d.bounds[b].maxItems, d.bounds[b].maxBytes = int64(q.Items), int64(q.Bytes)
	}
	d.makeWriters()
	var err error
	if d.metrics, err = newMetrics(d, deps.Metrics); err != nil {
		return nil, fmt.Errorf("das metrics: %w", err)
	}
	return d, nil
}

// Run commits until ctx ends, and then for at most DrainTime what was accepted before. An
// error means that the store is broken: the process must end. Run is called once.
func (d *Das) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var writers errgroup.Group
	for _, w := range d.writers() {
		writers.Go(func() error {
			if err := w.run(hard); err != nil {
				cancel() // a broken store is broken for all
				return fmt.Errorf("writer for %s: %w", w.name, err)
			}
			return nil
		})
	}
	var helpers sync.WaitGroup
	helpers.Go(func() { d.watchLag(hard) })
	ended := make(chan struct{})
	helpers.Go(func() { d.drain(ctx, ended, cancel) })

	err := writers.Wait()
	cancel()
	close(ended)
	helpers.Wait()
	close(d.stopped)
	d.senders.Wait()
	return err
}

// drain closes the door when ctx ends, and gives the writers DrainTime to empty their queues.
func (d *Das) drain(ctx context.Context, ended <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-ctx.Done():
	case <-ended:
	}
	close(d.draining)
	timer := time.NewTimer(d.cfg.DrainTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		cancel()
	case <-ended:
	}
}

func (d *Das) isDraining() bool {
	select {
	case <-d.draining:
		return true
	default:
		return false
	}
}

// since is the monotonic time of this life: deadlines and windows are measured by it.
func (d *Das) since() time.Duration { return time.Since(d.began) }
