package core

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

var seeds = flag.Uint64("seeds", 200, "seeds of TestAgainstAModelServer")

// server is a dumb model of what a server promises: dense logs, a version for each change,
// newest rows only. It loses, delays and refuses as the seed says.
type server struct {
	rng      *rand.Rand
	d        *device
	convs    map[string][]*im.Message
	rows     map[string]uint64 // conv -> version
	version  uint64
	inbox    []wire.Frame // of the client, not yet handled
	outbox   []wire.Frame // to the client
	calm     bool
	sentByMe map[string][]string // conv -> ids in order of sending
	n        int
}

var modelConvs = []string{"p:me:u1", "p:me:u2", "p:a:me"}

// TestAgainstAModelServer runs a device against random losses, delays, refusals,
// reconnects and crashes; in the end it must hold exactly what the server holds.
func TestAgainstAModelServer(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := &server{
				rng: rand.New(rand.NewPCG(seed, 2)), d: newDevice(t, func(c *Config) { c.SyncMessages = 3 }),
				convs: map[string][]*im.Message{}, rows: map[string]uint64{}, sentByMe: map[string][]string{},
			}
			for range 150 {
				s.step()
			}
			s.heal()
			s.check(t)
		})
	}
}

func (s *server) step() {
	switch n := s.rng.IntN(20); {
	case n < 5:
		s.theySend()
	case n < 9:
		s.iSend()
	case n == 9:
		s.recall()
	case n == 10:
		s.d.core.Disconnected(s.d.now)
		s.inbox, s.outbox = nil, nil
	case n == 11 && s.rng.IntN(3) == 0:
		s.d.restart()
		s.inbox, s.outbox = nil, nil
	case n < 14:
		s.d.pass(time.Duration(s.rng.IntN(400)) * time.Millisecond)
	}
	s.pump()
}

func (s *server) iSend() {
	s.n++
	id, conv := fmt.Sprint("mine", s.n), modelConvs[s.rng.IntN(len(modelConvs))]
	s.sentByMe[conv] = append(s.sentByMe[conv], id)
	s.d.send(id, conv)
}

func (s *server) theySend() {
	conv := modelConvs[s.rng.IntN(len(modelConvs))]
	var ms []*im.Message
	for range 1 + s.rng.IntN(2) {
		s.n++
		ms = append(ms, s.append(conv, &im.Message{Sender: "they", ClientMsgId: fmt.Sprint("theirs", s.n), Kind: im.Kind_TEXT, Text: "x"}))
	}
	s.changed(conv, ms, true)
}

func (s *server) recall() {
	conv := modelConvs[s.rng.IntN(len(modelConvs))]
	if len(s.convs[conv]) == 0 {
		return
	}
	target := s.convs[conv][s.rng.IntN(len(s.convs[conv]))]
	if target.Kind != im.Kind_TEXT || target.Recalled {
		return
	}
	s.n++
	e := s.append(conv, &im.Message{Sender: "they", ClientMsgId: fmt.Sprint("recall", s.n), Kind: im.Kind_EVENT_RECALL, TargetSeq: target.Seq})
	target.Recalled, target.Text, target.ModSeq = true, "", e.Seq
	s.changed(conv, []*im.Message{e}, true)
}

func (s *server) append(conv string, m *im.Message) *im.Message {
	m.Conv, m.Seq = conv, uint64(len(s.convs[conv])+1)
	s.convs[conv] = append(s.convs[conv], m)
	return m
}

// changed gives the conversation the next version and pushes it, perhaps.
func (s *server) changed(conv string, ms []*im.Message, push bool) {
	s.version++
	s.rows[conv] = s.version
	if !push || s.d.core.stage != online || s.flip(4) {
		return
	}
	p := &im.Push{Epoch: 1, Changes: []*im.Conversation{s.row(conv, ms)}}
	s.outbox = append(s.outbox, wire.Frame{Cmd: im.Cmd_PUSH, Body: encode(p)})
}

