package sim

import (
	"log/slog"
	"strings"
	"testing"

	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/internal/conv"
	"hongyan/sdk/go/core"
)

// A history or a store that is doctored by a single thing is found out. The world itself is
// a quiet one, and level.
func TestOracleFindsDoctoredHistories(t *testing.T) {
	oneProcessor(t)
	quiet := func(p *profile) {
		p.net, p.store, p.link, p.queue = netOdds{}, storeOdds{}, linkOdds{}, queueOdds{}
		p.chaos.every, p.people.crash = 1<<62, 0
	}
	examined := false
	res := run(t, 3, rules{shape: quiet, atEnd: func(w *world) {
		examined = true
		for _, c := range doctored {
			h := w.cluster.history
			was := h.violations
			h.violations = nil
			said := c.do(w)
			said = append(said, h.violations...)
			h.violations = was
			if !strings.Contains(strings.Join(said, "\n"), c.says) {
				t.Errorf("%s: said %q, want %q", c.name, said, c.says)
			}
		}
	}}, slog.New(slog.DiscardHandler))
	if !examined || len(res.violations) > 0 {
		t.Errorf("undoctored: %v", res.violations)
	}
}

// victim is a device and a conversation in which both sides have written.
func (w *world) victim(t *truth) (*device, store.Key, *screen) {
	for _, d := range w.devices {
		for name, s := range d.app.convs {
			k := store.Key{Tenant: d.tenant, ID: name}
			senders := map[string]bool{}
			for _, m := range t.logs[k] {
				senders[m.Sender] = true
			}
			if id, _ := conv.Parse(name); id.Kind == conv.KindPrivate && len(t.logs[k]) > 3 && len(senders) == 2 {
				return d, k, s
			}
		}
	}
	panic("nobody talks to anybody")
}

// onDevice doctors a device, and undoes it.
func onDevice(do func(d *device, s *screen) (undo func())) func(*world) []string {
	return func(w *world) []string {
		t, _ := w.truth()
		d, _, s := w.victim(t)
		t.close()
		undo := do(d, s)
		said := w.differences()
		undo()
		return said
	}
}

// onTruth doctors a copy of what the store holds.
func onTruth(do func(w *world, t *truth, k store.Key)) func(*world) []string {
	return func(w *world) []string {
		t, _ := w.truth()
		defer t.close()
		_, k, _ := w.victim(t)
		do(w, t, k)
		w.auditTruth(t)
		return nil
	}
}

