package main

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das"
	"hongyan/entry"
	"hongyan/extlogic"
	"hongyan/httpentry"
	"hongyan/idl/tier"
	"hongyan/imui"
	"hongyan/internal/control"
	"hongyan/internal/control/settings"
	"hongyan/internal/gate"
	"hongyan/internal/mq"
	"hongyan/internal/netloop"
	"hongyan/internal/route"
	"hongyan/internal/rpc"
	"hongyan/internal/telemetry"
	"hongyan/internal/token"
	"hongyan/internal/wire"
	"hongyan/logic"
)

// Names of the tiers in the control centre.
const (
	tierLogic    = "logic"
	tierDas      = "das"
	tierExtLogic = "extlogic"
	tierJtransit = "jtransit"
)

// process wires the tiers that run in it: to each other by direct calls (dev), or to other
// processes over Kitex.
type process struct {
	supervisor
	name     string
	cfg      *Config
	metrics  *prometheus.Registry
	boot     string
	fabric   fabric
	center   centre
	settings *settings.Settings[Config]
	logics   *route.Pool[tier.Logic]
	dases    *route.Pool[tier.Das]
	gateway  bool // clients connect here: it needs a logic
	keys     *token.Keys
	json     *wire.JSON
	online   mq.Queue // brings online notices; nil = there are none
	rocket   mq.Queue // the one client of RocketMQ; nil = not opened
}

// newProcess makes an empty process of a tier, or dev, with its configuration; over makes that
// anew where the control centre lays something over it. members lists the tiers it can reach.
func newProcess(ctx context.Context, tierName string, cfg *Config, over loader, f fabric, members map[string]control.Members, stderr io.Writer) (*process, error) {
	name := cfg.Cluster.name(tierName)
	out, err := telemetry.Open(cfg.Log, name, stderr)
	if err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.SlogLevel())
	log := telemetry.NewLogger(cfg.Log, level, out)
	p := &process{
		supervisor: supervisor{log: log},
		name:       name,
		cfg:        cfg,
		metrics:    telemetry.NewRegistry(),
		boot:       newBootID(),
		fabric:     f,
	}
	p.onClose(out.Close)
	if err := netloop.Setup(log); err != nil {
		return nil, err
	}
	rpc.LogKitex(log)
	if p.center, err = p.openCenter(members); err != nil {
		return nil, err
	}
	p.onClose(p.center.Close)
	if err := p.openSettings(ctx, tierName, over, level); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.add(stageInfra, "trimmer", newTrimmer().run)
	p.logics = newPool(p, p.center, tierLogic, f.Logic)
	p.dases = newPool(p, p.center, tierDas, f.Das)
	if p.cfg.Log.Admin != "" {
		admin, err := telemetry.ListenAdmin(p.cfg.Log.Admin, p.metrics, p.notReady)
		if err != nil {
			return nil, err
		}
		p.add(stageInfra, "admin listener", admin.Run)
	}
	return p, nil
}

