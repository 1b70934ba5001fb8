package httpentry_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"hongyan/httpentry"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/wire"
)

// wsClient is the client's end of a WebSocket.
type wsClient struct {
	t *testing.T
	net.Conn
	r io.Reader
}

func (w *world) socket(header ...string) *wsClient {
	w.t.Helper()
	c, r, err := w.trySocket(header...)
	if err != nil {
		w.t.Fatal(err)
	}
	return &wsClient{w.t, c, r}
}

func (w *world) trySocket(header ...string) (net.Conn, io.Reader, error) {
	h := ws.HandshakeHeaderHTTP{}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = []string{header[i+1]}
	}
	c, buffered, _, err := ws.Dialer{Header: h, Timeout: 5 * time.Second}.Dial(context.Background(), "ws"+strings.TrimPrefix(w.url, "http")+"/v1/ws")
	if err != nil {
		return nil, nil, err
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	var r io.Reader = c
	if buffered != nil {
		r = io.MultiReader(bytes.NewReader(rest(buffered)), c)
	}
	return c, r, nil
}

func rest(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return bytes.Clone(b)
}

// text sends a text message and returns the next one.
func (c *wsClient) text(message string) string {
	c.t.Helper()
	c.message(ws.OpText, []byte(message))
	return string(c.next(ws.OpText))
}

func (c *wsClient) message(op ws.OpCode, payload []byte) {
	c.t.Helper()
	if err := wsutil.WriteClientMessage(c.Conn, op, payload); err != nil {
		c.t.Fatal(err)
	}
}

// readFrame reads one frame of the server.
func readFrame(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err == nil {
		f.Payload = make([]byte, f.Header.Length)
		_, err = io.ReadFull(r, f.Payload)
	}
	return f, err
}

// next reads the payload of the next frame, which must be op.
func (c *wsClient) next(op ws.OpCode) []byte {
	c.t.Helper()
	f, err := readFrame(c.r)
	if err != nil {
		c.t.Fatalf("no frame: %v", err)
	}
	if f.Header.OpCode != op || f.Header.Masked || !f.Header.Fin {
		c.t.Fatalf("frame %+v %q, want opcode %d", f.Header, f.Payload, op)
	}
	return f.Payload
}

// wantClose reads until the close frame.
func (c *wsClient) wantClose(status int) {
	c.t.Helper()
	for {
		f, err := readFrame(c.r)
		if err != nil {
			c.t.Fatalf("no close frame: %v", err)
		}
		if f.Header.OpCode != ws.OpClose {
			continue
		}
		if got := int(binary.BigEndian.Uint16(f.Payload)); got != status {
			c.t.Fatalf("closed with %d %q, want %d", got, f.Payload[2:], status)
		}
		if _, err := c.r.Read(make([]byte, 1)); err == nil {
			c.t.Fatal("something follows the close frame")
		}
		return
	}
}

func (c *wsClient) login() string {
	return c.text(`{"cmd":"AUTH","seq":1,"body":{"token":"alice/phone","platform":"web"}}`)
}

// MF-02: WebSocket access. Login, a request, a push and its ack in text form.
func TestMF02WebSocketText(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	if got := c.text(`{"cmd":"HELLO","seq":1,"body":{"clientVersion":"1"}}`); !strings.Contains(got, `"suite":"plain"`) {
		t.Fatal(got)
	}
	if got := c.login(); !strings.Contains(got, `"uid":"alice"`) || !strings.Contains(got, `"response":true`) {
		t.Fatal(got)
	}
	w.logic.answers(func(u *tier.Uplink) *tier.Down {
		body, _ := (&im.SendAck{Conv: "p:alice:bob", Seq: 1}).Marshal(nil)
		return &tier.Down{Body: body}
	}, nil)
	if got := c.text(`{"cmd":"SEND","seq":9,"body":{"to":"bob","text":"hi","clientMsgId":"m1","attempt":1}}`); got !=
		`{"cmd":"SEND","seq":9,"response":true,"body":{"conv":"p:alice:bob","seq":"1"}}` {
		t.Fatal(got)
	}
	w.logic.push("alice", 1, "hello alice")
	var push struct {
		Cmd  string
		Body struct{ Changes []json.RawMessage }
	}
	if err := json.Unmarshal(c.next(ws.OpText), &push); err != nil || push.Cmd != "PUSH" || len(push.Body.Changes) != 1 {
		t.Fatalf("%+v, %v", push, err)
	}
	c.message(ws.OpText, []byte(`{"cmd":"PUSH_ACK","oneWay":true,"body":{"epoch":"1","cursor":"1"}}`))
	eventually(t, "the ack reaches logic", func() bool {
		w.logic.mu.Lock()
		defer w.logic.mu.Unlock()
		for _, u := range w.logic.uplinks {
			if u.Event == tier.Uplink_CURSOR && u.Cursor == 1 {
				return true
			}
		}
		return false
	})
}