func (s *server) row(conv string, ms []*im.Message) *im.Conversation {
	return &im.Conversation{Conv: conv, Version: s.rows[conv], LastSeq: uint64(len(s.convs[conv])), Messages: ms}
}

// flip is true one time in n, never when calm.
func (s *server) flip(n int) bool { return !s.calm && s.rng.IntN(n) == 0 }

// pump moves frames both ways.
func (s *server) pump() {
	if s.d.core.stage == down {
		s.inbox, s.outbox, s.d.frames = nil, nil, nil
		s.d.core.Connected(s.d.now, Link{})
	}
	s.d.run()
	s.inbox = append(s.inbox, s.d.frames...)
	s.d.frames = nil
	for len(s.inbox) > 0 && !s.flip(5) {
		f := s.inbox[0]
		s.inbox = s.inbox[1:]
		s.handle(f)
	}
	for len(s.outbox) > 0 && !s.flip(4) {
		i := 0
		if s.flip(6) {
			i = s.rng.IntN(len(s.outbox)) // overtakes
		}
		f := s.outbox[i]
		s.outbox = slices.Delete(s.outbox, i, i+1)
		s.d.core.Receive(s.d.now, &f)
		s.d.run()
		if s.flip(15) {
			s.d.core.Receive(s.d.now, &f) // twice
			s.d.run()
		}
	}
}

func (s *server) answer(f wire.Frame, b body) {
	if s.flip(12) && f.Cmd != im.Cmd_HELLO && f.Cmd != im.Cmd_AUTH {
		return // lost
	}
	s.outbox = append(s.outbox, wire.Frame{Cmd: f.Cmd, Flags: wire.FlagResponse, Seq: f.Seq, Body: encode(b)})
}

func (s *server) refuse(f wire.Frame, c code.Code) {
	s.outbox = append(s.outbox, wire.Frame{Cmd: f.Cmd, Flags: wire.FlagResponse, Status: c, Seq: f.Seq, Body: encode(&im.Error{Code: uint32(c)})})
}

func (s *server) handle(f wire.Frame) {
	switch f.Cmd {
	case im.Cmd_HELLO:
		s.answer(f, &im.HelloAck{})
	case im.Cmd_AUTH:
		var a im.Auth
		s.d.body(f, &a)
		s.answer(f, &im.AuthAck{Uid: "me", Sync: s.sync(a.Cursor, 2, a.ModsKnown)})
	case im.Cmd_SYNC:
		var a im.Sync
		s.d.body(f, &a)
		s.answer(f, s.sync(a.Cursor, int(a.Limit), a.ModsKnown))
	case im.Cmd_HISTORY:
		var h im.History
		s.d.body(f, &h)
		rsp := &im.HistoryRsp{ReadAtSeq: uint64(len(s.convs[h.Conv]))}
		for _, m := range s.convs[h.Conv] {
			if m.Seq >= h.FromSeq && m.Seq <= h.ToSeq {
				rsp.Messages = append(rsp.Messages, m)
			}
		}
		s.answer(f, rsp)
	case im.Cmd_SEND:
		s.onSend(f)
	}
}

func (s *server) onSend(f wire.Frame) {
	var m im.Send
	s.d.body(f, &m)
	log := s.convs[m.Conv]
	byID := func(id string) int {
		return slices.IndexFunc(log, func(o *im.Message) bool { return o.ClientMsgId == id })
	}
	if i := byID(m.ClientMsgId); i >= 0 {
		s.answer(f, &im.SendAck{Conv: m.Conv, Seq: log[i].Seq, Duplicate: true, ClientMsgId: m.ClientMsgId})
		return
	}
	switch {
	case s.flip(5):
		s.refuse(f, code.Overloaded)
	case m.After != "" && byID(m.After) < 0:
		s.refuse(f, code.OutOfOrder)
	default:
		msg := s.append(m.Conv, &im.Message{Sender: "me", ClientMsgId: m.ClientMsgId, Kind: im.Kind_TEXT, Text: m.Text})
		s.changed(m.Conv, nil, false)
		ack := &im.SendAck{Conv: m.Conv, Seq: msg.Seq, Epoch: 1, LastSeq: msg.Seq, Version: s.version, ClientMsgId: m.ClientMsgId}
		if s.flip(4) { // the version follows
			ack.Version = 0
			p := &im.Push{Epoch: 1, Changes: []*im.Conversation{s.row(m.Conv, nil)}}
			s.answer(f, ack)
			s.outbox = append(s.outbox, wire.Frame{Cmd: im.Cmd_PUSH, Body: encode(p)})
			return
		}
		s.answer(f, ack)
	}
}

