package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gobwas/ws"

	"hongyan/internal/wire"
)

// Transports that a conn can use.
const (
	TCP       = "tcp"
	WebSocket = "ws"
	Poll      = "poll" // http:// as a target
)

// link carries whole frames over one connection. read is for one goroutine, write for one at
// a time.
type link interface {
	// read returns the next frame; its body is valid until the next read.
	read() (wire.Frame, error)
	// buffered tells whether the next read has bytes already.
	buffered() bool
	// write sends encoded frames together. It may change frames.
	write(frames []byte) error
	close() error
}

// maxFrame is the largest body that a server may send.
const maxFrame = 4 << 20

const dialTimeout = 10 * time.Second

// dialer opens links to one target: see Config.Target.
type dialer struct {
	target    *url.URL
	transport string
	secure    *tls.Config // nil = in the clear
	json      *wire.JSON  // long poll only
}

func newDialer(cfg *Config) (d dialer, err error) {
	d.target, d.transport = cfg.Target, Transport(cfg.Target)
	switch d.target.Scheme {
	case "tls", "wss", "https":
		d.secure = cmp.Or(cfg.TLS, &tls.Config{}).Clone()
		d.secure.ServerName = cmp.Or(d.secure.ServerName, d.target.Hostname())
	}
	if d.transport != Poll {
		return d, nil
	}
	codec, err := wire.NewJSON()
	if err != nil {
		return d, err
	}
	d.json = codec.Lenient()
	return d, nil
}

// Transport is the name of a target's transport, with TLS or without.
func Transport(target *url.URL) string {
	switch target.Scheme {
	case "tls":
		return TCP
	case "wss":
		return WebSocket
	case "http", "https":
		return Poll
	}
	return target.Scheme
}

// connect opens a socket to the target.
func (d dialer) connect(ctx context.Context) (net.Conn, error) {
	if d.secure == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", d.target.Host)
	}
	return (&tls.Dialer{Config: d.secure}).DialContext(ctx, "tcp", d.target.Host)
}

func (d dialer) dial(ctx context.Context, readBuffer int) (link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	switch d.transport {
	case Poll:
		return dialPoll(ctx, d, readBuffer)
	case TCP:
		nc, err := d.connect(ctx)
		if err != nil {
			return nil, err
		}
		return &tcpLink{nc: nc, r: bufio.NewReaderSize(nc, readBuffer)}, nil
	case WebSocket:
		plain := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.connect(ctx) }
		up := ws.Dialer{ReadBufferSize: 1024, WriteBufferSize: 1024, NetDial: plain}
		nc, early, _, err := up.Dial(ctx, "ws://"+d.target.Host+"/v1/ws")
		if err != nil {
			return nil, err
		}
		var from io.Reader = nc
		if early != nil {
			rest, err := io.ReadAll(io.LimitReader(early, int64(early.Buffered())))
			if err != nil {
				return nil, err
			}
			from = io.MultiReader(bytes.NewReader(rest), nc)
		}
		return &wsLink{nc: nc, r: bufio.NewReaderSize(from, readBuffer)}, nil
	}
	return nil, fmt.Errorf("transport %q is not tcp, ws or http, nor tls, wss or https", d.target.Scheme)
}

type tcpLink struct {
	nc   net.Conn
	r    *bufio.Reader
	body []byte
}

func (l *tcpLink) read() (wire.Frame, error) {
	header, err := l.r.Peek(wire.HeaderLen)
	if err != nil {
		return wire.Frame{}, err
	}
	f, n, err := wire.Decode(header, maxFrame)
	if err == nil { // no body
		_, _ = l.r.Discard(n)
		return f, nil
	}
	if !errors.Is(err, wire.ErrShort) {
		return f, err
	}
	size := wire.HeaderLen + int(uint32(header[12])<<24|uint32(header[13])<<16|uint32(header[14])<<8|uint32(header[15]))
	if cap(l.body) < size {
		l.body = make([]byte, size)
	}
	if _, err := io.ReadFull(l.r, l.body[:size]); err != nil {
		return wire.Frame{}, err
	}
	f, _, err = wire.Decode(l.body[:size], maxFrame)
	return f, err
}

func (l *tcpLink) buffered() bool { return l.r.Buffered() >= wire.HeaderLen }

func (l *tcpLink) write(frames []byte) error {
	_, err := l.nc.Write(frames)
	return err
}

func (l *tcpLink) close() error     { return l.nc.Close() }
func (l *tcpLink) socket() net.Conn { return l.nc }

// wsLink puts each frame into one binary message.
type wsLink struct {
	nc   net.Conn
	r    *bufio.Reader
	body []byte
	out  []byte
}

func (l *wsLink) read() (wire.Frame, error) {
	for {
		h, err := ws.ReadHeader(l.r)
		if err != nil {
			return wire.Frame{}, err
		}
		if h.Length > maxFrame {
			return wire.Frame{}, fmt.Errorf("websocket message of %d bytes", h.Length)
		}
		if int64(cap(l.body)) < h.Length {
			l.body = make([]byte, h.Length)
		}
		body := l.body[:h.Length]
		if _, err := io.ReadFull(l.r, body); err != nil {
			return wire.Frame{}, err
		}
		switch h.OpCode {
		case ws.OpBinary:
			f, _, err := wire.Decode(body, maxFrame)
			return f, err
		case ws.OpClose:
			status, reason := ws.ParseCloseFrameData(body)
			return wire.Frame{}, fmt.Errorf("closed by the server: %d %s", status, reason)
		}
	}
}

func (l *wsLink) buffered() bool { return l.r.Buffered() > 2 }

func (l *wsLink) write(frames []byte) error {
	l.out = l.out[:0]
	for len(frames) > 0 {
		_, n, err := wire.Decode(frames, maxFrame)
		if err != nil {
			return fmt.Errorf("own frame: %w", err)
		}
		var head bytes.Buffer
		// The mask 0 is a mask, and leaves the bytes as they are.
		if err := ws.WriteHeader(&head, ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: int64(n)}); err != nil {
			return err
		}
		l.out = append(append(l.out, head.Bytes()...), frames[:n]...)
		frames = frames[n:]
	}
	_, err := l.nc.Write(l.out)
	return err
}

func (l *wsLink) close() error     { return l.nc.Close() }
func (l *wsLink) socket() net.Conn { return l.nc }
