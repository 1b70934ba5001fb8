package gate

import (
	"context"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/wire"
)

// cursors gathers the connections whose cursor has moved: Logic is told the newest only,
// once a period. A cursor that is lost only repeats.
type cursors struct {
	mu    sync.Mutex
	moved []*Conn
}

// gatherCursors tells Logic what has moved, every CursorEvery.
func (g *Gate) gatherCursors(ctx context.Context) {
	ticker := time.NewTicker(g.cfg.CursorEvery)
	defer ticker.Stop()
	var spare []*Conn
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		g.cursors.mu.Lock()
		moved := g.cursors.moved
		g.cursors.moved = spare
		g.cursors.mu.Unlock()
		for _, c := range moved {
			c.mu.Lock()
			c.tellCursorLocked()
			c.mu.Unlock()
		}
		clear(moved)
		spare = moved[:0]
	}
}

// reportLocked has Logic told of the cursor with the next batch.
func (c *Conn) reportLocked() {
	if c.dirty || c.phase != online {
		return
	}
	c.dirty = true
	g := c.gate
	g.cursors.mu.Lock()
	defer g.cursors.mu.Unlock()
	g.cursors.moved = append(g.cursors.moved, c)
}

func (c *Conn) tellCursorLocked() {
	if !c.dirty || c.phase == closed {
		return
	}
	c.dirty = false
	if !c.eventLocked(tier.Uplink_CURSOR) {
		c.reportLocked() // the lane is full: next time
	}
}

// pushAckLocked takes a cumulative acknowledgement (DD-16).
func (c *Conn) pushAckLocked(f *wire.Frame) *code.Error {
	var ack im.PushAck
	if ack.Unmarshal(f.Body) != nil {
		return badBody(f.Cmd)
	}
	c.ackedLocked(ack.Epoch, ack.Cursor)
	return nil
}

// syncLocked takes the cursor a SYNC states, also a lower one: after RESET the client starts
// anew, and what he says to have is what pushes are measured by. The answer brings what was
// dropped, and is read after this; so pushes may flow again.
func (c *Conn) syncLocked(f *wire.Frame) *code.Error {
	var sync im.Sync
	if sync.Unmarshal(f.Body) != nil {
		return badBody(f.Cmd)
	}
	c.ackedLocked(sync.Epoch, sync.Cursor)
	c.epoch, c.cursor = sync.Epoch, sync.Cursor
	if c.pend != nil {
		c.pend.told = false
	}
	return nil
}

// ackedLocked: the client has applied everything up to the cursor. An acknowledgement that
// was overtaken says nothing.
func (c *Conn) ackedLocked(epoch, cursor uint64) {
	if !beyond(epoch, cursor, c.epoch, c.cursor) {
		return
	}
	c.epoch, c.cursor = epoch, cursor
	c.reportLocked()
	switch p := c.pend; {
	case p == nil:
	case p.ack(epoch, cursor, c.gate.now()+int64(c.gate.cfg.AckTimeout)):
		c.dropPendingLocked()
	case p.unheard(epoch, cursor):
		c.noticeLocked()
	}
}

// beyond compares positions: the epoch first (R18).
func beyond(epoch, n, otherEpoch, other uint64) bool {
	return epoch > otherEpoch || epoch == otherEpoch && n > other
}
