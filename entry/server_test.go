package entry_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/entry"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/gate"
	"hongyan/internal/netloop"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

func TestMain(m *testing.M) {
	if err := netloop.Setup(nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if n := os.Getenv(idleClientsEnv); n != "" {
		os.Exit(holdIdleClients(n))
	}
	os.Exit(m.Run())
}

// verifier takes any token as "uid/device".
type verifier struct{}

func (verifier) Verify(text string) (token.Claims, error) {
	uid, device, ok := strings.Cut(text, "/")
	if !ok {
		return token.Claims{}, code.Errorf(code.BadToken, "no good")
	}
	return token.Claims{Tenant: "demo", UID: uid, Device: device}, nil
}

// logic logs everybody in and echoes the body of every other request. What the embedded
// interface holds is not called by gateways.
type logic struct {
	tier.Logic
	server *entry.Server

	mu    sync.Mutex
	conns map[string]uint64 // by uid
	ips   map[string]string // by uid
}

func (l *logic) Uplink(ctx context.Context, b *tier.UplinkBatch) (*tier.Accepted, error) {
	var down tier.DownlinkBatch
	for _, u := range b.Items {
		if u.Event != tier.Uplink_PACKET {
			continue
		}
		answer := &tier.Down{Conn: u.Conn, Cmd: u.Cmd, Seq: u.Seq, Response: true, Body: u.Body}
		if im.Cmd(u.Cmd) == im.Cmd_AUTH {
			l.mu.Lock()
			l.conns[u.Uid], l.ips[u.Uid] = u.Conn, u.Ip
			l.mu.Unlock()
			answer.SessionEpoch = 1
			answer.Body, _ = (&im.AuthAck{Uid: u.Uid, HeartbeatS: 25}).Marshal(nil)
		}
		down.Items = append(down.Items, answer)
	}
	if len(down.Items) > 0 {
		if _, err := l.server.Downlink(ctx, &down); err != nil {
			return nil, err
		}
	}
	return &tier.Accepted{}, nil
}

func (l *logic) Renew(context.Context, *tier.RenewBatch) (*tier.RenewReply, error) {
	return &tier.RenewReply{}, nil
}

func (l *logic) conn(uid string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[uid]
}

// serve starts a server on a free port; it is stopped with the test, or by stop.
func serve(t testing.TB, change func(*entry.Config)) (s *entry.Server, l *logic, stop func()) {
	t.Helper()
	center, err := local.New(map[string]control.Members{"logic": {Slots: 1,
		Instances: []control.Instance{{Tier: "logic", Addr: "logic-0", Boot: "b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	l = &logic{conns: map[string]uint64{}, ips: map[string]string{}}
	pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return l, nil }, route.PoolOptions{})
	json, err := wire.NewJSON()
	if err != nil {
		t.Fatal(err)
	}
	cfg := entry.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Gate.DrainDelay = 0
	if change != nil {
		change(&cfg)
	}
	s, err = entry.New(cfg, entry.Deps{JSON: json, Gate: gate.Deps{
		Logics: pool, Keys: verifier{}, Self: control.Instance{Tier: "entry", Addr: "entry-1", Boot: "b"}, Version: "test",
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.server = s
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = pool.Run(ctx) })
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return s, l, stop
}

// client speaks frames over TCP.
type client struct {
	t    testing.TB
	conn net.Conn
	buf  []byte
	seq  uint32
}

func dial(t testing.TB, s *entry.Server) *client {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn}
}

type message interface {
	Marshal([]byte) ([]byte, error)
	Unmarshal([]byte) error
}

func encode(t testing.TB, m message) []byte {
	t.Helper()
	b, err := m.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *client) frame(cmd im.Cmd, m message) []byte {
	c.t.Helper()
	c.seq++
	return wire.Append(nil, &wire.Frame{Cmd: cmd, Seq: c.seq, Body: encode(c.t, m)})
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next frame, io.EOF behind the last.
func (c *client) read() (wire.Frame, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		f, n, err := wire.Decode(c.buf, 64<<20)
		if err == nil {
			c.buf = c.buf[n:]
			return f, nil
		}
		if !errors.Is(err, wire.ErrShort) {
			return f, err
		}
		chunk := make([]byte, 64<<10)
		n, err = c.conn.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		if err != nil {
			return f, err
		}
	}
}

func (c *client) mustRead(cmd im.Cmd) wire.Frame {
	c.t.Helper()
	f, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", cmd, err)
	}
	if f.Cmd != cmd {
		c.t.Fatalf("got %s %d %q, want %s", f.Cmd, f.Status, f.Body, cmd)
	}
	return f
}

func (c *client) login(uid string) {
	c.t.Helper()
	c.write(c.frame(im.Cmd_AUTH, &im.Auth{Token: uid + "/d1"}))
	if f := c.mustRead(im.Cmd_AUTH); f.Status != 0 {
		c.t.Fatalf("login: %d", f.Status)
	}
}

// expectEnd reads an ERROR with the close code, and then the end.
func (c *client) expectEnd(want code.Code) {
	c.t.Helper()
	var e im.Error
	if err := e.Unmarshal(c.mustRead(im.Cmd_ERROR).Body); err != nil || code.Code(e.Code) != want {
		c.t.Errorf("closed with %d %s, want %d", e.Code, e.Message, want)
	}
	if _, err := c.read(); !errors.Is(err, io.EOF) {
		c.t.Errorf("behind the last frame: %v", err)
	}
}

func TestJM06ASession(t *testing.T) {
	s, l, _ := serve(t, nil)
	c := dial(t, s)
	c.write(c.frame(im.Cmd_HELLO, &im.Hello{Device: "phone", Platform: "ios"}))
	var hello im.HelloAck
	if err := hello.Unmarshal(c.mustRead(im.Cmd_HELLO).Body); err != nil || hello.Suite != "plain" || hello.ServerVersion != "test" {
		t.Errorf("HELLO_ACK %+v, %v", hello, err)
	}
	c.login("alice")
	c.write(c.frame(im.Cmd_SEND, &im.Send{ClientMsgId: "m1", Text: "hello"}))
	if f := c.mustRead(im.Cmd_SEND); f.Seq != c.seq || f.Flags&wire.FlagResponse == 0 {
		t.Errorf("SEND answered %+v", f)
	}
	change := encode(t, &im.Conversation{Conv: "p:alice:bob", Version: 1, Messages: []*im.Message{{Text: "hi"}}})
	down := &tier.DownlinkBatch{Items: []*tier.Down{
		{Conn: l.conn("alice"), Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Version: 1, Body: change},
		{Conn: 12345, Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Version: 1, Body: change},
	}}
	reply, err := s.Downlink(context.Background(), down)
	if err != nil || len(reply.Gone) != 1 || reply.Gone[0] != 12345 {
		t.Errorf("downlink: %v, %v", reply, err)
	}
	var push im.Push
	if err := push.Unmarshal(c.mustRead(im.Cmd_PUSH).Body); err != nil || push.Changes[0].Messages[0].Text != "hi" {
		t.Errorf("PUSH %+v, %v", push, err)
	}
}

func TestFramesInAnyPieces(t *testing.T) {
	s, _, _ := serve(t, nil)
	c := dial(t, s)
	c.login("alice")
	big := bytes.Repeat([]byte("x"), 100_000)
	var stream []byte
	for i := range 5 {
		stream = append(stream, c.frame(im.Cmd_SEND, &im.Send{Text: fmt.Sprint(i), Data: big[:i*i*6000]})...)
	}
	for _, size := range []int{1, 7, 16, 17, 1000, 70_000, len(stream)} {
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			if size == 1 && len(rest) < len(stream)-100 {
				n = min(3000, len(rest)) // single bytes are slow: only at the start
			}
			c.write(rest[:n])
			rest = rest[n:]
			if size < 1000 && len(rest) > len(stream)-100 {
				time.Sleep(100 * time.Microsecond)
			}
		}
		for i := range 5 {
			var got im.Send
			if err := got.Unmarshal(c.mustRead(im.Cmd_SEND).Body); err != nil || got.Text != fmt.Sprint(i) || len(got.Data) != i*i*6000 {
				t.Fatalf("in pieces of %d: frame %d came as %q with %d bytes, %v", size, i, got.Text, len(got.Data), err)
			}
		}
	}
}

func TestJSONFrames(t *testing.T) {
	s, l, _ := serve(t, nil)
	c := dial(t, s)
	do := func(cmd im.Cmd, body string) wire.Frame {
		t.Helper()
		c.seq++
		c.write(wire.Append(nil, &wire.Frame{Cmd: cmd, Seq: c.seq, Codec: wire.CodecJSON, Body: []byte(body)}))
		return c.mustRead(cmd)
	}
	if f := do(im.Cmd_AUTH, `{"token":"alice/d1"}`); f.Codec != wire.CodecJSON || string(f.Body) != `{"uid":"alice","heartbeatS":25}` {
		t.Errorf("AUTH answered %d %q", f.Codec, f.Body)
	}
	if f := do(im.Cmd_SEND, `{"text":"hi","nonsense":1}`); f.Status != code.BadRequest || !bytes.Contains(f.Body, []byte("nonsense")) {
		t.Errorf("an unknown field is answered %d %s", f.Status, f.Body)
	}
	if f := do(im.Cmd_CALL, `{"name":"x"}`); f.Status != 0 {
		t.Errorf("CALL answered %d %s", f.Status, f.Body)
	}
	change := encode(t, &im.Conversation{Conv: "p:alice:bob", Version: 1 << 60})
	_, err := s.Downlink(context.Background(), &tier.DownlinkBatch{Items: []*tier.Down{
		{Conn: l.conn("alice"), Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Version: 1, Body: change}}})
	if err != nil {
		t.Fatal(err)
	}
	if f := c.mustRead(im.Cmd_PUSH); string(f.Body) != `{"epoch":"1","changes":[{"conv":"p:alice:bob","version":"1152921504606846976"}]}` {
		t.Errorf("PUSH %s", f.Body)
	}
	c.write(c.frame(im.Cmd_UNREAD, &im.Unread{})) // and back to protobuf
	if f := c.mustRead(im.Cmd_UNREAD); f.Codec != wire.CodecProto {
		t.Errorf("a protobuf request is answered in codec %d", f.Codec)
	}
}

func TestP21P22BadBytesCloseWithACode(t *testing.T) {
	huge := func(cmd im.Cmd, size uint32) []byte {
		return binary.BigEndian.AppendUint32(wire.AppendHeader(nil, &wire.Frame{Cmd: cmd}, 0)[:12], size)
	}
	tests := []struct {
		name  string
		login bool
		in    []byte
		want  code.Code
	}{
		{"HTTP", false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), code.CloseProtocolError},
		{"TLS", false, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}, code.CloseProtocolError},
		{"a version to come", false, []byte{0xA7, 0x24, 0, 0}, code.CloseProtocolError},
		{"a large body before AUTH", false, huge(im.Cmd_AUTH, 4<<10+1), code.CloseTooLarge},
		{"a huge body after AUTH", true, huge(im.Cmd_SEND, 256<<10+1), code.CloseTooLarge},
		{"the largest number", true, huge(im.Cmd_SEND, 1<<32-1), code.CloseTooLarge},
		{"a command before AUTH", false, wire.Append(nil, &wire.Frame{Cmd: im.Cmd_SEND}), code.CloseProtocolError},
		{"AUTH that is no message", false, wire.Append(nil, &wire.Frame{Cmd: im.Cmd_AUTH, Body: []byte{0xff}}), code.CloseProtocolError},
	}
	s, _, _ := serve(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			if tt.login {
				c.login("alice")
			}
			// What follows in the same stream must not destroy the last frame.
			c.write(append(tt.in, bytes.Repeat([]byte{0xff}, 50_000)...))
			c.expectEnd(tt.want)
		})
	}
	t.Run("compressed and encrypted frames are refused, not followed", func(t *testing.T) {
		c := dial(t, s)
		c.login("alice")
		c.write(wire.Append(nil, &wire.Frame{Cmd: im.Cmd_SEND, Seq: 9, Flags: wire.FlagCompressed, Body: []byte("zip bomb")}))
		if f := c.mustRead(im.Cmd_SEND); f.Status != code.Unsupported || f.Seq != 9 {
			t.Errorf("answered %+v", f)
		}
		c.write(c.frame(im.Cmd_PING, &im.Ping{}))
		c.mustRead(im.Cmd_PING)
	})
}

