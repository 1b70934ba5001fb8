package logic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/tier"
	"hongyan/internal/batch"
	"hongyan/internal/control"
	"hongyan/internal/duty"
	"hongyan/internal/mq"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// Deps are what a Logic works with. Pools are run, and everything is closed, by who made it.
type Deps struct {
	Das    *route.Pool[tier.Das]
	Logics *route.Pool[tier.Logic] // its peers, itself included
	// Gateways reaches a gateway by its address; it does not wait for a connection.
	Gateways func(addr string) (tier.Gateway, error)
	// Center tells which gateways are gone, whose routes are then ignored at once; nil: they
	// are when they miss three renewals.
	Center   control.Center
	Presence presence.Cache
	Queue    mq.Queue
	// Jtransit calls services of the platform; nil: CALL is answered as unsupported.
	Jtransit tier.Jtransit
	// Self is this instance: the address at which others reach it, and a boot id of its own.
	Self    control.Instance
	Log     *slog.Logger          // nil: discarded
	Metrics prometheus.Registerer // nil: none
}

// Logic is one instance of the tier; it implements tier.Logic.
type Logic struct {
	cfg  Config
	deps Deps
	self control.Instance
	log  *slog.Logger
	met  *metrics

	table [64]*command // by command word
	lanes [duties]*lane
	hook  *hook // nil: nobody is asked
	users *users
	live  liveness

	writes   *writes
	das      *lines[route.Peer[tier.Das], *write]
	peers    *lines[route.Peer[tier.Logic], parcel]
	arrivals *lines[route.Peer[tier.Logic], *arrival]
	gateways *lines[lineKey, downItem]
	later    *later

	rows *deliverRows
	fans *fanRows
	// asks, wakes and routes are the queues to the presence cache and the message queue.
	asks   *batch.Sender[presence.User]
	wakes  *batch.Sender[presence.User]
	routes *batch.Sender[presence.Change]

	causes sync.Pool // of causes: the working memory of Settled

	state     atomic.Int32 // created, running, stopping
	twoStage  atomic.Bool  // a das has answered with an order: logs and users may live apart
	homeSince atomic.Int64 // Unix nanoseconds: no change of the tier was seen since
}

var _ tier.Logic = (*Logic)(nil)

// States of a Logic: created -> running -> stopping.
const (
	created int32 = iota
	running
	stopping
)

// New checks the configuration and builds a Logic; nothing runs before Run.
func New(cfg Config, deps Deps) (*Logic, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("logic: %w", err)
	}
	if deps.Das == nil || deps.Logics == nil || deps.Gateways == nil || deps.Presence == nil || deps.Queue == nil {
		return nil, errors.New("logic: das, logics, gateways, presence and queue are all needed")
	}
	if deps.Self.Addr == "" || deps.Self.Boot == "" {
		return nil, errors.New("logic: its own address and boot id are needed")
	}
	l := &Logic{
		cfg: cfg, deps: deps, self: deps.Self, log: deps.Log,
		users: newUsers(), writes: newWrites(deps.Self), later: newLater(), rows: newDeliverRows(), fans: newFanRows(),
	}
	l.causes.New = func() any { return causes{} }
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for word, c := range commands() {
		l.table[word] = &c
	}
	var err error
	if l.hook, err = newHook(cfg.Hooks.BeforeSend, deps); err != nil {
		return nil, fmt.Errorf("logic: %w", err)
	}
	l.lanes[session] = newLane("session", cfg.Lanes.Session)
	l.lanes[chat] = newLane("message", cfg.Lanes.Message)
	l.lanes[query] = newLane("query", cfg.Lanes.Query)
	l.lanes[open] = newLane("open", cfg.Lanes.Open)
	l.das = newLines(cfg.BatchMax, 0, cfg.CallTimeout, l.sendWrites)
	l.peers = newLines(cfg.BatchMax, 0, cfg.CallTimeout, l.sendParcels)
	l.arrivals = newLines(cfg.BatchMax, 0, cfg.CallTimeout, l.sendArrivals)
	l.gateways = newLines(cfg.BatchMax, cfg.DownQueue, 0, l.sendDown)
	l.asks = batch.New(cfg.BatchMax, 0, l.ask)
	l.wakes = batch.New(cfg.BatchMax, 0, l.publish)
	l.routes = batch.New(cfg.BatchMax, routesMax, l.writeRoutes)
	if l.met, err = newMetrics(deps.Metrics, l); err != nil {
		return nil, fmt.Errorf("logic: metrics: %w", err)
	}
	return l, nil
}

