package chaos

import (
	"fmt"
	"time"
)

// Report is what the oracle says of a run.
type Report struct {
	Messages, Acked, Unacked int
	Converged                time.Duration // after the sending ended
	Violations               []string
}

// convergeMost is L: all is level so long after the last fault was healed.
const convergeMost = 30 * time.Second

// Check waits for everything to be level and holds it against the promises. It is called
// after Stop, with every fault healed.
func (l *Load) Check() Report {
	began := time.Now()
	for {
		r := l.look()
		r.Converged = time.Since(began)
		if len(r.Violations) == 0 && r.Unacked == 0 || r.Converged > convergeMost {
			return r
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *Load) look() (r Report) {
	for _, c := range l.convs {
		c.look(&r)
	}
	return r
}

// violationsMost bounds what is said of one run.
const violationsMost = 20

func (r *Report) violation(format string, a ...any) {
	if len(r.Violations) < violationsMost {
		r.Violations = append(r.Violations, fmt.Sprintf(format, a...))
	}
}

// look checks one conversation as it is now.
func (c *talk) look(r *Report) {
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
	r.Messages += len(known)
	r.Acked += len(acked)
	r.Unacked += len(known) - len(acked)
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
func (c *talk) lookAt(d *device, known, acked map[string]bool, where map[string]uint64, r *Report) {
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
