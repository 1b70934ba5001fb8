package logic

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/presence"
)

// gatewayTiers hold connections of clients, as the control centre names them.
var gatewayTiers = []string{"entry", "httpentry"}

// liveness knows the lives of gateways that have ended: they were registered with the control
// centre, are no more, and do not answer. Their routes are ignored at once, not after three
// periods without a renewal. Of a life that was never seen there it knows nothing.
type liveness struct {
	mu    sync.Mutex
	ended atomic.Pointer[map[string]time.Time] // by boot, when that was found; replaced under mu
}

const (
	// endedFor is how long an ended life is remembered: the presence cache has forgotten its
	// routes by then.
	endedFor = 10 * time.Minute
	// probeWait is how long a gateway that is not registered any more may take to answer. The
	// control centre may have lost it by a fault of its own.
	probeWait = 2 * time.Second
	// watchRetry is the pause before a control centre that failed is watched again.
	watchRetry = time.Second
)

// gone tells that a life of a gateway has ended.
func (v *liveness) gone(boot string) bool {
	ended := v.ended.Load()
	if ended == nil {
		return false
	}
	_, gone := (*ended)[boot]
	return gone
}

// heard takes back that a life has ended: it called.
func (v *liveness) heard(boot string) {
	if v.gone(boot) {
		v.change(func(ended map[string]time.Time) { delete(ended, boot) })
	}
}

func (v *liveness) end(boot string, now time.Time) {
	v.change(func(ended map[string]time.Time) { ended[boot] = now })
}

func (v *liveness) change(fn func(ended map[string]time.Time)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := map[string]time.Time{}
	if old := v.ended.Load(); old != nil {
		for boot, at := range *old {
			if time.Since(at) < endedFor {
				next[boot] = at
			}
		}
	}
	fn(next)
	v.ended.Store(&next)
}

// followGateways watches a tier of gateways until ctx ends.
func (l *Logic) followGateways(ctx context.Context, tierName string) {
	var known []control.Instance
	for {
		err := l.deps.Center.Watch(ctx, tierName, func(m control.Members) {
			l.ended(ctx, known, m.Instances)
			known = m.Instances
		})
		if err != nil && ctx.Err() == nil {
			l.log.Warn("gateways cannot be watched", "tier", tierName, "err", err)
		}
		if !sleep(ctx, watchRetry) {
			return
		}
	}
}

// ended looks at the gateways that were registered before and are not now. One whose address
// has another life is gone; of the others, those that do not answer.
func (l *Logic) ended(ctx context.Context, before, now []control.Instance) {
	var probes sync.WaitGroup
	for _, was := range before {
		i := slices.IndexFunc(now, func(in control.Instance) bool { return in.Addr == was.Addr })
		switch {
		case was.Boot == "" || i >= 0 && now[i].Boot == was.Boot:
		case i >= 0:
			l.dropGateway(was)
		default:
			probes.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, probeWait)
				defer cancel()
				_, err := l.downlink(ctx, was.Addr, &tier.DownlinkBatch{Logic: l.self.Addr, Boot: was.Boot})
				if err != nil && l.state.Load() == running {
					l.dropGateway(was)
				}
			})
		}
	}
	probes.Wait()
}

// dropGateway drops the routes of a life of a gateway that has ended. Who has deliveries
// outstanding and no other route is looked for in the presence cache, and woken.
func (l *Logic) dropGateway(in control.Instance) {
	l.live.end(in.Boot, time.Now())
	dropped := 0
	for i := range l.users.shards {
		s := &l.users.shards[i]
		s.Lock()
		for _, u := range s.all {
			before := len(u.conns)
			u.conns = slices.DeleteFunc(u.conns, func(c *conn) bool {
				if c.Boot == in.Boot {
					l.forget(u.User, c.Device, c.SessionEpoch)
				}
				return c.Boot == in.Boot
			})
			if before > 0 && len(u.conns) == 0 && len(u.due) > 0 {
				l.askLocked(u)
			}
			dropped += before - len(u.conns)
		}
		s.Unlock()
	}
	l.log.Info("a gateway is gone", "gateway", in.Addr, "boot", in.Boot, "routes", dropped)
}

// usable tells whether a route of the presence cache is worth a try.
func (l *Logic) usable(u *user, r presence.Route) bool {
	return (r.Conn != u.lostConn || r.Boot != u.lostBoot) && !l.live.gone(r.Boot)
}
