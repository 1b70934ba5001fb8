package httpentry

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/http1/req"
	"github.com/gobwas/ws"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/gate"
	"hongyan/internal/wire"
)

// socketPath is where a WebSocket is asked for.
const socketPath = "/v1/ws"

// socket is the WebSocket transport of one session. A binary message is one frame of the
// protocol, a text message its JSON form; the client is answered in the form it used last.
type socket struct {
	conn    *conn
	session *gate.Conn
	in      assembler
	text    atomic.Bool // the form the client used last

	mu     sync.Mutex
	closed bool // a close frame was sent: nothing may follow it
}

var _ gate.Transport = (*socket)(nil)

// upgrade answers a request for a WebSocket and makes the connection one. It runs within
// onData; rest is what the client sent behind the request.
func (s *Server) upgrade(c *conn, raw, rest []byte) {
	ip, err := s.admitSocket(c, raw)
	if err != nil {
		c.refuse(err)
		return
	}
	answer := s.buffers.get()
	defer s.buffers.put(answer)
	_, err = ws.Upgrader{}.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(raw), answer})
	if err != nil {
		c.refuseUpgrade(err)
		return
	}
	t := &socket{conn: c}
	t.in.limit = t.limit
	c.mu.Lock()
	c.mode, c.socket = socketed, t
	c.timer = nil // disarmed before; the gate has its own
	c.mu.Unlock()
	c.write(answer.b)
	s.metrics.sockets.Inc()
	t.session = s.gate.Open(t, gate.Info{IP: ip, Platform: "web", Transport: gate.WebSocket})
	if len(rest) > 0 {
		t.receive(rest)
	}
}

// admitSocket checks what gobwas does not know: who may open a socket from where. It returns
// the client's address.
func (s *Server) admitSocket(c *conn, raw []byte) (ip string, err error) {
	if s.stopping.Load() {
		return "", code.Errorf(code.Unavailable, "the server is stopping")
	}
	var h protocol.RequestHeader
	if err := req.ReadHeader(&h, &byteReader{b: raw}); err != nil {
		return "", code.Errorf(code.BadRequest, "the request is malformed")
	}
	if _, query, _ := strings.Cut(string(h.RequestURI()), "?"); strings.Contains(strings.ToLower(query), "token=") {
		return "", code.Errorf(code.BadRequest, "a token does not belong into a URL, which is logged everywhere: send it in AUTH")
	}
	if origin := string(h.Peek("Origin")); origin != "" && !s.originListed(origin) && !sameHost(origin, string(h.Host())) {
		return "", code.Errorf(code.Denied, "pages of %.100q may not open a WebSocket here", origin)
	}
	return s.clientIP(c.remote, forwardedFor(&h)), nil
}

// sameHost tells whether a page of origin was served by this host.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// refuseUpgrade answers a handshake that gobwas refused.
func (c *conn) refuseUpgrade(err error) {
	var rsp protocol.Response
	c.srv.decorate(&rsp, "")
	writeError(&rsp, code.Errorf(code.BadRequest, "%s", err), newRequestID())
	if r, ok := errors.AsType[*ws.ConnectionRejectedError](err); ok && r.StatusCode() != 0 {
		rsp.SetStatusCode(r.StatusCode())
		if r.StatusCode() == 426 {
			rsp.Header.Set("Sec-WebSocket-Version", "13")
		}
	}
	c.srv.metrics.refused.Inc()
	c.answer(&rsp, true, true)
}

// limit of a message's payload: a frame with its header, as bytes or as text.
func (t *socket) limit() int { return t.session.MaxBody() + wire.TextOverhead }

// receive takes bytes of the client, serially.
func (t *socket) receive(p []byte) {
	t.session.Heard()
	err := t.in.feed(p, t.message)
	if e, ok := errors.AsType[*wsError](err); ok {
		t.session.Closed(e.reason)
		t.finish(uint16(e.status), e.reason)
		return
	}
	if err != nil {
		t.session.Malformed(err)
		return
	}
	t.session.Partial(t.in.waiting())
}

