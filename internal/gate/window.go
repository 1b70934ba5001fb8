package gate

import "time"

// window holds the SENDs of a connection that have no answer yet.
type window struct{ open []slot }

type slot struct {
	seq   uint32
	until int64
}

// slotLife is how long an unanswered SEND takes room: the client's retry timer. Its answer
// may have died with a Logic, and the retry needs the room.
const slotLife = 5 * time.Second

func newWindow(size int) *window { return &window{open: make([]slot, 0, size)} }

// openSlotLocked makes room for one more SEND. False: there are too many.
func (c *Conn) openSlotLocked(seq uint32) bool {
	now := c.gate.now()
	if c.window == nil {
		c.window = c.gate.windows.Get().(*window)
	}
	w := c.window
	most := c.gate.limits.Load().unacked
	if len(w.open) >= most {
		w.forget(now)
	}
	if len(w.open) >= most {
		return false
	}
	w.open = append(w.open, slot{seq: seq, until: now + int64(slotLife)})
	return true
}

// closeSlotLocked: the SEND was answered.
func (c *Conn) closeSlotLocked(seq uint32) {
	w := c.window
	if w == nil {
		return
	}
	for i := range w.open {
		if w.open[i].seq == seq {
			w.open = append(w.open[:i], w.open[i+1:]...)
			break
		}
	}
	if len(w.open) == 0 {
		c.dropWindowLocked()
	}
}

func (c *Conn) dropWindowLocked() {
	if c.window == nil {
		return
	}
	c.window.open = c.window.open[:0]
	c.gate.windows.Put(c.window)
	c.window = nil
}

func (w *window) forget(now int64) {
	live := w.open[:0]
	for _, s := range w.open {
		if s.until > now {
			live = append(live, s)
		}
	}
	w.open = live
}