func TestMoreConnectionsThanAllowed(t *testing.T) {
	s, _, _ := serve(t, func(c *entry.Config) { c.MaxConnections = 2 })
	first, second := dial(t, s), dial(t, s)
	first.login("alice")
	second.login("bob")
	dial(t, s).expectEnd(code.CloseOverloaded)
	_ = first.conn.Close()
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c := dial(t, s)
		c.write(c.frame(im.Cmd_PING, &im.Ping{}))
		if f, err := c.read(); err == nil && f.Cmd == im.Cmd_PING {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a place that was given back is not free")
		}
	}
}

// P17: a client that does not read costs its sender nothing, and gets everything in order
// when it reads again.
func TestP17ASlowReaderBlocksNobody(t *testing.T) {
	s, l, _ := serve(t, func(c *entry.Config) { c.Gate.SlowBytes = 32 << 20 })
	slow, quick := dial(t, s), dial(t, s)
	slow.login("slow")
	quick.login("quick")
	body := encode(t, &im.HistoryRsp{Messages: []*im.Message{{Data: make([]byte, 60_000)}}})
	const n = 300 // 18 MB: more than the kernel's buffers of both ends
	for i := range n {
		answers(t, s, uint32(i), body, l.conn("slow"))
		answers(t, s, uint32(i), nil, l.conn("quick"))
		quick.mustRead(im.Cmd_HISTORY)
	}
	for i := range n {
		if f := slow.mustRead(im.Cmd_HISTORY); f.Seq != uint32(i) || !bytes.Equal(f.Body, body) {
			t.Fatalf("answer %d came as %d, %d bytes", i, f.Seq, len(f.Body))
		}
	}
	answers(t, s, n, nil, l.conn("slow"))
	slow.mustRead(im.Cmd_HISTORY)
}