// openSettings lays what the control centre says over the configuration, and follows it: what
// is live changes at once.
func (p *process) openSettings(ctx context.Context, tierName string, over loader, level *slog.LevelVar) error {
	s, err := settings.Open(ctx, p.center, settings.Options[Config]{
		Base: p.cfg, Load: over, Tier: tierName, Addr: p.name, Reports: p.center, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return err
	}
	p.settings, p.cfg = s, s.Start()
	set := func(c *Config) error { level.Set(c.Log.SlogLevel()); return nil }
	s.OnChange(set)
	p.add(stageInfra, "live settings", s.Run)
	return set(p.cfg)
}

func newPool[T any](p *process, center control.Center, tierName string, dial func(string) (T, error)) *route.Pool[T] {
	pool := route.NewPool(center, tierName, dial, route.PoolOptions{Log: p.log})
	p.add(stageInfra, "instances of "+tierName, pool.Run)
	return pool
}

// join announces this process until it begins to stop, and returns it with the slot it got.
// Without a control centre everybody knows it from the lists.
func (p *process) join(in control.Instance) (control.Instance, error) {
	if !p.cfg.usesEtcd() {
		in.Slot = max(in.Slot, 0)
		return in, nil
	}
	ctx, leave := context.WithCancel(context.Background())
	granted, err := p.center.Register(ctx, in)
	if err != nil {
		leave()
		return in, err
	}
	p.onStop(leave)
	p.log.Info("joined", "tier", granted.Tier, "slot", granted.Slot, "addr", granted.Addr)
	return granted, nil
}

// newBootID names this life of the process.
func newBootID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (p *process) self(tierName, addr string, slot int) control.Instance {
	return control.Instance{Tier: tierName, Slot: slot, Addr: addr, Boot: p.boot}
}

// addDas opens the store and puts a das in front of it.
func (p *process) addDas(self control.Instance) (tier.Das, error) {
	st, err := p.openStore()
	if err != nil {
		return nil, err
	}
	d, err := das.New(p.cfg.Das, das.Deps{Store: st, Logics: p.fabric.Logic, Self: self, Log: p.log, Metrics: p.metrics})
	if err != nil {
		return nil, err
	}
	p.add(stageStore, "das", d.Run)
	return d, nil
}

func (p *process) addLogic(self control.Instance, queue mq.Queue, services tier.Jtransit) (tier.Logic, error) {
	routes, err := p.openPresence()
	if err != nil {
		return nil, err
	}
	l, err := logic.New(p.cfg.Logic, logic.Deps{
		Das: p.dases, Logics: p.logics, Gateways: p.fabric.Gateway, Center: p.center,
		Presence: routes, Queue: queue, Jtransit: services,
		Self: self, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return nil, err
	}
	p.add(stageLogic, "logic", l.Run)
	return l, nil
}

func (p *process) addExtLogic(self control.Instance, queue mq.Queue) error {
	e, err := extlogic.New(p.cfg.ExtLogic, extlogic.Deps{
		Das: p.dases, Logics: p.logics, Queue: queue, Self: self, Log: p.log, Metrics: p.metrics,
	})
	if err != nil {
		return err
	}
	p.add(stageWork, "extlogic", e.Run)
	return nil
}

// addIMUI serves the platform's own systems at addr, and what else is to be reached there,
// and returns the address it got.
func (p *process) addIMUI(addr string, queue mq.Queue, others ...rpc.Service) (string, error) {
	u, err := imui.New(p.cfg.IMUI, imui.Deps{Logics: p.logics, Queue: queue, Log: p.log, Metrics: p.metrics})
	if err != nil {
		return "", err
	}
	at, err := p.serve(stageWork, addr, append(others, rpc.IMUI(u))...)
	if err != nil {
		return "", err
	}
	ctx, leave := context.WithCancel(context.Background())
	p.onStop(leave)
	p.add(stageWork, "announcement of imui", func(run context.Context) error {
		defer context.AfterFunc(run, leave)()
		err := imui.Announce(ctx, p.center, cmp.Or(p.cfg.Cluster.Advertise, at))
		if err == nil {
			<-run.Done() // it is taken back first of all; who calls already is still served
		}
		return err
	})
	return at, nil
}

// serve listens for other processes and returns the address they reach it at.
func (p *process) serve(stage int, addr string, services ...rpc.Service) (string, error) {
	s, err := rpc.NewServer(addr, rpc.ServerOptions{Log: p.log, Metrics: p.metrics}, services...)
	if err != nil {
		return "", err
	}
	p.onClose(func() error { _ = s.Close(); return nil })
	p.add(stage, "rpc server", s.Run)
	return s.Addr(), nil
}

func (p *process) addEntry(self control.Instance) (*entry.Server, error) {
	if err := p.edge(); err != nil {
		return nil, err
	}
	s, err := entry.New(p.cfg.Entry, entry.Deps{Gate: p.gateDeps(self), JSON: p.json})
	if err != nil {
		return nil, err
	}
	p.settings.OnChange(func(c *Config) error { s.Limit(&c.Entry); return nil })
	p.add(stageGateway, "entry", s.Run)
	return s, nil
}

func (p *process) addHTTPEntry(self control.Instance) (*httpentry.Server, error) {
	if err := p.edge(); err != nil {
		return nil, err
	}
	cfg := p.cfg.HTTPEntry
	if cfg.Poll.Secret == "" {
		var err error
		if cfg.Poll.Secret, err = p.pollSecret(); err != nil {
			return nil, err
		}
	}
	s, err := httpentry.New(cfg, httpentry.Deps{
		Gate: p.gateDeps(self), JSON: p.json, Gatherer: p.metrics, Demo: p.demoToken, Ready: p.notReady,
	})
	if err != nil {
		return nil, err
	}
	p.settings.OnChange(func(c *Config) error { s.Limit(&c.HTTPEntry); return nil })
	p.add(stageGateway, "httpentry", s.Run)
	return s, nil
}

// pollSecret derives the secret of long-poll sessions from the demo tenant's key, so that they
// survive a restart and move between instances that share the keys. Empty where the tenant
// has no secret here: then httpentry makes one for this life.
func (p *process) pollSecret() (string, error) {
	_, secret := p.keys.Secret(p.cfg.Tenant)
	if secret == "" {
		return "", nil
	}
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "hongyan long poll sessions", 32)
	return hex.EncodeToString(key), err
}

// edge makes what only gateways need: keys of clients and the JSON codec.
func (p *process) edge() (err error) {
	if p.json != nil {
		return nil
	}
	p.gateway = true
	if p.keys, err = openKeys(p.cfg); err != nil {
		return err
	}
	p.json, err = wire.NewJSON()
	return err
}

func (p *process) gateDeps(self control.Instance) gate.Deps {
	return gate.Deps{Logics: p.logics, Keys: p.keys, Self: self, Version: version, Queue: p.online, Log: p.log, Metrics: p.metrics}
}

// demoToken is a token for whom the demo page asks for.
func (p *process) demoToken(uid string) (string, error) {
	return p.keys.Sign(token.Claims{Tenant: p.cfg.Tenant, UID: uid, Expires: time.Now().Add(12 * time.Hour)})
}

// notReady names what keeps the process from serving, for /readyz. While it stops it still
// serves whom it has, but nobody should be sent to it.
func (p *process) notReady() []string {
	switch p.state.Load() {
	case starting:
		return []string{"the process is starting"}
	case stopping:
		return []string{"the process is stopping"}
	}
	if !p.gateway {
		return nil
	}
	if _, err := p.logics.Pick(0); err != nil {
		return []string{"no logic can be reached"}
	}
	return nil
}

// awaitPool waits until a tier's instances are known.
func awaitPool[T any](ctx context.Context, pool *route.Pool[T]) error {
	for {
		changed := pool.Changed()
		if pool.Slots() > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
