package bench

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// fakeServer speaks just enough of the protocol to answer a run of Pairs, and misbehaves as
// told: lose, double and swap name the seqs of each conversation it does that to.
type fakeServer struct {
	t                  testing.TB
	addr               string
	lose, double, swap uint64
	refuse             uint64 // the first SEND of this number of a connection is overloaded
	logins             int    // so many first logins of each user have an unknown outcome
	promote            uint64 // when a conversation has come to this seq, a replica has its log, at another epoch,
	forget             uint64 // without so many of its newest messages

	mu    sync.Mutex
	users map[string]*fakeUser
	convs map[string]*fakeConv
}

type fakeUser struct {
	mu      sync.Mutex
	nc      net.Conn
	logins  int
	epoch   uint64
	version uint64
	held    *im.Conversation // a change kept back, to come after the next
}

type fakeConv struct {
	seq      uint64
	promoted bool
	log      []*im.Message
}

func startFake(t testing.TB) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveFake(t, l)
}

func serveFake(t testing.TB, l net.Listener) *fakeServer {
	s := &fakeServer{t: t, addr: l.Addr().String(), users: map[string]*fakeUser{}, convs: map[string]*fakeConv{}}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(nc)
		}
	}()
	return s
}

func (s *fakeServer) serve(nc net.Conn) {
	l := &tcpLink{nc: nc, r: bufio.NewReader(nc)}
	var uid string
	var sends uint64
	for {
		f, err := l.read()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				s.t.Errorf("fake server: %v", err)
			}
			return
		}
		switch f.Cmd {
		case im.Cmd_AUTH:
			var a im.Auth
			_ = a.Unmarshal(f.Body)
			uid = strings.TrimPrefix(strings.Clone(a.Device), "bench-")
			s.mu.Lock()
			logins := 1
			if u := s.users[uid]; u != nil {
				logins += u.logins
			}
			s.users[uid] = &fakeUser{nc: nc, logins: logins, epoch: 1}
			s.mu.Unlock()
			if logins <= s.logins {
				s.write(s.user(uid), f, 505, &im.Error{Code: 505, Retryable: true})
				continue
			}
			s.write(s.user(uid), f, 0, &im.AuthAck{Uid: uid, Sync: &im.SyncRsp{Epoch: 1}})
		case im.Cmd_SEND:
			sends++
			if sends == s.refuse {
				s.write(s.user(uid), f, 503, &im.Error{Code: 503, Retryable: true, RetryAfterMs: 20})
				continue
			}
			s.send(uid, f)
		case im.Cmd_SYNC:
			s.write(s.user(uid), f, 0, s.sync(uid, f))
		case im.Cmd_HISTORY:
			s.history(uid, f)
		}
	}
}

func (s *fakeServer) user(uid string) *fakeUser {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[uid]
}

func (s *fakeServer) write(u *fakeUser, req wire.Frame, status uint32, b body) {
	encoded, err := b.Marshal(nil)
	if err != nil {
		s.t.Error(err)
	}
	f := wire.Frame{Cmd: req.Cmd, Seq: req.Seq, Flags: wire.FlagResponse, Body: encoded}
	if status != 0 {
		f.Status = code.Code(status)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, _ = u.nc.Write(wire.Append(nil, &f))
}

// send stores a message, pushes it to the other side and answers, misbehaving as told.
func (s *fakeServer) send(uid string, f wire.Frame) {
	var req im.Send
	_ = req.Unmarshal(f.Body)
	conv, data := strings.Clone(req.Conv), append([]byte(nil), req.Data...)
	to := strings.TrimSuffix(uid, "a") + "b"
	s.mu.Lock()
	c := s.convs[conv]
	if c == nil {
		c = &fakeConv{}
		s.convs[conv] = c
	}
	if c.seq+1 == s.promote && !c.promoted {
		c.promoted = true
		c.seq -= s.forget
		c.log = c.log[:c.seq]
		for _, u := range []*fakeUser{s.users[uid], s.users[to]} {
			u.mu.Lock()
			u.epoch, u.version = 2, 1 // the conversation
			u.mu.Unlock()
		}
	}
	c.seq++
	m := &im.Message{Conv: conv, Seq: c.seq, Sender: uid, Data: data}
	c.log = append(c.log, m)
	seq := c.seq
	s.mu.Unlock()
	s.push(s.user(to), conv, m)
	if seq == s.double {
		s.mu.Lock()
		c.seq++
		again := &im.Message{Conv: conv, Seq: c.seq, Sender: uid, Data: data}
		c.log = append(c.log, again)
		s.mu.Unlock()
		s.push(s.user(to), conv, again)
	}
	u := s.user(uid)
	u.mu.Lock()
	u.version++
	ack := &im.SendAck{Conv: conv, Seq: seq, Epoch: u.epoch, Version: u.version}
	u.mu.Unlock()
	s.write(u, f, 0, ack)
}

// sync answers with the user's one conversation, without messages.
func (s *fakeServer) sync(uid string, f wire.Frame) *im.SyncRsp {
	var req im.Sync
	_ = req.Unmarshal(f.Body)
	pair := strings.TrimRight(uid, "ab")
	conv := "p:" + pair + "a:" + pair + "b"
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[uid]
	u.mu.Lock()
	defer u.mu.Unlock()
	rsp := &im.SyncRsp{Epoch: u.epoch, Head: u.version}
	if rsp.MustReset = req.Cursor > 0 && req.Epoch != u.epoch || req.Cursor > u.version; rsp.MustReset {
		return rsp
	}
	rsp.NextCursor = u.version
	if c := s.convs[conv]; c != nil && req.Cursor < u.version {
		rsp.Changes = []*im.Conversation{{Conv: conv, Version: u.version, LastSeq: c.seq}}
	}
	return rsp
}

func (s *fakeServer) push(u *fakeUser, conv string, m *im.Message) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m.Seq == s.lose {
		// The receiver must believe that there is nothing: this seq is an empty event.
		m.Data = nil
	}
	if m.Seq == s.swap && u.held == nil {
		u.held = &im.Conversation{Conv: conv, LastSeq: m.Seq + 1, Messages: []*im.Message{m}}
		return
	}
	changes := []*im.Conversation{{Conv: conv, LastSeq: m.Seq, Messages: []*im.Message{m}}}
	if u.held != nil { // both, with each other's place in the log
		first := u.held
		first.Messages[0].Data, m.Data = m.Data, first.Messages[0].Data
		changes = []*im.Conversation{first, changes[0]}
		u.held = nil
	}
	for _, c := range changes {
		u.version++
		c.Version = u.version
	}
	encoded, err := (&im.Push{Epoch: u.epoch, Changes: changes}).Marshal(nil)
	if err != nil {
		s.t.Error(err)
	}
	_, _ = u.nc.Write(wire.Append(nil, &wire.Frame{Cmd: im.Cmd_PUSH, Flags: wire.FlagOneWay, Body: encoded}))
}

func (s *fakeServer) history(uid string, f wire.Frame) {
	var req im.History
	_ = req.Unmarshal(f.Body)
	s.mu.Lock()
	var rsp im.HistoryRsp
	if c := s.convs[req.Conv]; c != nil {
		for _, m := range c.log {
			if m.Seq >= req.FromSeq && m.Seq <= req.ToSeq {
				rsp.Messages = append(rsp.Messages, m)
			}
		}
	}
	s.mu.Unlock()
	s.write(s.user(uid), f, 0, &rsp)
}
