package gate

import "hongyan/idl/code"

// hardFactor times SlowBytes is where even answers are too much.
const hardFactor = 4

// crowdedLocked looks at the transport's queue before something is added to it. A slow
// consumer costs nobody else anything: pushes to him are dropped, and when he is writable
// again he is told to SYNC. An error ends the connection: he asks and does not read.
func (c *Conn) crowdedLocked() *code.Error {
	queued := c.link.Queued()
	if queued <= c.gate.cfg.SlowBytes {
		return nil
	}
	if queued > hardFactor*c.gate.cfg.SlowBytes {
		return code.Errorf(code.CloseSlowConsumer, "%d bytes wait to be read", queued)
	}
	if !c.slow {
		c.slow = true
		c.slowBy = c.gate.now() + int64(c.gate.cfg.SlowTimeout)
		c.armLocked()
	}
	return nil
}

// watchSlowLocked looks whether a slow connection has drained.
func (c *Conn) watchSlowLocked(now int64) *code.Error {
	if !c.slow {
		return nil
	}
	if c.link.Queued() > c.gate.cfg.SlowBytes/2 {
		if late(c.slowBy, now) {
			return code.Errorf(code.CloseSlowConsumer, "nothing was read for %v", c.gate.cfg.SlowTimeout)
		}
		return nil
	}
	c.slow, c.slowBy = false, 0
	if c.pend != nil && c.pend.told {
		c.noticeLocked()
	}
	return nil
}