// routesMax bounds writes that wait for the presence cache; what is beyond is put by the
// next renewal.
const routesMax = 100_000

// Run serves until ctx ends; then it refuses new work, waits a moment for outcomes of what
// it submitted, persists cursors, and stops. It is called once.
func (l *Logic) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	l.das.open(work)
	l.peers.open(work)
	l.arrivals.open(work)
	l.gateways.open(work)
	for _, run := range []func(context.Context){
		l.later.run, l.asks.Run, l.wakes.Run, l.routes.Run,
		l.das.reap, l.peers.reap, l.arrivals.reap, l.gateways.reap,
		l.followTier,
		every(sweepWrites, func(_ context.Context, now time.Time) { l.expireWrites(now) }),
		every(sweepRows, func(_ context.Context, now time.Time) { l.sweepFanOut(now) }),
		every(sweepRows, l.watchDue),
		every(l.cfg.CursorDelay, func(context.Context, time.Time) { l.flushCursors() }),
		every(l.cfg.RenewPeriod, func(_ context.Context, now time.Time) { l.sweepUsers(now) }),
	} {
		wg.Go(func() { run(work) })
	}
	if l.deps.Center != nil {
		for _, name := range gatewayTiers {
			wg.Go(func() { l.followGateways(work, name) })
		}
	}
	if duty.Serves(l.cfg.Duties(), duty.Message) { // others are nobody's home
		wg.Go(func() { l.newRedrive(tier.Outbox_FANOUT, l.cfg.FanOutAge).run(work) })
		wg.Go(func() { l.newRedrive(tier.Outbox_DELIVER, l.cfg.DeliverAge).run(work) })
	}
	for _, n := range l.lanes {
		if n != nil {
			n.run(work, &wg, l.serve)
		}
	}
	l.hook.run(work, &wg, l.serve)
	l.homeSince.Store(time.Now().UnixNano())
	l.state.Store(running)
	<-ctx.Done()
	l.state.Store(stopping)
	l.drain()
	cancel()
	wg.Wait()
	l.das.close()
	l.peers.close()
	l.arrivals.close()
	l.gateways.close()
	return nil
}

// How often what needs no better time is looked at.
const (
	sweepWrites = 250 * time.Millisecond
	sweepRows   = 500 * time.Millisecond
	drainPoll   = 10 * time.Millisecond
)

// drain waits for the outcomes of writes, and for what follows from them to be sent.
func (l *Logic) drain() {
	l.flushCursors()
	end := time.Now().Add(l.cfg.Drain)
	// Twice in a row: what is in nobody's queue for a moment is in the next one's then.
	for calm := 0; calm < 2 && time.Now().Before(end); time.Sleep(drainPoll) {
		calm++
		if l.writes.count.Load() != 0 || l.das.total()+l.peers.total()+l.gateways.total()+l.wakes.Len() != 0 {
			calm = 0
		}
	}
}

// every runs fn at a period until the context ends.
func every(period time.Duration, fn func(ctx context.Context, now time.Time)) func(context.Context) {
	return func(ctx context.Context) {
		t := time.NewTicker(period)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fn(ctx, time.Now())
			case <-ctx.Done():
				return
			}
		}
	}
}

// followTier notes when the tier changes: for a whole renewal period from then on, having
// no route to a user says nothing (R21).
func (l *Logic) followTier(ctx context.Context) {
	for {
		changed := l.deps.Logics.Changed()
		l.homeSince.Store(time.Now().UnixNano())
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