var doctored = []struct {
	name string
	do   func(*world) []string // what the oracle says
	says string
}{
	{"a message is not shown", onDevice(func(_ *device, s *screen) func() {
		e := s.entries[2]
		delete(s.entries, 2)
		return func() { s.entries[2] = e }
	}), "A:"},
	{"a message is shown that nobody sent", onDevice(func(_ *device, s *screen) func() {
		s.entries[9999] = &entry{}
		return func() { delete(s.entries, 9999) }
	}), "U:"},
	{"a message is shown with another's text", onDevice(func(_ *device, s *screen) func() {
		e := s.entries[1]
		c := *e
		c.text += "!"
		s.entries[1] = &c
		return func() { s.entries[1] = e }
	}), "shows"},
	{"a read position went back", onDevice(func(_ *device, s *screen) func() {
		s.read += 1000
		return func() { s.read -= 1000 }
	}), "P12:"},
	{"unread is wrong", onDevice(func(_ *device, s *screen) func() {
		if s.row == nil || s.row.Version != s.version {
			s.row = &im.Conversation{Version: s.version}
		}
		s.row.Unread += 77
		return func() { s.row.Unread -= 77 }
	}), "P12:"},
	{"a message is shown twice", func(w *world) []string {
		d := w.devices[0]
		m := &im.Message{Conv: "p:" + d.uid + ":zz", Seq: 1, Sender: d.uid, ClientMsgId: "x", Text: d.tenant + "|"}
		a := newApp(d)
		a.entry(m)
		a.entry(m)
		return nil
	}, "twice"},
	{"a message is shown under two numbers", func(w *world) []string {
		d := w.devices[0]
		a := newApp(d)
		a.entry(&im.Message{Conv: "p:" + d.uid + ":zz", Seq: 1, Sender: d.uid, ClientMsgId: "x"})
		a.entry(&im.Message{Conv: "p:" + d.uid + ":zz", Seq: 2, Sender: d.uid, ClientMsgId: "x"})
		return nil
	}, "and /"},
	{"a message of another tenant is shown", func(w *world) []string {
		d := w.devices[0]
		newApp(d).entry(&im.Message{Conv: "p:" + d.uid + ":zz", Seq: 1, Text: "else|where"})
		return nil
	}, "tenant"},
	{"a message of others is shown", func(w *world) []string {
		newApp(w.devices[0]).show(w.cluster.history.began, core.Received{Message: &im.Message{Conv: "p:xx:zz", Seq: 1}})
		return nil
	}, "shows p:xx:zz/1"},
	{"an acknowledged message is not stored", onTruth(func(_ *world, t *truth, k store.Key) {
		t.logs[k] = t.logs[k][:0]
	}), "A:"},
	{"an acknowledged message is stored elsewhere", onTruth(func(_ *world, t *truth, k store.Key) {
		log := t.logs[k]
		a, b := *log[0], *log[1]
		a.ClientMsgID, b.ClientMsgID = b.ClientMsgID, a.ClientMsgID
		a.Sender, b.Sender = b.Sender, a.Sender
		t.logs[k][0], t.logs[k][1] = &a, &b
	}), "A:"},
	{"a message is stored twice", onTruth(func(_ *world, t *truth, k store.Key) {
		m := *t.logs[k][0]
		m.Seq = uint64(len(t.logs[k]) + 1)
		t.logs[k] = append(t.logs[k], &m)
	}), "U:"},
	{"a log has a hole", onTruth(func(_ *world, t *truth, k store.Key) {
		t.logs[k] = append(t.logs[k][:1:1], t.logs[k][2:]...)
	}), "R02"},
	{"two rows have one version", onTruth(func(_ *world, t *truth, _ store.Key) {
		for _, u := range t.users {
			if len(u.rows) > 1 {
				u.rows[1].Version = u.rows[0].Version
			}
		}
	}), "R12"},
	{"a head is ahead of its rows", onTruth(func(_ *world, t *truth, _ store.Key) {
		for _, u := range t.users {
			u.head.Version++
		}
	}), "R01"},
	{"a row's count is wrong", onTruth(func(_ *world, t *truth, k store.Key) {
		id, _ := conv.Parse(k.ID)
		t.row(k, id.A).LastOrd++
	}), "R24"},
	{"a message was stored for somebody who blocks", onTruth(func(_ *world, t *truth, k store.Key) {
		id, _ := conv.Parse(k.ID)
		block := &store.Message{Conv: k, Seq: 1, Sender: id.A, Kind: im.Kind_EVENT_BLOCK}
		said := &store.Message{Conv: k, Seq: 2, Sender: id.B, ClientMsgID: "late", Kind: im.Kind_TEXT}
		t.logs[k] = []*store.Message{block, said}
	}), "R28"},
	{"a message was changed by another", onTruth(func(_ *world, t *truth, k store.Key) {
		id, _ := conv.Parse(k.ID)
		t.logs[k] = []*store.Message{
			{Conv: k, Seq: 1, Sender: id.A, ClientMsgID: "a"},
			{Conv: k, Seq: 2, Sender: id.B, ClientMsgID: "b", Kind: im.Kind_EVENT_EDIT, TargetSeq: 1},
		}
	}), "R25"},
	{"a recalled message can be read", onTruth(func(_ *world, t *truth, k store.Key) {
		id, _ := conv.Parse(k.ID)
		t.logs[k] = []*store.Message{
			{Conv: k, Seq: 1, Sender: id.A, ClientMsgID: "a", Text: "still here", ModSeq: 2, Recalled: true},
			{Conv: k, Seq: 2, Sender: id.A, ClientMsgID: "b", Kind: im.Kind_EVENT_RECALL, TargetSeq: 1},
		}
	}), "R25"},
	{"one sender's order is broken", func(w *world) []string {
		h := w.cluster.history
		t, _ := w.truth()
		defer t.close()
		var first, second *sent
		for _, s := range h.all() {
			switch {
			case s.seq == 0 || s.cmd != im.Cmd_SEND:
			case first == nil || first.device != s.device || first.conv != s.conv:
				first = s
			default:
				second = s
			}
			if second != nil {
				break
			}
		}
		first.seq, second.seq = second.seq, first.seq
		w.auditTruth(t)
		first.seq, second.seq = second.seq, first.seq
		return nil
	}, "O:"},
	{"an acknowledgement says two things", func(w *world) []string {
		h := w.cluster.history
		for _, s := range h.all() {
			if s.seq != 0 {
				h.acked(w.devices[0], s.id, &im.Message{Conv: s.conv, Seq: s.seq + 1})
				break
			}
		}
		return nil
	}, "acknowledged as"},
	{"a notice was lost", func(w *world) []string {
		t, _ := w.truth()
		defer t.close()
		t.auditNotice(w.cluster.history, &notice{"acme", "u0", "s:shop:u0", "never-published", ""})
		return nil
	}, "stored 0 times"},
}
