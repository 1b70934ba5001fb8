package sim

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"hongyan/das"
	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/gate"
	presencemem "hongyan/internal/presence/memory"
	"hongyan/internal/route"
	"hongyan/logic"
)

// Tiers of the simulated cluster, as the control centre names them.
const (
	tierGate  = "entry"
	tierLogic = "logic"
	tierDas   = "das"
	tierExt   = "extlogic"
)

// cluster is everything that runs on the server's side, and what it stands on.
type cluster struct {
	seed    uint64
	profile profile
	rules   rules
	stats   *stats
	history *history
	log     *slog.Logger

	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup // every goroutine of the simulation
	calm atomic.Bool    // faults are over

	net      *network
	center   *local.Center
	store    store.Store // as the oracle sees it
	several  *databases  // nil: one database
	presence *presencemem.Cache
	queue    *broker

	mu    sync.Mutex
	seats []*seat
}

// seat is an instance of a tier: an address and a slot, in which processes live one after
// the other.
type seat struct {
	tier string
	slot int
	addr string

	proc   *process // nil while it is down
	lives  int
	serves string             // duties of a logic
	lease  context.CancelFunc // ends its registration
}

func newCluster(ctx context.Context, seed uint64, p profile, r rules, h *history, s *stats, log *slog.Logger) (*cluster, error) {
	c := &cluster{
		seed: seed, profile: p, rules: r, stats: s, history: h, log: log,
		net: newNetwork(seed, p.net, s),
	}
	c.ctx, c.stop = context.WithCancel(ctx)
	c.net.crash, c.net.work, c.net.done = c.crash, &c.work, c.ctx.Done()
	c.presence = presencemem.New(presencemem.Config{})
	var err error
	if c.queue, err = newBroker(c); err != nil {
		return nil, err
	}
	for tier, n := range map[string]int{tierGate: p.shape.gates, tierLogic: p.shape.logics, tierDas: p.shape.dases, tierExt: 1} {
		for slot := range n {
			s := &seat{tier: tier, slot: slot, addr: fmt.Sprintf("%s%d", tier, slot)}
			if tier == tierLogic && p.shape.duties != nil {
				s.serves = p.shape.duties[slot]
			}
			c.seats = append(c.seats, s)
		}
	}
	sortSeats(c.seats)
	listed := map[string]control.Members{}
	if !p.registered {
		for _, s := range c.seats {
			m := listed[s.tier]
			m.Instances = append(m.Instances, control.Instance{Tier: s.tier, Slot: s.slot, Addr: s.addr, Serves: s.serves})
			listed[s.tier] = m
		}
	}
	if c.center, err = local.New(listed); err != nil {
		return nil, err
	}
	if err := c.openStore(); err != nil {
		return nil, err
	}
	for _, s := range c.seats {
		if err := c.start(s); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// openStore makes the database, or several.
func (c *cluster) openStore() (err error) {
	if c.profile.databases == 0 {
		c.store = memory.New(memory.Options{Exclusive: c.profile.shape.exclusive, Unfenced: c.rules.unfenced})
		return nil
	}
	if c.several, err = c.newDatabases(); err == nil {
		c.store, err = c.several.open(c.ctx, func() error { return nil })
	}
	return err
}

// storeOf is the store as a das sees it.
func (c *cluster) storeOf(p *process) (store.Store, error) {
	if c.several == nil {
		return c.storageOf(p, c.store), nil
	}
	all, err := c.several.open(p.ctx, func() error { return p.awake(p.ctx) })
	if err != nil {
		return nil, err
	}
	s := &placedStorage{storage: c.storageOf(p, all), placed: all}
	for i := range all.Databases() {
		s.parts = append(s.parts, c.storageOf(p, all.Part(i), fmt.Sprint(i)))
	}
	return s, nil
}

// start begins a new life in a seat that is empty.
func (c *cluster) start(s *seat) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.proc != nil || c.ctx.Err() != nil {
		return nil
	}
	s.lives++
	in := control.Instance{Tier: s.tier, Slot: s.slot, Addr: s.addr, Boot: fmt.Sprintf("%s.%d", s.addr, s.lives), Serves: s.serves}
	p := newProcess(c.ctx, in)
	var run func(context.Context) error
	var err error
	switch s.tier {
	case tierGate:
		run, err = c.newGate(p)
	case tierLogic:
		run, err = c.newLogic(p)
	case tierDas:
		run, err = c.newDas(p)
	case tierExt:
		run, err = c.newExtlogic(p)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", in.Boot, err)
	}
	s.proc = p
	c.net.put(p)
	c.work.Go(func() {
		if err := run(p.ctx); err != nil {
			c.log.Error("process ended", "boot", in.Boot, "err", err)
		}
	})
	c.registerLocked(s)
	return nil
}

// registerLocked announces the life in a seat, where instances register themselves.
func (c *cluster) registerLocked(s *seat) {
	if !c.profile.registered {
		return
	}
	if s.lease != nil {
		s.lease()
	}
	var lease context.Context
	lease, s.lease = context.WithCancel(c.ctx)
	if _, err := c.center.Register(lease, s.proc.Instance); err != nil {
		c.history.violate("%s cannot register: %v", s.proc.Boot, err)
	}
}

// crash ends a process at once; its seat stays empty until start.
func (c *cluster) crash(p *process, how string) {
	if c.calm.Load() {
		return // drawn before the world was healed: it hung, or was slow
	}
	c.stats.count(how)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.seats {
		if s.proc == p {
			c.crashLocked(s)
			c.restartLater(s)
		}
	}
}

func (c *cluster) crashLocked(s *seat) {
	p := s.proc
	s.proc = nil
	c.net.remove(p)
	p.kill()
	for _, l := range p.takeLinks() {
		l.reset()
	}
	if c.profile.registered && s.lease != nil {
		c.endLease(s, p)
	}
}

// dial tells how a process reaches others.
func (c *cluster) logics(p *process) func(string) (tier.Logic, error) {
	return func(addr string) (tier.Logic, error) { return logicAt{c.net, p, addr}, nil }
}

func (c *cluster) dases(p *process) func(string) (tier.Das, error) {
	return func(addr string) (tier.Das, error) { return dasAt{c.net, p, addr}, nil }
}

// with runs pools beside a process.
func (c *cluster) with(p *process, run func(context.Context) error, pools ...interface{ Run(context.Context) error }) func(context.Context) error {
	for _, pool := range pools {
		c.work.Go(func() { _ = pool.Run(p.ctx) })
	}
	return run
}

func (c *cluster) newGate(p *process) (func(context.Context) error, error) {
	logics := route.NewPool(c.center, tierLogic, c.logics(p), route.PoolOptions{})
	g, err := gate.New(c.profile.gate, gate.Deps{
		Logics: logics, Keys: tokens{}, Self: p.Instance, Version: "sim", Log: c.logOf(p),
	})
	if err != nil {
		return nil, err
	}
	p.handler = g
	return c.with(p, g.Run, logics), nil
}

func (c *cluster) newLogic(p *process) (func(context.Context) error, error) {
	logics := route.NewPool(c.center, tierLogic, c.logics(p), route.PoolOptions{})
	dases := route.NewPool(c.center, tierDas, c.dases(p), route.PoolOptions{})
	cfg := c.profile.logic
	if p.Serves != "" {
		cfg.Serve = strings.Split(p.Serves, ",")
	}
	l, err := logic.New(cfg, logic.Deps{
		Das: dases, Logics: logics,
		Gateways: func(addr string) (tier.Gateway, error) { return gatewayAt{c.net, p, addr}, nil },
		Presence: cacheOf(c, p), Queue: c.queue.of(p), Center: c.center, Self: p.Instance, Log: c.logOf(p),
	})
	if err != nil {
		return nil, err
	}
	p.handler = c.rules.logic(l)
	return c.with(p, l.Run, logics, dases), nil
}

func (c *cluster) newDas(p *process) (func(context.Context) error, error) {
	st, err := c.storeOf(p)
	if err != nil {
		return nil, err
	}
	d, err := das.New(c.profile.das, das.Deps{
		Store: st, Logics: c.logics(p), Self: p.Instance, Log: c.logOf(p),
	})
	if err != nil {
		return nil, err
	}
	p.handler = c.rules.das(d)
	return d.Run, nil
}

func (c *cluster) logOf(p *process) *slog.Logger { return c.log.With("boot", p.Boot) }
