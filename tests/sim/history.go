package sim

import (
	"fmt"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// history is what the clients saw: every send, its acknowledgement, and whatever broke a
// promise on the spot.
type history struct {
	mu         sync.Mutex
	began      time.Time
	sends      map[string]*sent
	reads      map[userConv]uint64 // highest seq a user's devices ever marked as read
	order      []*sent
	violations []string
}

// sent is one message, recall or edit that a device was asked to send.
type sent struct {
	id, tenant, uid, device, conv string
	cmd                           im.Cmd
	text                          string
	target                        uint64
	n                             int // order of sending among all
	at                            time.Time
	seq                           uint64 // acknowledged as; 0 = not
	acked                         time.Time
	failed                        code.Code
	wrote, refused                time.Time // last written; failed
	again                         bool      // was retried by the user after it had failed
}

func newHistory() *history {
	return &history{began: time.Now(), sends: map[string]*sent{}, reads: map[userConv]uint64{}}
}

type userConv struct{ tenant, uid, conv string }

// reading: a device marks a conversation as read.
func (h *history) reading(d *device, conv string, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := userConv{d.tenant, d.uid, conv}
	h.reads[k] = max(h.reads[k], seq)
}

// asked is the highest seq that a user ever marked as read.
func (h *history) asked(k userConv) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads[k]
}

// wrote: a device writes a message once more.
func (h *history) wrote(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sends[id]; s != nil {
		s.wrote = time.Now()
	}
}

// violationsKept bounds what a broken run reports.
const violationsKept = 40

// violate notes that a promise was broken.
func (h *history) violate(format string, a ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violateLocked(format, a...)
}

func (h *history) violateLocked(format string, a ...any) {
	if len(h.violations) < violationsKept {
		at := time.Since(h.began).Round(time.Microsecond)
		h.violations = append(h.violations, fmt.Sprintf("%12v  ", at)+fmt.Sprintf(format, a...))
	}
}

func (h *history) sending(s *sent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.n, s.at = len(h.order)+1, time.Now()
	h.sends[s.id] = s
	h.order = append(h.order, s)
}

// retried: the user sends a failed message again; its order counts from now.
func (h *history) retried(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sends[id]; s != nil {
		s.again, s.failed = true, code.OK
	}
}

// acked: the device was told that its message is stored.
func (h *history) acked(d *device, id string, m *im.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sends[id]
	switch {
	case s == nil:
		h.violateLocked("%s was told that %s is stored, which nobody sent", d.id, id)
	case s.seq != 0 && s.seq != m.Seq:
		h.violateLocked("%s: %s acknowledged as %d and as %d of %s", d.id, id, s.seq, m.Seq, s.conv)
	case s.conv != m.Conv:
		h.violateLocked("%s: %s to %s acknowledged in %s", d.id, id, s.conv, m.Conv)
	default:
		s.seq, s.acked = m.Seq, time.Now()
	}
}

// failedWith: the user was told that it will not be stored, maybe for the second time.
func (h *history) failedWith(id string, c code.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sends[id]; s != nil && s.failed != c {
		s.failed, s.refused = c, time.Now()
	}
}

// all returns the sends, in order.
func (h *history) all() []*sent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*sent(nil), h.order...)
}
