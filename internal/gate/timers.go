package gate

import (
	"time"

	"hongyan/idl/code"
)

// slowPoll is how often a slow connection's queue is looked at.
const slowPoll = 250 * time.Millisecond

// tick runs when a deadline of the connection may have passed, on the wheel's goroutine.
// There is one timer for all of them; activity only moves deadlines, never the timer, which
// finds out when it fires.
func (c *Conn) tick() {
	c.mu.Lock()
	defer c.unlock()
	c.fireAt = 0
	if c.phase == closed {
		return
	}
	if err := c.lateLocked(); err != nil {
		c.endLocked(err)
		return
	}
	c.armLocked()
}

// lateLocked does what is due. An error ends the connection.
func (c *Conn) lateLocked() *code.Error {
	now := c.gate.now()
	switch {
	case late(c.authBy, now) && c.phase == opened:
		return code.Errorf(code.CloseAuthTimeout, "no AUTH within %v", c.gate.cfg.AuthTimeout)
	case late(c.authBy, now):
		return code.Errorf(code.CloseOverloaded, "AUTH was not answered in time")
	case late(c.partialBy, now):
		return code.Errorf(code.CloseIdle, "a frame was not finished within %v", c.gate.cfg.FrameTimeout)
	case late(c.heard.Load()+int64(c.idleLimit()), now):
		return code.Errorf(code.CloseIdle, "nothing was heard for %v", c.idleLimit())
	}
	if err := c.watchSlowLocked(now); err != nil {
		return err
	}
	if c.pend != nil && late(c.pend.due, now) {
		return c.againLocked(now)
	}
	return nil
}

func late(deadline, now int64) bool { return deadline != 0 && deadline <= now }

// idleLimit is how long the client may be silent (MF-11, JT-04).
func (c *Conn) idleLimit() time.Duration {
	if c.idle > 0 {
		return c.idle
	}
	return time.Duration(c.beat)*time.Second*22/10 + 5*time.Second
}

// armLocked makes the timer fire at the earliest deadline, or before.
func (c *Conn) armLocked() {
	if c.phase == closed {
		return
	}
	now := c.gate.now()
	next := c.heard.Load() + int64(c.idleLimit())
	sooner := func(deadline int64) {
		if deadline != 0 && deadline < next {
			next = deadline
		}
	}
	sooner(c.authBy)
	sooner(c.partialBy)
	if c.pend != nil {
		sooner(c.pend.due)
	}
	if c.slow {
		sooner(now + int64(slowPoll))
	}
	if c.fireAt != 0 && c.fireAt <= next {
		return
	}
	c.fireAt = next
	c.gate.wheel.Schedule(&c.timer, time.Duration(max(0, next-now)), c.fire)
}