// MF-02, JM-08: the same in binary form, one frame a message.
func TestMF02WebSocketBinary(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	body, _ := (&im.Auth{Token: "alice/phone"}).Marshal(nil)
	c.message(ws.OpBinary, wire.Append(nil, &wire.Frame{Cmd: im.Cmd_AUTH, Seq: 7, Body: body}))
	payload := c.next(ws.OpBinary)
	f, n, err := wire.Decode(payload, 1<<20)
	if err != nil || n != len(payload) || f.Cmd != im.Cmd_AUTH || f.Seq != 7 || f.Flags&wire.FlagResponse == 0 {
		t.Fatalf("%+v, %d of %d, %v", f, n, len(payload), err)
	}
	c.message(ws.OpBinary, wire.Append(nil, &wire.Frame{Cmd: im.Cmd_READ, Seq: 8, Codec: wire.CodecJSON, Body: []byte(`{"conv":"p:a:b","seq":"3"}`)}))
	eventually(t, "READ reaches logic", func() bool { return len(w.logic.took(im.Cmd_READ)) == 1 })
	read := new(im.Read)
	if err := read.Unmarshal(w.logic.took(im.Cmd_READ)[0].Body); err != nil || read.Seq != 3 {
		t.Fatalf("%+v, %v", read, err)
	}
}

func TestWebSocketFragmentsAndControlFrames(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	login := []byte(`{"cmd":"AUTH","seq":1,"body":{"token":"alice/phone"}}`)
	write := func(op ws.OpCode, fin bool, payload []byte) {
		if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewFrame(op, fin, bytes.Clone(payload)))); err != nil {
			t.Fatal(err)
		}
	}
	write(ws.OpText, false, login[:10])
	write(ws.OpPing, true, []byte("between"))
	if got := string(c.next(ws.OpPong)); got != "between" {
		t.Fatalf("pong %q", got)
	}
	write(ws.OpContinuation, false, login[10:11])
	write(ws.OpContinuation, false, nil)
	write(ws.OpPong, true, nil)
	write(ws.OpContinuation, true, login[11:])
	if got := string(c.next(ws.OpText)); !strings.Contains(got, "alice") {
		t.Fatal(got)
	}
	write(ws.OpClose, true, ws.NewCloseFrameBody(1000, "bye"))
	c.wantClose(1000)
}

func TestWebSocketViolationsCloseWithACode(t *testing.T) {
	w := newWorld(t, nil)
	frame := func(op ws.OpCode, fin bool, payload string) []byte {
		var b bytes.Buffer
		_ = ws.WriteFrame(&b, ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload))))
		return b.Bytes()
	}
	unmasked, _ := ws.CompileFrame(ws.NewTextFrame([]byte("{}")))
	for name, c := range map[string]struct {
		bytes  []byte
		status int
	}{
		"not masked":              {unmasked, 1002},
		"reserved bit":            {append([]byte{0xc1}, frame(ws.OpText, true, "{}")[1:]...), 1002},
		"reserved opcode":         {frame(3, true, ""), 1002},
		"continuation of nothing": {frame(ws.OpContinuation, true, "x"), 1002},
		"text within a message":   {append(frame(ws.OpText, false, "a"), frame(ws.OpText, true, "b")...), 1002},
		"fragmented ping":         {frame(ws.OpPing, false, "a"), 1002},
		"long ping":               {frame(ws.OpPing, true, strings.Repeat("a", 126)), 1002},
		"close of one byte":       {frame(ws.OpClose, true, "a"), 1002},
		"close 1005":              {frame(ws.OpClose, true, "\x03\xed"), 1002},
		"close not UTF-8":         {frame(ws.OpClose, true, "\x03\xe8\xff"), 1002},
		"text not UTF-8":          {frame(ws.OpText, true, "\xff\xfe"), 1007},
		"too large before AUTH":   {[]byte{0x82, 0xfe, 0xff, 0xff}, 4501},
		"64-bit length":           {[]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 4501},
		"not a frame":             {frame(ws.OpBinary, true, "hello, this is not a frame"), 4500},
		"half a frame":            {frame(ws.OpBinary, true, "\xa7\x14"), 4500},
		"two frames":              {frame(ws.OpBinary, true, strings.Repeat(string(wire.Append(nil, &wire.Frame{Cmd: im.Cmd_PING})), 2)), 4500},
		"not allowed before AUTH": {frame(ws.OpText, true, `{"cmd":"SEND","seq":1}`), 4500},
		"bad token":               {frame(ws.OpText, true, `{"cmd":"AUTH","seq":1,"body":{"token":"bad"}}`), 4401},
	} {
		t.Run(name, func(t *testing.T) {
			client := w.socket()
			if _, err := client.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			client.wantClose(c.status)
		})
	}
}

