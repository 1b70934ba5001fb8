package sim

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing/synctest"
	"time"
)

// world is a cluster and the people who use it.
type world struct {
	cluster *cluster
	stats   *stats
	gates   []*seat
	devices []*device
	users   map[string][]string // by tenant; also those without a device
	notices []*notice           // published
	people  sync.WaitGroup
	leave   context.CancelFunc
}

// result of one seed.
type result struct {
	seed       uint64
	profile    profile
	stats      *stats
	violations []string
	converged  time.Duration // after healing
}

// Times after healing.
const (
	convergeWithin = 30 * time.Second // L
	// Where frames are dropped in a healed world too, an answer to AUTH may be: the client gives
	// up after 10 s, waits for up to 20 s, and what is dropped then comes with a renewal, 20 s later.
	convergeDropping = 60 * time.Second
	rowsWithin       = 5 * time.Minute // until every outbox row is gone
)

// simulate runs a seed; it must be called within a synctest bubble.
func simulate(seed uint64, r rules, log *slog.Logger) *result {
	// Outbox rows are numbered by the time since 2025: a bubble begins in 2000.
	time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	p := newProfile(seed)
	if r.shape != nil {
		r.shape(&p)
	}
	res := &result{seed: seed, profile: p, stats: newStats()}
	h := newHistory()
	c, err := newCluster(context.Background(), seed, p, r, h, res.stats, log)
	if err != nil {
		res.violations = []string{err.Error()}
		return res
	}
	w := newWorld(c)
	w.live()
	res.converged = w.converge()
	if r.atEnd != nil {
		r.atEnd(w)
	}
	w.audit()
	w.close()
	res.violations = h.violations
	return res
}

func newWorld(c *cluster) *world {
	w := &world{cluster: c, stats: c.stats, users: map[string][]string{}}
	for _, s := range c.seats {
		if s.tier == tierGate {
			w.gates = append(w.gates, s)
		}
	}
	rng := newRand(c.seed, "people")
	p := c.profile.people
	acme := min((p.users+1)*2/3, p.users-2)
	for i := range p.users + p.quiet {
		// Two tenants that name their users alike.
		tenant, uid := "acme", fmt.Sprintf("u%d", i)
		if i >= acme && i < p.users {
			tenant, uid = "bolt", fmt.Sprintf("u%d", i-acme)
		}
		w.users[tenant] = append(w.users[tenant], uid)
		if i >= p.users {
			continue
		}
		for n := range 1 + rng.IntN(p.devices) {
			d := &device{
				world: w, tenant: tenant, uid: uid, id: fmt.Sprintf("%s.%s.%d", tenant, uid, n),
				platform: []string{"desktop", "ios"}[rng.IntN(2)], pokes: make(chan struct{}, 1),
			}
			if rng.Float64() < 0.1 {
				d.pace = scaled(rng.Float64(), 300*time.Millisecond)
			}
			d.rng, d.luck = newRand(c.seed, "doings", d.id), newRand(c.seed, "luck", d.id)
			w.devices = append(w.devices, d)
		}
	}
	return w
}

// live lets everybody do what he planned while faults strike, then heals the world.
func (w *world) live() {
	c := w.cluster
	time.Sleep(100 * time.Millisecond)
	ctx, leave := context.WithCancel(c.ctx)
	w.leave = leave
	w.plan(time.Now(), c.profile.faults)
	for _, d := range w.devices {
		d.begin()
		w.people.Go(func() { d.run(ctx) })
	}
	faults, over := context.WithTimeout(ctx, c.profile.faults)
	defer over()
	w.people.Go(func() { w.announce(ctx, c.profile.faults) })
	c.chaos(faults)
	<-faults.Done()
	over()
	c.heal()
	synctest.Wait()
	for _, d := range w.devices {
		d.healLinks()
	}
}

// converge waits until everybody shows the same, and returns how long that took; then
// until no outbox row is left.
func (w *world) converge() time.Duration {
	began := time.Now()
	h, within := w.cluster.history, convergeWithin
	if w.cluster.profile.drops {
		within = convergeDropping
	}
	for {
		time.Sleep(time.Second)
		synctest.Wait()
		differences := w.differences()
		if len(differences) == 0 {
			break
		}
		if time.Since(began) > within {
			for _, d := range differences {
				h.violate("L: %v after healing: %s", within, d)
			}
			return time.Since(began)
		}
	}
	took := time.Since(began)
	w.lively(began)
	for {
		rows := w.rows()
		if len(rows) == 0 {
			break
		}
		if time.Since(began) > rowsWithin {
			for _, r := range rows {
				h.violate("%v after healing: %s", rowsWithin, r)
			}
			break
		}
		time.Sleep(2 * time.Second)
	}
	synctest.Wait()
	for _, d := range w.differences() {
		h.violate("was level, and is no more: %s", d)
	}
	return took
}

// close ends everything, and waits for it.
func (w *world) close() {
	w.leave()
	w.people.Wait()
	w.cluster.stop()
	w.cluster.work.Wait()
	if err := w.cluster.queue.Close(); err != nil {
		w.cluster.history.violate("queue: %v", err)
	}
	if err := w.cluster.center.Close(); err != nil {
		w.cluster.history.violate("control centre: %v", err)
	}
	if err := w.cluster.store.Close(); err != nil {
		w.cluster.history.violate("store: %v", err)
	}
}
