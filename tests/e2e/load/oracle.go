package load

import (
	"fmt"
	"time"
)

// report is what the oracle says of a run.
type report struct {
	messages, acked, unacked int
	took                     time.Duration // until all was level, after the sending ended
	violations               []string
}

func (r *report) good() bool { return r.unacked == 0 && len(r.violations) == 0 }

// levelWithin is L.
const levelWithin = 30 * time.Second

// check waits for everything to be level and holds it against the promises.
func (l *Load) check() report {
	began := time.Now()
	for {
		var r report
		for _, c := range l.talks {
			c.look(&r)
		}
		r.took = time.Since(began)
		if r.good() || r.took > levelWithin {
			return r
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// violationsMost bounds what is said of one run.
const violationsMost = 20

func (r *report) violation(format string, a ...any) {
	if len(r.violations) < violationsMost {
		r.violations = append(r.violations, fmt.Sprintf(format, a...))
	}
}

// look checks one conversation as it is now.
func (c *talk) look(r *report) {
	known, acked := map[string]bool{}, map[string]bool{}
	for _, w := range c.writers {
		w.locked(func() {
			for _, id := range w.sends {
				known[id] = true
				if w.acked[id] {
					acked[id] = true
				}
				if err := w.failed[id]; err != nil {
					r.violation("%s: %s failed for good: %v", w.name, id, err)
				}
			}
		})
	}
	r.messages += len(known)
	r.acked += len(acked)
	r.unacked += len(known) - len(acked)
	where := map[string]uint64{}
	for _, d := range c.devices {
		d.locked(func() { c.lookAt(d, known, acked, where, r) })
	}
	for _, w := range c.writers { // O: a sender's own order
		last := uint64(0)
		for _, id := range w.sends {
			seq, there := where[id]
			if there && seq < last {
				r.violation("%s: %s is at %d, an earlier one at %d", w.name, id, seq, last)
			}
			last = max(last, seq)
		}
	}
	if n := uint64(len(where)); n > 0 { // dense: every place is somebody's
		highest := uint64(0)
		for _, seq := range where {
			highest = max(highest, seq)
		}
		if highest != n {
			r.violation("%s: %d messages, the last is at %d", c.conv, n, highest)
		}
	}
}

// lookAt checks what one device was shown: A, U, O and that nothing foreign is there (T).
func (c *talk) lookAt(d *device, known, acked map[string]bool, where map[string]uint64, r *report) {
	for id := range acked {
		if d.shown[id] != 1 {
			r.violation("%s: acked %s was shown %d times", d.name, id, d.shown[id])
		}
	}
	for id, n := range d.shown {
		switch seq, seen := where[id]; {
		case !known[id]:
			r.violation("%s: %s is nobody's", d.name, id)
		case n > 1 && !acked[id]:
			r.violation("%s: unacked %s was shown %d times", d.name, id, n)
		case seen && seq != d.seqs[id]:
			r.violation("%s: %s is at %d here, at %d elsewhere", d.name, id, d.seqs[id], seq)
		}
		where[id] = d.seqs[id]
	}
}
