package hongyan

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// toy is a server for tests: dense logs, versions, pushes; everything in memory, every
// token is a uid. before may swallow or answer a frame itself (true = done).
type toy struct {
	mu       sync.Mutex
	logs     map[string][]*im.Message
	rows     map[string]map[string]uint64 // uid -> conv -> version
	heads    map[string]uint64
	sessions map[*toySession]bool
	acked    map[string]uint64
	counters []uint64
	dials    []string
	before   func(s *toySession, f *Frame) bool
	refuse   map[string]error // by endpoint host: dialing fails
}

type toySession struct {
	*toy
	conn net.Conn
	wire *tcpConn
	uid  string
	out  chan Frame
}

func newToy() *toy {
	return &toy{
		logs: map[string][]*im.Message{}, rows: map[string]map[string]uint64{}, heads: map[string]uint64{},
		sessions: map[*toySession]bool{}, acked: map[string]uint64{}, refuse: map[string]error{},
	}
}

// dial is a Dialer; server side and client side share a pipe.
func (t *toy) dial(_ context.Context, endpoint *url.URL) (Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dials = append(t.dials, endpoint.Host)
	if err := t.refuse[endpoint.Host]; err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	s := &toySession{toy: t, conn: server, wire: newStream(server), out: make(chan Frame, 4096)}
	go s.serve()
	return newStream(client), nil
}

func (s *toySession) serve() {
	done := make(chan struct{})
	go s.write(done)
	defer s.conn.Close()
	defer close(done)
	defer func() { s.mu.Lock(); delete(s.sessions, s); s.mu.Unlock() }()
	for {
		frames, err := s.wire.Read(nil)
		for i := range frames {
			s.handle(&frames[i])
		}
		if err != nil {
			return
		}
	}
}

type encoder interface{ Marshal([]byte) ([]byte, error) }

// frame queues one frame for the client.
func (s *toySession) frame(cmd im.Cmd, flags wire.Flags, seq uint32, status code.Code, m encoder) {
	var body []byte
	if m != nil {
		body, _ = m.Marshal(nil)
	}
	select {
	case s.out <- Frame{Cmd: cmd, Flags: flags, Seq: seq, Status: status, Body: body}:
	default:
		panic("more frames than a test should write")
	}
}

func (s *toySession) write(done chan struct{}) {
	for {
		select {
		case f := <-s.out:
			_ = s.wire.Write([]Frame{f})
			if f.Cmd == im.Cmd_KICK {
				_ = s.conn.Close()
			}
		case <-done:
			return
		}
	}
}

func (s *toySession) reply(f *Frame, m encoder) { s.frame(f.Cmd, wire.FlagResponse, f.Seq, 0, m) }

func (s *toySession) fail(f *Frame, c code.Code, after time.Duration) {
	s.frame(f.Cmd, wire.FlagResponse, f.Seq, c, &im.Error{Code: uint32(c), Message: c.Meaning(), RetryAfterMs: uint32(after.Milliseconds())})
}

func decode[M interface{ Unmarshal([]byte) error }](f *Frame, m M) M {
	if err := m.Unmarshal(f.Body); err != nil {
		panic(err)
	}
	return m
}

func (s *toySession) handle(f *Frame) {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil && before(s, f) {
		return
	}
	switch f.Cmd {
	case im.Cmd_HELLO:
		s.reply(f, &im.HelloAck{})
	case im.Cmd_AUTH:
		s.auth(f)
	case im.Cmd_PING:
		s.reply(f, &im.Pong{ServerMs: time.Now().UnixMilli()})
	case im.Cmd_SEND:
		s.send(f)
	case im.Cmd_RECALL:
		s.recall(f)
	case im.Cmd_PUSH_ACK:
		s.mu.Lock()
		s.acked[s.uid] = max(s.acked[s.uid], decode(f, &im.PushAck{}).Cursor)
		s.mu.Unlock()
	case im.Cmd_SYNC:
		s.reply(f, s.sync(decode(f, &im.Sync{}).Cursor))
	case im.Cmd_HISTORY:
		s.reply(f, s.history(decode(f, &im.History{})))
	case im.Cmd_UNREAD:
		s.reply(f, &im.UnreadRsp{Total: 3, Conversations: []*im.ConvUnread{{Conv: "p:alice:bob", Unread: 3}}})
	case im.Cmd_LOGOUT:
		s.reply(f, nil)
	case im.Cmd_TYPING:
	default:
		s.fail(f, code.Unsupported, 0)
	}
}

func (s *toySession) auth(f *Frame) {
	a := decode(f, &im.Auth{})
	if a.Token == "expired" {
		s.fail(f, code.BadToken, 0)
		return
	}
	s.mu.Lock()
	s.uid = a.Token
	s.sessions[s] = true
	s.counters = append(s.counters, a.ConnectionCounter)
	s.mu.Unlock()
	s.reply(f, &im.AuthAck{Uid: a.Token, Device: a.Device, Sync: s.sync(a.Cursor)})
}

