package gate

import (
	"context"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// drainStep is how often connections are closed while draining.
const drainStep = 50 * time.Millisecond

// Drain tells every client to go elsewhere and closes the connections, spread over
// DrainDelay so that they do not come back all at once. New ones are refused from now on.
// It returns when all are gone, by themselves or not; the end of ctx closes what is left.
func (g *Gate) Drain(ctx context.Context) {
	g.drained.Store(true)
	goaway, _ := (&im.GoAway{MaxDelayMs: uint32(g.cfg.DrainDelay.Milliseconds()), Reason: "shutdown"}).Marshal(nil)
	conns := g.conns.all()
	for _, c := range conns {
		c.mu.Lock()
		c.sendLocked(wire.Frame{Cmd: im.Cmd_GOAWAY, Flags: wire.FlagOneWay, Body: goaway})
		c.mu.Unlock()
	}
	steps := max(1, int(g.cfg.DrainDelay/drainStep))
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for step := 1; len(conns) > 0 && g.conns.len() > 0; step++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			step = steps
		}
		n := len(conns) / max(1, steps-step+1)
		for _, c := range conns[:n] {
			c.shut(code.CloseShutdown, "the gateway is stopping")
		}
		conns = conns[n:]
	}
}
