package das

import "time"

// ringSize is how many of a conversation's last messages are remembered whatever their age.
const ringSize = 64

// recent remembers the keys of a conversation's last messages: those of the last minutes,
// and at least the last 64 (R10). What it does not hold, though it covers the time in
// question, was not stored. Keys are 64-bit hashes: a hit must be looked up.
type recent struct {
	keys   []uint64 // of consecutive entries; the last of them is entry last
	traces []trace  // beside keys
	oldest int      // where in the ring they begin, once it is full
	last   uint64
	// since: every entry stored at or after this moment is remembered.
	since time.Duration
	// young and old hold younger keys that the ring had no room for; old is dropped when
	// young has been filled for a whole window.
	young, old map[uint64]struct{}
	turned     time.Duration
}

// trace is what is remembered of one entry.
type trace struct {
	ord    uint64
	ownOrd uint64
	at     time.Duration // when it was stored, since the das was made
	side   int8          // of its sender
}

// forever is before every moment: nothing within any window is missing.
const forever = time.Duration(-1 << 62)

// covers tells that no key stored within the window is missing.
func (r *recent) covers(now, window time.Duration) bool { return r.since <= now-window }

func (r *recent) has(key uint64) bool {
	for _, k := range r.keys {
		if k == key {
			return true
		}
	}
	if r.young == nil {
		return false
	}
	if _, ok := r.young[key]; ok {
		return true
	}
	_, ok := r.old[key]
	return ok
}

// at returns the trace of an entry, nil when it is not in the ring.
func (r *recent) at(seq uint64) *trace {
	n := uint64(len(r.keys))
	if seq > r.last || r.last-seq >= n {
		return nil
	}
	return &r.traces[(uint64(r.oldest)+n-1-(r.last-seq))%n]
}

// add remembers entry seq. now and window decide which of the older ones may be forgotten.
func (r *recent) add(seq, key uint64, t trace, now, window time.Duration) {
	if seq != r.last+1 { // not connected with what is here
		r.keys, r.traces, r.oldest, r.since = r.keys[:0], r.traces[:0], 0, now
	}
	r.last = seq
	if len(r.keys) < ringSize {
		r.keys, r.traces = append(r.keys, key), append(r.traces, t)
		return
	}
	i := r.oldest
	if r.traces[i].at > now-window {
		r.keep(r.keys[i], now, window)
	}
	r.keys[i], r.traces[i] = key, t
	r.oldest = (i + 1) % ringSize
}

func (r *recent) keep(key uint64, now, window time.Duration) {
	if r.young == nil || now-r.turned > window {
		r.old, r.young, r.turned = r.young, make(map[uint64]struct{}), now
	}
	r.young[key] = struct{}{}
}