func members(conv string) []string { return strings.Split(conv, ":")[1:] }

// append stores a message and moves the row of every member; it returns the versions.
func (t *toy) append(conv string, m *im.Message) (*im.Message, map[string]uint64) {
	m.Conv, m.Seq = conv, uint64(len(t.logs[conv])+1)
	t.logs[conv] = append(t.logs[conv], m)
	versions := map[string]uint64{}
	for _, uid := range members(conv) {
		t.heads[uid]++
		if t.rows[uid] == nil {
			t.rows[uid] = map[string]uint64{}
		}
		t.rows[uid][conv] = t.heads[uid]
		versions[uid] = t.heads[uid]
	}
	return m, versions
}

func (s *toySession) send(f *Frame) {
	m := decode(f, &im.Send{})
	conv := m.Conv
	if conv == "" {
		conv = "p:" + min(s.uid, m.To) + ":" + max(s.uid, m.To)
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.logs[conv], func(o *im.Message) bool { return o.ClientMsgId == m.ClientMsgId })
	if i >= 0 {
		s.mu.Unlock()
		s.reply(f, &im.SendAck{Conv: conv, Seq: uint64(i + 1), Duplicate: true, ClientMsgId: m.ClientMsgId})
		return
	}
	stored, versions := s.append(conv, &im.Message{Sender: s.uid, ClientMsgId: m.ClientMsgId, Kind: im.Kind_TEXT, Text: m.Text})
	s.mu.Unlock()
	s.push(stored, versions, s)
	s.reply(f, &im.SendAck{Conv: conv, Seq: stored.Seq, Epoch: 1, Version: versions[s.uid], LastSeq: stored.Seq, ClientMsgId: m.ClientMsgId})
}

func (s *toySession) recall(f *Frame) {
	m := decode(f, &im.Modify{})
	s.mu.Lock()
	e, versions := s.append(m.Conv, &im.Message{Sender: s.uid, ClientMsgId: m.ClientMsgId, Kind: im.Kind_EVENT_RECALL, TargetSeq: m.Seq})
	target := s.logs[m.Conv][m.Seq-1]
	target.Recalled, target.Text, target.ModSeq = true, "", e.Seq
	s.mu.Unlock()
	s.push(e, versions, s)
	s.reply(f, &im.SendAck{Conv: m.Conv, Seq: e.Seq, Epoch: 1, Version: versions[s.uid], LastSeq: e.Seq})
}

// push gives a stored message to every session of its members but one.
func (t *toy) push(m *im.Message, versions map[string]uint64, but *toySession) {
	t.mu.Lock()
	var to []*toySession
	for s := range t.sessions {
		if s != but && versions[s.uid] > 0 {
			to = append(to, s)
		}
	}
	t.mu.Unlock()
	for _, s := range to {
		row := &im.Conversation{Conv: m.Conv, Version: versions[s.uid], LastSeq: m.Seq, Messages: []*im.Message{m}}
		s.frame(im.Cmd_PUSH, wire.FlagOneWay, 0, 0, &im.Push{Epoch: 1, Changes: []*im.Conversation{row}})
	}
}

// say stores and pushes a message of someone who is not connected.
func (t *toy) say(from, to, id string) {
	t.mu.Lock()
	m, versions := t.append("p:"+min(from, to)+":"+max(from, to), &im.Message{Sender: from, ClientMsgId: id, Kind: im.Kind_TEXT, Text: id})
	t.mu.Unlock()
	t.push(m, versions, nil)
}

func (s *toySession) sync(after uint64) *im.SyncRsp {
	s.mu.Lock()
	defer s.mu.Unlock()
	rsp := &im.SyncRsp{Epoch: 1, Head: s.heads[s.uid], NextCursor: s.heads[s.uid]}
	for conv, v := range s.rows[s.uid] {
		if v > after {
			log := s.logs[conv]
			rsp.Changes = append(rsp.Changes, &im.Conversation{Conv: conv, Version: v, LastSeq: uint64(len(log)), Messages: log[max(0, len(log)-20):]})
		}
	}
	slices.SortFunc(rsp.Changes, func(a, b *im.Conversation) int { return cmp.Compare(a.Version, b.Version) })
	return rsp
}

func (s *toySession) history(h *im.History) *im.HistoryRsp {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.logs[h.Conv]
	rsp := &im.HistoryRsp{ReadAtSeq: uint64(len(log))}
	for _, m := range log {
		if h.FromSeq == 0 || m.Seq >= h.FromSeq && m.Seq <= h.ToSeq {
			rsp.Messages = append(rsp.Messages, m)
		}
	}
	return rsp
}

func (t *toy) online() []*toySession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.sessions))
}

// cut ends every connection.
func (t *toy) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.sessions {
		_ = s.conn.Close()
	}
}

func (t *toy) stored(conv string) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.logs[conv] {
		ids = append(ids, m.ClientMsgId)
	}
	return ids
}

var errRefused = errors.New("connection refused")
