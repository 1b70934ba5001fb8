package redis

import (
	"sync/atomic"
	"time"
)

// circuit keeps callers from waiting for a server that has just failed: closed, calls pass;
// open, they are refused; after the pause one passes, and decides.
type circuit struct {
	pause time.Duration
	until atomic.Int64 // Unix nanoseconds of the next try; 0 = closed
}

// pass tells whether a call may be made.
func (c *circuit) pass(now time.Time) bool {
	until := c.until.Load()
	switch {
	case until == 0:
		return true
	case now.UnixNano() < until:
		return false
	}
	return c.until.CompareAndSwap(until, now.Add(c.pause).UnixNano()) // one of many tries
}

func (c *circuit) open() bool { return c.until.Load() != 0 }

// failed opens the circuit; true if it was closed.
func (c *circuit) failed(now time.Time) bool {
	return c.until.Swap(now.Add(c.pause).UnixNano()) == 0
}

// worked closes the circuit; true if it was open.
func (c *circuit) worked() bool {
	return c.until.Load() != 0 && c.until.Swap(0) != 0
}
