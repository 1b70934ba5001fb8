package sim

import (
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/conv"
	"hongyan/sdk/go/core"
)

// app is the application above a device's core: what it shows stays, and every event is
// judged as it comes.
type app struct {
	device *device
	convs  map[string]*screen
	fresh  map[place]bool // shown since the last save: may be shown once more after a crash
	again  map[place]bool // of them, before a crash: expected once more
}

type place struct {
	conv string
	seq  uint64
}

// screen is what the application shows of one conversation.
type screen struct {
	entries map[uint64]*entry
	mods    map[uint64]core.Modified // the newest of each entry, held or not
	ids     map[string]uint64        // sender/client_msg_id -> seq
	row     *im.Conversation         // newest whole row
	version uint64                   // of the newest row, whole or partial
	read    uint64
	peer    uint64
	last    uint64 // highest seq shown
}

// entry is one message on the screen.
type entry struct {
	sender, id, text string
	kind             im.Kind
	target, mod      uint64
	recalled         bool
}

func newApp(d *device) *app {
	return &app{device: d, convs: map[string]*screen{}, fresh: map[place]bool{}, again: map[place]bool{}}
}

func (a *app) screen(conv string) *screen {
	s := a.convs[conv]
	if s == nil {
		s = &screen{entries: map[uint64]*entry{}, mods: map[uint64]core.Modified{}, ids: map[string]uint64{}}
		a.convs[strings.Clone(conv)] = s
	}
	return s
}

// saved: what was shown is on the device's disk.
func (a *app) saved() { clear(a.fresh) }

// restarted: what was shown and not saved may be shown again.
func (a *app) restarted() {
	for p := range a.fresh {
		a.again[p] = true
	}
	clear(a.fresh)
}

func (a *app) violate(format string, args ...any) {
	a.device.world.cluster.history.violate(a.device.id+": "+format, args...)
}

// show takes one event of the core.
func (a *app) show(now time.Time, e core.Event) {
	d := a.device
	switch e := e.(type) {
	case core.Received:
		a.entry(e.Message)
	case core.Sent:
		d.world.stats.count("acked")
		if e.Duplicate {
			d.world.stats.count("acked as duplicate")
		}
		d.world.cluster.history.acked(d, e.ClientMsgID, e.Message)
		a.entry(e.Message)
	case core.Failed:
		a.failed(now, e)
	case core.Modified:
		a.modified(e)
	case core.Row:
		a.row(e)
	case core.Read:
		s := a.screen(e.Conv)
		if e.ByPeer {
			s.peer = max(s.peer, e.Seq)
		} else {
			s.read = max(s.read, e.Seq)
		}
	case core.Replaced:
		a.violate("%s/%d was replaced", e.Message.Conv, e.Message.Seq)
	case core.Removed:
		a.removed(e)
	case core.Reset:
		d.world.stats.count("reset")
		if d.world.cluster.several == nil {
			a.violate("was told to take the list anew")
		}
	case core.Online:
		d.tries = 0
		d.world.stats.count("logins")
	case core.Kicked:
		d.world.stats.count("kicked " + e.Code.Name())
		if core.Final(e.Code) {
			d.out = true
			a.violate("was kicked for good: %s %s", e.Code.Name(), e.Reason)
		}
	case core.Problem:
		d.world.stats.count("problem " + e.Err.Code.Name())
		a.suspect(e.Err)
	}
}

// removed: after a failover the list is taken anew, and a row of it may lag behind a log that
// the device has seen further. What it saw comes again, and is the same: it was acknowledged
// or pushed, so no failover may lose it (R19).
func (a *app) removed(e core.Removed) {
	if a.device.world.cluster.several == nil {
		a.violate("%s was cut after %d", e.Conv, e.After)
		return
	}
	a.device.world.stats.count("cut")
	for seq := range a.screen(e.Conv).entries {
		if seq > e.After {
			a.again[place{strings.Clone(e.Conv), seq}] = true
		}
	}
}

// suspect: nobody should ever see an internal error.
func (a *app) suspect(err *code.Error) {
	if err != nil && err.Code == code.Internal {
		a.violate("internal error: %v", err)
	}
}

// entry shows a message, exactly once.
func (a *app) entry(m *im.Message) {
	d := a.device
	at := place{m.Conv, m.Seq}
	a.entitled(m)
	s := a.screen(m.Conv)
	if old := s.entries[m.Seq]; old != nil {
		if !a.again[at] {
			a.violate("shows %s/%d twice", m.Conv, m.Seq)
		}
		if old.id != m.ClientMsgId || old.sender != m.Sender {
			a.violate("shows %s/%d as %s of %s and as %s of %s", m.Conv, m.Seq, old.id, old.sender, m.ClientMsgId, m.Sender)
		}
	}
	if m.ClientMsgId != "" {
		id := m.Sender + "/" + m.ClientMsgId
		if seq, ok := s.ids[id]; ok && seq != m.Seq {
			a.violate("shows %s as %s/%d and /%d", id, m.Conv, seq, m.Seq)
		}
		s.ids[id] = m.Seq
	}
	delete(a.again, at)
	a.fresh[at] = true
	e := &entry{sender: m.Sender, id: m.ClientMsgId, text: m.Text, kind: m.Kind, target: m.TargetSeq, mod: m.ModSeq, recalled: m.Recalled}
	s.entries[m.Seq] = e
	s.last = max(s.last, m.Seq)
	if mod, ok := s.mods[m.Seq]; ok && mod.ModSeq > e.mod {
		e.apply(mod)
	}
	d.world.stats.count("displayed")
}

// entitled checks that the message is this user's to see (T, P25).
func (a *app) entitled(m *im.Message) {
	id, err := conv.Parse(m.Conv)
	if err != nil || !id.Has(a.device.uid) {
		a.violate("shows %s/%d", m.Conv, m.Seq)
		return
	}
	if tenant, _, ok := strings.Cut(m.Text, "|"); ok && tenant != a.device.tenant {
		a.violate("of tenant %s shows a text of tenant %s", a.device.tenant, tenant)
	}
}

func (e *entry) apply(m core.Modified) {
	e.mod, e.recalled, e.text = m.ModSeq, m.Recalled, m.Text
}

func (a *app) modified(m core.Modified) {
	s := a.screen(m.Conv)
	if old, ok := s.mods[m.Seq]; ok && old.ModSeq >= m.ModSeq {
		return
	}
	s.mods[m.Seq] = m
	if e := s.entries[m.Seq]; e != nil && e.mod < m.ModSeq {
		e.apply(m)
	}
}

func (a *app) row(r core.Row) {
	s := a.screen(r.Conversation.Conv)
	s.version = max(s.version, r.Conversation.Version)
	if !r.Partial && (s.row == nil || s.row.Version <= r.Conversation.Version) {
		s.row = r.Conversation
	}
}

// failed: half of what ran out of time is sent again under its id, the rest is dropped.
func (a *app) failed(now time.Time, e core.Failed) {
	d := a.device
	d.world.stats.count("failed " + e.Err.Code.Name())
	d.world.cluster.history.failedWith(e.ClientMsgID, e.Err.Code)
	a.suspect(e.Err)
	d.later(now, func(now time.Time) {
		if e.Err.Code == code.Expired && d.luck.Float64() < 0.5 {
			if d.core.Retry(now, e.ClientMsgID) == nil {
				d.world.cluster.history.retried(e.ClientMsgID)
			}
			return
		}
		_ = d.core.Discard(e.ClientMsgID)
	})
}