func TestP17WhoAsksAndNeverReadsIsClosed(t *testing.T) {
	s, l, _ := serve(t, nil)
	slow := dial(t, s)
	slow.login("slow")
	body := make([]byte, 60_000)
	for i := range 1000 {
		if gone := answers(t, s, uint32(i), body, l.conn("slow")); gone {
			return
		}
	}
	t.Error("60 MB wait for a client that does not read")
}

// answers delivers a response, at once whatever the client does, and tells whether the
// client is gone.
func answers(t *testing.T, s *entry.Server, seq uint32, body []byte, conn uint64) bool {
	t.Helper()
	start := time.Now()
	reply, err := s.Downlink(context.Background(), &tier.DownlinkBatch{Items: []*tier.Down{
		{Conn: conn, Cmd: uint32(im.Cmd_HISTORY), Seq: seq, Response: true, Body: body}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("a call took %v", d)
	}
	return len(reply.Gone) > 0
}

func TestPlaintextIsForLoopbackUnlessToldSo(t *testing.T) {
	for listen, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true,
		"0.0.0.0:0": false, ":0": false, "10.0.0.1:7000": false, "im.example.com:7000": false, "nonsense": false,
	} {
		cfg := entry.DefaultConfig()
		cfg.Listen = listen
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", listen, err)
		}
		cfg.Plaintext = true
		if err := cfg.Validate(); err != nil && listen != "nonsense" {
			t.Errorf("%s, told so: %v", listen, err)
		}
	}
}

func TestABusyPortIsAnError(t *testing.T) {
	s, _, _ := serve(t, nil)
	cfg := entry.DefaultConfig()
	cfg.Listen = s.Addr().String()
	json, err := wire.NewJSON()
	if err != nil {
		t.Fatal(err)
	}
	center, err := local.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return nil, nil }, route.PoolOptions{})
	_, err = entry.New(cfg, entry.Deps{JSON: json, Gate: gate.Deps{Logics: pool, Keys: verifier{}}})
	if err == nil || !strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %v", err)
	}
}

func TestStopTellsEveryClient(t *testing.T) {
	s, _, stop := serve(t, nil)
	var clients []*client
	for i := range 50 {
		c := dial(t, s)
		c.login(fmt.Sprint("user", i))
		clients = append(clients, c)
	}
	start := time.Now()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	for _, c := range clients {
		c.mustRead(im.Cmd_GOAWAY)
		c.expectEnd(code.CloseShutdown)
		_ = c.conn.Close()
	}
	<-stopped
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("stopped after %v", d)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("still listening")
	}
}