func (s *server) sync(after uint64, limit int, known []*im.ModsKnown) *im.SyncRsp {
	rsp := &im.SyncRsp{Epoch: 1, Head: s.version, NextCursor: s.version}
	for conv, v := range s.rows {
		if v > after {
			log := s.convs[conv]
			rsp.Changes = append(rsp.Changes, s.row(conv, log[max(0, len(log)-3):]))
		}
	}
	slices.SortFunc(rsp.Changes, func(a, b *im.Conversation) int { return cmp.Compare(a.Version, b.Version) })
	if len(rsp.Changes) > limit {
		rsp.Changes, rsp.More = rsp.Changes[:limit], true
		rsp.NextCursor = rsp.Changes[limit-1].Version
	}
	for _, k := range known {
		for _, m := range s.convs[k.Conv] {
			if m.ModSeq > k.Seq {
				rsp.Modified = append(rsp.Modified, m)
			}
		}
	}
	return rsp
}

// heal stops all faults and lets the device come level.
func (s *server) heal() {
	s.calm = true
	s.d.core.Disconnected(s.d.now)
	s.inbox, s.outbox = nil, nil
	for range 200 {
		s.pump()
		s.d.pass(100 * time.Millisecond)
		s.pump()
		if s.d.core.Level() && len(s.d.core.Outbox()) == 0 && len(s.outbox)+len(s.inbox) == 0 {
			return
		}
	}
	s.d.t.Fatalf("not level after healing: outbox %+v, level %v", s.d.core.Outbox(), s.d.core.Level())
}

func (s *server) check(t *testing.T) {
	type place struct {
		conv string
		seq  uint64
	}
	shown := map[place]*im.Message{}
	show := func(m *im.Message) {
		p := place{m.Conv, m.Seq}
		if shown[p] != nil {
			t.Fatalf("%v shown twice", p)
		}
		shown[p] = m
	}
	for _, e := range s.d.events {
		switch e := e.(type) {
		case Received:
			show(e.Message)
		case Sent:
			show(e.Message)
		case Modified:
			if m := shown[place{e.Conv, e.Seq}]; m != nil && m.ModSeq < e.ModSeq {
				m.Recalled, m.Text, m.ModSeq = e.Recalled, e.Text, e.ModSeq
			}
		case Replaced, Removed, Reset, Failed, Problem:
			t.Fatalf("unexpected %#v", e)
		}
	}
	total := 0
	for conv, log := range s.convs {
		total += len(log)
		var mine []string
		for _, m := range log {
			got := shown[place{conv, m.Seq}]
			if got == nil || got.ClientMsgId != m.ClientMsgId || got.Recalled != m.Recalled || got.Text != m.Text {
				t.Fatalf("%s/%d: shown %+v, the server has %+v", conv, m.Seq, got, m)
			}
			if m.Sender == "me" {
				mine = append(mine, m.ClientMsgId)
			}
		}
		if !slices.Equal(mine, s.sentByMe[conv]) {
			t.Fatalf("%s: sent %v, stored %v", conv, s.sentByMe[conv], mine)
		}
	}
	if total != len(shown) {
		t.Fatalf("%d shown, %d on the server", len(shown), total)
	}
	saved, _ := s.d.store.Load()
	if saved.Cursor.Version != s.version {
		t.Fatalf("stored cursor %d, head %d", saved.Cursor.Version, s.version)
	}
}
