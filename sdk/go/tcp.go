package hongyan

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/wire"
)

// tcpConn carries frames over a stream, as they are.
type tcpConn struct {
	conn net.Conn
	in   []byte // read and not yet taken
	out  []byte
}

func dialTCP(ctx context.Context, endpoint *url.URL) (Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint.Host)
	if err != nil {
		return nil, err
	}
	return newStream(conn), nil
}

func dialTLS(ctx context.Context, endpoint *url.URL, secure *tls.Config) (Conn, error) {
	conn, err := (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", endpoint.Host)
	if err != nil {
		return nil, err
	}
	return newStream(conn), nil
}

func newStream(conn net.Conn) *tcpConn { return &tcpConn{conn: conn} }

// readSize is how much is asked of the kernel at once, in bytes.
const readSize = 16 << 10

func (t *tcpConn) Read(into []Frame) ([]Frame, error) {
	for have := len(into); ; {
		rest, err := t.take(&into)
		if err != nil {
			return into, err
		}
		if len(into) > have {
			t.in = rest
			return into, nil
		}
		t.in = slices.Grow(rest, readSize)
		n, err := t.conn.Read(t.in[len(t.in):cap(t.in)])
		t.in = t.in[:len(t.in)+n]
		if n == 0 && err != nil {
			return into, err
		}
	}
}

// take moves every whole frame of t.in into the list. The bodies leave the buffer.
func (t *tcpConn) take(into *[]Frame) (rest []byte, err error) {
	b := t.in
	for {
		f, n, err := wire.Decode(b, maxBody)
		switch {
		case errors.Is(err, wire.ErrShort):
			return append(t.in[:0], b...), nil
		case err != nil && n == 0:
			return b, err
		case err == nil:
			f.Body = slices.Clone(f.Body)
			*into = append(*into, f)
		}
		b = b[n:] // one that cannot be read (compressed, another codec) was not asked for
	}
}

func (t *tcpConn) Write(frames []Frame) error {
	t.out = t.out[:0]
	for i := range frames {
		t.out = wire.Append(t.out, &frames[i])
	}
	if err := t.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := t.conn.Write(t.out)
	if cap(t.out) > maxBody {
		t.out = nil
	}
	return err
}

func (t *tcpConn) Close(code.Code, string) error { return t.conn.Close() }
