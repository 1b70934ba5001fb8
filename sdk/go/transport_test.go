package hongyan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// serveTCP lets the toy serve a real socket.
func (t *toy) serveTCP(tb testing.TB) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go (&toySession{toy: t, conn: c, wire: newStream(c), out: make(chan Frame, 4096)}).serve()
		}
	}()
	return l.Addr().String()
}

// serveWebSocket bridges binary messages to the toy; one of them is split, and pinged.
func (t *toy) serveWebSocket(tb testing.TB) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != socketPath {
			http.NotFound(w, r)
			return
		}
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		pipe, server := net.Pipe()
		go (&toySession{toy: t, conn: server, wire: newStream(server), out: make(chan Frame, 4096)}).serve()
		go func() {
			defer pipe.Close()
			for {
				b, err := wsutil.ReadClientBinary(conn)
				if err != nil {
					return
				}
				_, _ = pipe.Write(b)
			}
		}()
		in := newStream(pipe)
		for {
			frames, err := in.Read(nil)
			for _, f := range frames {
				b := wire.Append(nil, &f)
				_ = ws.WriteFrame(conn, ws.NewPingFrame([]byte("hi")))
				_ = ws.WriteFrame(conn, ws.NewFrame(ws.OpBinary, false, b[:5]))
				_ = ws.WriteFrame(conn, ws.NewFrame(ws.OpContinuation, true, b[5:]))
				if f.Cmd == im.Cmd_KICK {
					_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(4402, "replaced")))
				}
			}
			if err != nil {
				return
			}
		}
	}))
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// servePoll is the long poll over the toy: one session per sid, changes kept until the
// next poll's cursor confirms them.
func (t *toy) servePoll(tb testing.TB) (addr string) {
	p := &toyPolls{toy: t, sessions: map[string]*toyPoll{}}
	var err error
	if p.json, err = wire.NewJSON(); err != nil {
		tb.Fatal(err)
	}
	s := httptest.NewServer(p)
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

type toyPolls struct {
	*toy
	json     *wire.JSON
	mu       sync.Mutex
	sessions map[string]*toyPoll
}

type toyPoll struct {
	pipe    *tcpConn
	writing sync.Mutex
	mu      sync.Mutex
	changes []*im.Conversation
	answers map[uint32]chan Frame
	came    chan struct{}
	lose    int // answers to polls that get lost
}

func (p *toyPolls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch r.URL.Path {
	case "/v1/lp/open":
		p.open(w, body)
	case "/v1/lp/poll":
		p.poll(w, r, body)
	case "/v1/lp/send":
		p.send(w, body)
	case "/v1/lp/close":
		_, _ = io.WriteString(w, "{}")
	default:
		http.NotFound(w, r)
	}
}

func (p *toyPolls) open(w http.ResponseWriter, body []byte) {
	b, _ := p.json.ToProto("hongyan.im.LpOpen", body)
	req := decode(&Frame{Body: b}, &im.LpOpen{})
	client, server := net.Pipe()
	go (&toySession{toy: p.toy, conn: server, wire: newStream(server), out: make(chan Frame, 4096)}).serve()
	s := &toyPoll{pipe: newStream(client), answers: map[uint32]chan Frame{}, came: make(chan struct{}, 1), lose: 1}
	go s.read()
	auth, _ := (&im.Auth{Token: req.Token, Epoch: req.Epoch, Cursor: req.Cursor, ConnectionCounter: req.ConnectionCounter, Device: req.Device}).Marshal(nil)
	f := s.ask(Frame{Cmd: im.Cmd_AUTH, Seq: 1, Body: auth})
	if f.Status != 0 {
		w.WriteHeader(f.Status.HTTP())
		_ = json.NewEncoder(w).Encode(map[string]any{"code": f.Status, "message": "no"})
		return
	}
	p.mu.Lock()
	p.sessions[req.Device] = s
	p.mu.Unlock()
	p.reply(w, "LpOpenRsp", &im.LpOpenRsp{Sid: req.Device, HoldS: 1, Auth: decode(&f, &im.AuthAck{})})
}

func (p *toyPolls) reply(w http.ResponseWriter, name string, m encoder) {
	b, _ := m.Marshal(nil)
	text, _ := p.json.FromProto("hongyan.im."+name, b)
	_, _ = w.Write(text)
}

func (s *toyPoll) read() {
	for {
		frames, err := s.pipe.Read(nil)
		s.mu.Lock()
		for _, f := range frames {
			if f.Cmd == im.Cmd_PUSH {
				s.changes = append(s.changes, decode(&f, &im.Push{}).Changes...)
				signal(s.came)
			} else if a := s.answers[f.Seq]; a != nil {
				a <- f
			}
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *toyPoll) ask(f Frame) Frame {
	a := make(chan Frame, 1)
	s.mu.Lock()
	s.answers[f.Seq] = a
	s.mu.Unlock()
	s.write(f)
	return <-a
}

func (s *toyPoll) write(f Frame) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.pipe.Write([]Frame{f})
}

func (p *toyPolls) session(sid string) *toyPoll {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[sid]
}

func (p *toyPolls) poll(w http.ResponseWriter, r *http.Request, body []byte) {
	b, _ := p.json.ToProto("hongyan.im.LpPoll", body)
	req := decode(&Frame{Body: b}, &im.LpPoll{})
	s := p.session(req.Sid)
	ack, _ := (&im.PushAck{Epoch: req.Epoch, Cursor: req.Cursor}).Marshal(nil)
	s.write(Frame{Cmd: im.Cmd_PUSH_ACK, Body: ack})
	for range 2 {
		s.mu.Lock()
		s.changes = slices.DeleteFunc(s.changes, func(c *im.Conversation) bool { return c.Version <= req.Cursor })
		list, lost := slices.Clone(s.changes), false
		if len(list) > 0 && s.lose > 0 {
			s.lose--
			lost = true
		}
		s.mu.Unlock()
		switch {
		case lost:
			panic(http.ErrAbortHandler)
		case len(list) > 0:
			p.reply(w, "LpPollRsp", &im.LpPollRsp{Epoch: 1, Changes: list, NextCursor: list[len(list)-1].Version})
			return
		}
		select {
		case <-s.came:
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
	}
	_, _ = io.WriteString(w, "{}")
}

func (p *toyPolls) send(w http.ResponseWriter, body []byte) {
	var req struct {
		Sid     string
		Command json.RawMessage
	}
	_ = json.Unmarshal(body, &req)
	f, err := p.json.DecodeText(req.Command, maxBody)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if f.Flags&wire.FlagOneWay != 0 {
		_, _ = io.WriteString(w, "{}")
		return
	}
	rsp := p.session(req.Sid).ask(f)
	text, _ := p.json.EncodeText(&rsp)
	_, _ = w.Write(text)
}

// TestTransports runs one conversation over each transport, over real sockets.
func TestTransports(t *testing.T) {
	for name, serve := range map[string]func(*toy, testing.TB) string{
		"tcp": (*toy).serveTCP, "ws": (*toy).serveWebSocket, "http": (*toy).servePoll,
	} {
		t.Run(name, func(t *testing.T) {
			s := newToy()
			target := name + "://" + serve(s, t)
			over := func(o *Options) { o.Endpoints, o.Dialers = []string{target}, nil }
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			alice, _ := newClient(t, s, "alice", over)
			defer alice.Close()
			got := make(chan string, 100)
			bob, _ := newClient(t, s, "bob", over, func(o *Options) { o.On.Message = func(m *Message) { got <- m.Text } })
			defer bob.Close()
			for _, c := range []*Client{alice, bob} {
				if err := c.Connect(ctx); err != nil {
					t.Fatal(err)
				}
			}
			long := strings.Repeat("long ", 20_000)
			for _, text := range []string{"one", long, "three"} {
				if _, err := alice.Send(ctx, Outgoing{To: "bob", Text: text}); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range []string{"one", long, "three"} {
				select {
				case text := <-got:
					if text != want {
						t.Fatalf("got %.20q, want %.20q", text, want)
					}
				case <-ctx.Done():
					t.Fatal("nothing came")
				}
			}
			if list, _, err := bob.History(ctx, "p:alice:bob", HistoryQuery{Limit: 10}); err != nil || len(list) != 3 {
				t.Fatalf("history: %d, %v", len(list), err)
			}
			if _, err := bob.Call(ctx, "nothing", nil); code.Of(err) != code.Unsupported {
				t.Fatalf("a refused call: %v", err)
			}
			waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.acked["bob"] == 3 })
		})
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen")
}

func TestCloseCodesOfWebSocket(t *testing.T) {
	s := newToy()
	endpoint, _ := url.Parse("ws://" + s.serveWebSocket(t))
	c, err := dialWebSocket(t.Context(), endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(0, "")
	auth, _ := (&im.Auth{Token: "alice"}).Marshal(nil)
	if err := c.Write([]Frame{{Cmd: im.Cmd_AUTH, Seq: 1, Body: auth}}); err != nil {
		t.Fatal(err)
	}
	frames, err := c.Read(nil)
	if err != nil || len(frames) != 1 || frames[0].Seq != 1 {
		t.Fatalf("got %v, %v", frames, err)
	}
	for _, ss := range s.online() {
		ss.frame(im.Cmd_KICK, wire.FlagOneWay, 0, 0, &im.Kick{Code: 4402})
	}
	for {
		if _, err = c.Read(nil); err != nil {
			break
		}
	}
	if code.Of(err) != code.CloseReplaced {
		t.Fatalf("ended with %v", err)
	}
}

// chunks is a connection that brings bytes in pieces.
type chunks struct {
	net.Conn
	b    []byte
	size int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(len(c.b), c.size)])
	c.b = c.b[n:]
	return n, nil
}

// FuzzStream reads whatever bytes as a stream of frames, in pieces of some size: no panic,
// the same frames whatever the pieces, and nothing allocated for a body that is too large.
func FuzzStream(f *testing.F) {
	good := wire.Append(wire.Append(nil, &Frame{Cmd: im.Cmd_PUSH, Body: []byte("body")}), &Frame{Cmd: im.Cmd_PING, Seq: 7})
	f.Add(good, uint8(3))
	f.Add(append(good, 0xA7, 0x14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), uint8(255))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		read := func(size int) (frames []Frame, err error) {
			c := newStream(&chunks{b: bytes.Clone(stream), size: size})
			for err == nil {
				frames, err = c.Read(frames)
			}
			if cap(c.in) > len(stream)+2*readSize+512 {
				t.Fatalf("%d bytes buffered for a stream of %d", cap(c.in), len(stream))
			}
			return frames, err
		}
		whole, errWhole := read(len(stream) + 1)
		parts, errParts := read(int(size) + 1)
		if len(whole) != len(parts) || errors.Is(errWhole, io.EOF) != errors.Is(errParts, io.EOF) {
			t.Fatalf("%d frames, %v; in pieces %d, %v", len(whole), errWhole, len(parts), errParts)
		}
		for i := range whole {
			if whole[i].Cmd != parts[i].Cmd || whole[i].Seq != parts[i].Seq || !bytes.Equal(whole[i].Body, parts[i].Body) {
				t.Fatalf("frame %d: %+v, in pieces %+v", i, whole[i], parts[i])
			}
		}
	})
}

// FuzzWebSocket reads whatever bytes as WebSocket frames of a server.
func FuzzWebSocket(f *testing.F) {
	var b bytes.Buffer
	_ = ws.WriteFrame(&b, ws.NewPingFrame([]byte("x")))
	_ = ws.WriteFrame(&b, ws.NewBinaryFrame(wire.Append(nil, &Frame{Cmd: im.Cmd_PING, Seq: 7})))
	_ = ws.WriteFrame(&b, ws.NewCloseFrame(ws.NewCloseFrameBody(4402, "x")))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := newWebSocket(&sink{chunks{b: stream, size: 100}}, nil)
		for err := error(nil); err == nil; {
			_, err = c.Read(nil)
		}
	})
}

// sink takes what is written.
type sink struct{ chunks }

func (s *sink) Write(b []byte) (int, error)      { return len(b), nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Close() error                     { return nil }
