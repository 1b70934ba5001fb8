package hongyan

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"hongyan/idl/code"
	"hongyan/internal/wire"
)

// socketPath is where a gateway expects WebSockets, unless the endpoint names another path.
const socketPath = "/v1/ws"

// wsConn carries one frame in each binary message.
type wsConn struct {
	conn net.Conn
	in   *bufio.Reader
	part []byte // of a fragmented message
	end  error  // came behind frames that had to be returned first

	mu     sync.Mutex // writes: frames, and the control frames of the reader
	out    bytes.Buffer
	closed bool
}

func dialWebSocket(ctx context.Context, endpoint *url.URL, secure *tls.Config) (Conn, error) {
	target := *endpoint
	if target.Path == "" || target.Path == "/" {
		target.Path = socketPath
	}
	conn, in, _, err := ws.Dialer{TLSConfig: secure}.Dial(ctx, target.String())
	if err != nil {
		return nil, err
	}
	return newWebSocket(conn, in), nil
}

// newWebSocket takes a connection after the handshake; in has what came behind it, if any.
func newWebSocket(conn net.Conn, in *bufio.Reader) *wsConn {
	if in == nil {
		in = bufio.NewReaderSize(conn, readSize)
	}
	return &wsConn{conn: conn, in: in}
}

func (t *wsConn) Read(into []Frame) ([]Frame, error) {
	for have := len(into); t.end == nil && (len(into) == have || t.ready()); {
		f, whole, err := t.message()
		switch {
		case err != nil && len(into) > have:
			t.end = err
			return into, nil
		case err != nil:
			t.end = err
		case whole:
			into = append(into, f)
		}
	}
	return into, t.end
}

// ready tells that a whole WebSocket frame is in the buffer.
func (t *wsConn) ready() bool {
	b, _ := t.in.Peek(min(t.in.Buffered(), 10))
	if len(b) < 2 {
		return false
	}
	head, body := 2, uint64(b[1]&127)
	switch {
	case body == 126 && len(b) >= 4:
		head, body = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case body == 127 && len(b) == 10:
		head, body = 10, binary.BigEndian.Uint64(b[2:])
	case body >= 126:
		return false
	}
	return uint64(t.in.Buffered()-head) >= body && t.in.Buffered() >= head
}

// message reads one WebSocket frame; whole tells that it ends a message of data.
func (t *wsConn) message() (f Frame, whole bool, err error) {
	h, err := ws.ReadHeader(t.in)
	if err != nil {
		return f, false, err
	}
	if h.Length > maxBody+wire.HeaderLen || int64(len(t.part))+h.Length > maxBody+wire.HeaderLen {
		return f, false, code.Errorf(code.CloseTooLarge, "a message of %d bytes", h.Length)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(t.in, payload); err != nil {
		return f, false, err
	}
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	switch h.OpCode {
	case ws.OpPing:
		_ = t.control(ws.NewPongFrame(payload)) // if that fails, reading tells why
		return f, false, nil
	case ws.OpPong:
		return f, false, nil
	case ws.OpClose:
		return f, false, closedWith(payload)
	case ws.OpText:
		return f, false, code.Errorf(code.CloseProtocolError, "a text message was not asked for")
	}
	if t.part = append(t.part, payload...); !h.Fin {
		return f, false, nil
	}
	message := t.part
	t.part = nil
	f, n, err := wire.Decode(message, maxBody)
	switch {
	case errors.Is(err, wire.ErrShort) || err == nil && n != len(message):
		return f, false, code.Errorf(code.CloseProtocolError, "a message is not exactly one frame")
	case err != nil && n > 0:
		return f, false, nil // cannot be read (compressed, another codec) and was not asked for
	}
	return f, err == nil, err
}

// closedWith is the reason in a close frame. Codes below 4000 are WebSocket's own.
func closedWith(payload []byte) error {
	if len(payload) < 2 {
		return io.EOF
	}
	c := code.Code(binary.BigEndian.Uint16(payload))
	if c < 4000 {
		return fmt.Errorf("closed with status %d %q", c, payload[2:])
	}
	return &code.Error{Code: c, Message: string(payload[2:])}
}

func (t *wsConn) Write(frames []Frame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out.Reset()
	var buf []byte
	for i := range frames {
		buf = wire.Append(buf[:0], &frames[i])
		if err := ws.WriteFrame(&t.out, ws.MaskFrameInPlace(ws.NewBinaryFrame(buf))); err != nil {
			return err
		}
	}
	return t.flushLocked()
}

func (t *wsConn) control(f ws.Frame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out.Reset()
	if err := ws.WriteFrame(&t.out, ws.MaskFrame(f)); err != nil {
		return err
	}
	return t.flushLocked()
}

func (t *wsConn) flushLocked() error {
	if t.closed {
		return net.ErrClosed
	}
	if err := t.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := t.conn.Write(t.out.Bytes())
	return err
}

// Close says goodbye and ends the connection.
func (t *wsConn) Close(c code.Code, reason string) error {
	status := ws.StatusNormalClosure
	if c >= 4000 {
		status = ws.StatusCode(c)
	}
	err := t.control(ws.NewCloseFrame(ws.NewCloseFrameBody(status, reason[:min(len(reason), 100)])))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return errors.Join(err, t.conn.Close())
}