// message takes one message or control frame. An error ends the connection.
func (t *socket) message(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpText:
		return t.textMessage(payload)
	case ws.OpBinary:
		return t.binaryMessage(payload)
	case ws.OpPing:
		t.pong(payload)
	case ws.OpClose:
		status, err := closeStatus(payload)
		if err != nil {
			return err
		}
		t.session.Closed("closed by the client")
		t.finish(uint16(status), "")
	}
	return nil
}

func (t *socket) textMessage(payload []byte) error {
	t.text.Store(true)
	f, err := t.conn.srv.json.DecodeText(payload, t.session.MaxBody())
	return t.hand(&f, err)
}

func (t *socket) binaryMessage(payload []byte) error {
	t.text.Store(false)
	f, n, err := wire.Decode(payload, t.session.MaxBody())
	switch {
	case errors.Is(err, wire.ErrShort):
		return code.Errorf(code.CloseProtocolError, "a binary message is shorter than its frame")
	case n > 0 && n != len(payload):
		return code.Errorf(code.CloseProtocolError, "a binary message holds more than one frame")
	case err == nil && f.Codec == wire.CodecJSON:
		f.Body, err = t.conn.srv.protoBody(&f)
		f.Codec = wire.CodecProto
	}
	return t.hand(&f, err)
}

// hand gives a frame, or why it cannot be read, to the session.
func (t *socket) hand(f *wire.Frame, err error) error {
	if err == nil {
		t.session.Receive(*f)
		return nil
	}
	if code.Of(err) >= code.CloseShutdown {
		return err
	}
	cmd := f.Cmd
	if cmd == im.Cmd_NONE {
		cmd = im.Cmd_ERROR // of a request whose command nobody could read
	}
	t.session.Refuse(cmd, f.Seq, err)
	return nil
}

// protoBody is the protobuf of a frame whose body is JSON.
func (s *Server) protoBody(f *wire.Frame) ([]byte, error) {
	if kind := wire.BodyType(f); kind != "" {
		return s.json.ToProto(kind, f.Body)
	}
	if len(f.Body) > 0 {
		return nil, code.Errorf(code.BadRequest, "%s carries no body", f.Cmd)
	}
	return nil, nil
}

// pong answers a ping, unless the peer has not even taken the last answer.
func (t *socket) pong(payload []byte) {
	if t.conn.out.Queued() > 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.conn.write(append(appendFrameHeader(nil, ws.OpPong, len(payload)), payload...))
	}
}

// Send implements gate.Transport: all frames leave with one write.
func (t *socket) Send(frames []wire.Frame) {
	buf := t.conn.srv.buffers.get()
	defer t.conn.srv.buffers.put(buf)
	text, weight := t.text.Load(), 0
	for i := range frames {
		before := len(buf.b)
		if text {
			buf.b = t.appendText(buf.b, &frames[i])
		} else {
			buf.b = appendFrameHeader(buf.b, ws.OpBinary, wire.HeaderLen+len(frames[i].Body))
			buf.b = wire.Append(buf.b, &frames[i])
		}
		weight += max(len(buf.b)-before, minFrameWeight)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.conn.out.Write(buf.b, weight)
	}
}

// minFrameWeight is what a queued frame counts at least: see gate.Transport.
const minFrameWeight = 256

func (t *socket) appendText(dst []byte, f *wire.Frame) []byte {
	payload, err := t.conn.srv.json.EncodeText(f)
	if err != nil {
		t.conn.srv.log.Error("encode a frame as text", "cmd", f.Cmd, "err", err)
		return dst
	}
	return append(appendFrameHeader(dst, ws.OpText, len(payload)), payload...)
}

// Queued implements gate.Transport.
func (t *socket) Queued() int { return t.conn.out.Queued() }

// Close implements gate.Transport: a close frame, then the peer has a moment to read it.
func (t *socket) Close(c code.Code, reason string) {
	if c == code.OK {
		c = code.Code(ws.StatusNormalClosure)
	}
	t.finish(uint16(c), reason)
}

// finish sends the one close frame of this side and ends the connection.
func (t *socket) finish(status uint16, reason string) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.closed = true
	t.conn.write(appendClose(nil, status, reason))
	t.mu.Unlock()
	t.conn.linger()
}

// ended is called when the connection is gone.
func (t *socket) ended() {
	t.conn.srv.metrics.sockets.Dec()
	t.session.Closed("the connection ended")
}
