package gate

import (
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// count is a transport that counts what was refused as too fast.
type count struct {
	sink
	refused int
}

func (c *count) Send(frames []wire.Frame) {
	for _, f := range frames {
		if f.Status == code.RateLimited {
			c.refused++
		}
	}
}

func TestLimitsChangeForOpenConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quiet(t)
		out := &count{}
		c := g.session(t, out, "alice")
		ping := func(n int) int {
			out.refused = 0
			for range n {
				c.Receive(wire.Frame{Cmd: im.Cmd_PING, Seq: 2})
			}
			return out.refused
		}
		if n := ping(100); n != 0 {
			t.Fatalf("%d of 100 refused by the defaults", n)
		}
		cfg := DefaultConfig()
		cfg.Rate, cfg.Burst = 10, 5
		g.Limit(&cfg)
		time.Sleep(time.Minute)
		if n := ping(20); n != 15 {
			t.Errorf("%d of 20 at once refused, want all but the burst of 5", n)
		}
		time.Sleep(200 * time.Millisecond)
		if n := ping(5); n != 3 {
			t.Errorf("%d of 5 refused 200 ms later, want all but 2", n)
		}
		cfg = DefaultConfig()
		g.Limit(&cfg)
		time.Sleep(time.Second)
		if n := ping(100); n != 0 {
			t.Errorf("%d of 100 refused after the limits were raised", n)
		}
	})
}
