package gate

import (
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/wire"
)

// pending is what a client was sent, or should have been, and has not acknowledged.
//
// While its bodies fit into the budget they are kept and sent again. When one is dropped
// (budget, slow connection), pushes behind it are worthless to the client: he is told to
// SYNC, once, and gets none until he does.
type pending struct {
	epoch, head uint64   // highest version he was sent or told of
	frames      []pushed // kept bodies, ascending; none once lost is set
	bytes       int
	lost        uint64 // highest version whose body was dropped; 0 = none
	told        bool   // NOTICE{SYNC} is out, or will be when the connection is writable
	named       uint64 // head of the last NOTICE
	misses      int    // time-outs without progress
	due         int64  // next time-out
}

// pushed is one PUSH frame. Its body is never changed: transports may keep it.
type pushed struct {
	last uint64 // its highest version
	body []byte
}

// maxFrames of a connection that are kept to be sent again.
const maxFrames = 256

// fits tells whether one more frame can be kept.
func (p *pending) fits(size, budget int) bool {
	return p.bytes+size <= budget && len(p.frames) < maxFrames
}

func (p *pending) keep(last uint64, body []byte) {
	p.frames = append(p.frames, pushed{last, body})
	p.bytes += len(body)
}

// lose drops every body: the client has to SYNC.
func (p *pending) lose(version uint64) {
	p.lost = max(p.lost, version, p.head)
	p.told = true
	p.forget(len(p.frames))
}

// forget the oldest n frames.
func (p *pending) forget(n int) {
	for i := range n {
		p.bytes -= len(p.frames[i].body)
	}
	left := copy(p.frames, p.frames[n:])
	clear(p.frames[left:])
	p.frames = p.frames[:left]
}

// enter moves to the epoch of a push. A new epoch may follow an older copy of the database:
// what was sent before may mean something else now. False: the push is of a past epoch.
func (p *pending) enter(epoch uint64) bool {
	if epoch < p.epoch {
		return false
	}
	if epoch > p.epoch {
		p.forget(len(p.frames))
		p.epoch, p.head, p.lost, p.named, p.told = epoch, 0, 0, 0, false
	}
	return true
}

// ack moves the window; progress restarts the time-out. True: nothing is pending any more.
func (p *pending) ack(epoch, cursor uint64, due int64) bool {
	if !beyond(p.epoch, p.head, epoch, cursor) {
		return true
	}
	if epoch == p.epoch {
		n := 0
		for n < len(p.frames) && p.frames[n].last <= cursor {
			n++
		}
		p.forget(n)
		if p.lost <= cursor {
			p.lost, p.told = 0, false
		}
	}
	p.misses, p.due = 0, due
	return false
}

// unheard: he has the head that the NOTICE named, by an answer of his own perhaps, and will not
// SYNC; what was dropped after it he does not know of.
func (p *pending) unheard(epoch, cursor uint64) bool {
	return p.told && epoch == p.epoch && p.named <= cursor && cursor < p.lost
}

// pendingLocked returns the connection's pending, one with a running time-out.
func (c *Conn) pendingLocked() *pending {
	if c.pend == nil {
		c.pend = c.gate.pendings.Get().(*pending)
		c.pend.due = c.gate.now() + int64(c.gate.cfg.AckTimeout)
	}
	return c.pend
}

func (c *Conn) dropPendingLocked() {
	if c.pend == nil {
		return
	}
	clear(c.pend.frames)
	*c.pend = pending{frames: c.pend.frames[:0]}
	c.gate.pendings.Put(c.pend)
	c.pend = nil
}

// againLocked: nothing was acknowledged for AckTimeout (JM-13, MF-07). Logic hears of the
// first miss, the client gets everything once more; after AckRetries he is given up.
func (c *Conn) againLocked(now int64) *code.Error {
	p := c.pend
	p.misses++
	p.due = now + int64(c.gate.cfg.AckTimeout)
	if p.misses > c.gate.cfg.AckRetries {
		return code.Errorf(code.CloseUnacked, "pushes were not acknowledged %d times", p.misses)
	}
	if p.misses == 1 {
		c.gate.metrics.overdue.Inc()
		c.eventLocked(tier.Uplink_OVERDUE)
	}
	if c.link.Queued() > 0 {
		return nil // he has not even taken what is under way
	}
	if p.lost > 0 {
		p.lose(p.head)
		c.gate.metrics.again.Inc()
		c.noticeLocked()
		return nil
	}
	frames := make([]wire.Frame, 0, len(p.frames))
	for _, f := range p.frames {
		frames = append(frames, pushFrame(f.body))
	}
	c.gate.metrics.again.Add(float64(len(frames)))
	c.sendLocked(frames...)
	return nil
}

// behindLocked: Logic knows of a version that this client does not have (P30). Unless it
// was sent and waits for its acknowledgement, he is told to SYNC.
func (c *Conn) behindLocked(epoch, head uint64) {
	if c.phase != online || !beyond(epoch, head, c.epoch, c.cursor) {
		return
	}
	if c.pend != nil && !beyond(epoch, head, c.pend.epoch, c.pend.head) {
		return
	}
	p := c.pendingLocked()
	if !p.enter(epoch) {
		return
	}
	p.head = max(p.head, head)
	p.lose(head)
	c.noticeLocked()
	c.armLocked()
}

// noticeLocked tells the client to SYNC; a slow one when he can hear it.
func (c *Conn) noticeLocked() {
	if c.slow {
		return
	}
	c.gate.metrics.noticed.Inc()
	c.pend.named = c.pend.head
	body, _ := (&im.Notice{What: im.Notice_SYNC, Epoch: c.pend.epoch, Head: c.pend.head}).Marshal(nil)
	c.sendLocked(wire.Frame{Cmd: im.Cmd_NOTICE, Flags: wire.FlagOneWay, Body: body})
}