func TestWebSocketRequestsThatCannotBeReadAreAnswered(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	c.login()
	for message, want := range map[string]string{
		`{"cmd":"READ","seq":5,"body":{"sek":"1"}}`: `"seq":5`,
		`{"cmd":"DANCE","seq":6}`:                   `"status":415`,
		`nonsense`:                                  `"status":400`,
	} {
		if got := c.text(message); !strings.Contains(got, want) || !strings.Contains(got, `"response":true`) {
			t.Errorf("%s: %s", message, got)
		}
	}
	if got := c.text(`{"cmd":"PING","seq":8}`); !strings.Contains(got, "serverMs") {
		t.Errorf("the connection did not go on: %s", got)
	}
}

func TestWebSocketIsRefused(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Origins = []string{"https://shop.example"} })
	const upgrade = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"token in the URL": {strings.Replace(upgrade, "/v1/ws", "/v1/ws?token=abc", 1) + key + "Sec-WebSocket-Version: 13\r\n\r\n", 400},
		"another origin":   {upgrade + key + "Sec-WebSocket-Version: 13\r\nOrigin: https://evil.example\r\n\r\n", 403},
		"origin null":      {upgrade + key + "Sec-WebSocket-Version: 13\r\nOrigin: null\r\n\r\n", 403},
		"no key":           {upgrade + "Sec-WebSocket-Version: 13\r\n\r\n", 400},
		"version":          {upgrade + key + "Sec-WebSocket-Version: 8\r\n\r\n", 426},
		"no upgrade":       {"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n", 426},
		"POST":             {strings.Replace(upgrade, "GET", "POST", 1) + key + "Sec-WebSocket-Version: 13\r\n\r\n", 405},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.dial()
			p.write(c.request)
			if status, body := p.read(); status != c.status || !strings.Contains(body, `"request_id"`) {
				t.Fatalf("%d %s", status, body)
			}
		})
	}
	for _, origin := range []string{"https://shop.example", w.url} {
		if _, _, err := w.trySocket("Origin", origin); err != nil {
			t.Errorf("%s: %v", origin, err)
		}
	}
}

func TestFramesBehindTheHandshakeAreNotLost(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	var frame bytes.Buffer
	_ = ws.WriteFrame(&frame, ws.MaskFrame(ws.NewTextFrame([]byte(`{"cmd":"AUTH","seq":1,"body":{"token":"alice/phone"}}`))))
	p.write("GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" + frame.String())
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = p.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	f, err := readFrame(p.r)
	if err != nil || !strings.Contains(string(f.Payload), "alice") {
		t.Fatalf("%q, %v", f.Payload, err)
	}
}

func TestServerClosesSocketsWithACode(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	c.login()
	body, _ := (&im.Kick{Code: uint32(code.CloseReplaced), Reason: "replaced"}).Marshal(nil)
	w.logic.down(context.Background(), &tier.Down{
		Conn: w.logic.conn("alice"), Cmd: uint32(im.Cmd_KICK), Body: body, Close: uint32(code.CloseReplaced), SessionEpoch: 1,
	})
	if got := string(c.next(ws.OpText)); !strings.Contains(got, `"KICK"`) {
		t.Fatal(got)
	}
	c.wantClose(4402)
}

func TestAServerThatStopsClosesSockets(t *testing.T) {
	w := newWorld(t, nil)
	c := w.socket()
	c.login()
	go w.stop()
	c.wantClose(4301)
}

// An idle WebSocket holds no goroutine.
func TestIdleSocketsHoldNoGoroutine(t *testing.T) {
	w := newWorld(t, nil)
	w.socket().login()
	before := runtime.NumGoroutine()
	for range 200 {
		w.socket().login()
	}
	eventually(t, "the number of goroutines stays", func() bool { return runtime.NumGoroutine() < before+20 })
}
