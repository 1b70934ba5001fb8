package gate

import "golang.org/x/time/rate"

// limits of one connection that may change while the gateway runs.
type limits struct {
	rate    rate.Limit // frames per second
	burst   int
	unacked int // SENDs without an answer
}

// Limit puts the live keys of cfg in force for every connection, those that are open too:
// rate, burst and max_unacked_sends. cfg must be valid. Safe for concurrent use.
func (g *Gate) Limit(cfg *Config) {
	g.limits.Store(&limits{rate: rate.Limit(cfg.Rate), burst: cfg.Burst, unacked: cfg.MaxUnackedSends})
}

// allowLocked takes one frame from what the connection may send.
func (c *Conn) allowLocked() bool {
	if now := c.gate.limits.Load(); c.limited != now {
		c.limit, c.limited = rate.NewLimiter(now.rate, now.burst), now
	}
	return c.limit.Allow()
}
