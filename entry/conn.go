package entry

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"

	"hongyan/idl/code"
	"hongyan/internal/gate"
	"hongyan/internal/netloop"
	"hongyan/internal/wire"
)

// conn is one TCP connection: a gate.Transport. As the context that netpoll hands to every
// callback it finds itself without a table.
type conn struct {
	context.Context
	srv   *Server
	nc    netpoll.Connection
	out   *netloop.Writer
	gate  atomic.Pointer[gate.Conn] // nil: turned away, or the PROXY header is not there yet
	json  atomic.Bool               // the client's last frame was JSON: so are ours
	ended atomic.Bool               // Close was called: what still comes is for nobody

	counted bool        // it is one of the server's open connections
	left    atomic.Bool // the connection has ended
	told    atomic.Bool // the session knows

	header  *time.Timer // until the PROXY header has come; nil: there is none to come
	partial []byte      // the beginning of a frame or header; of onReadable only
}

// begin opens the session of a client.
func (c *conn) begin(client netip.Addr) {
	info := gate.Info{Transport: gate.TCP}
	if client.IsValid() {
		info.IP = client.String()
	}
	c.gate.Store(c.srv.gate.Open(c, info))
	if c.left.Load() { // gone may have looked before there was a session
		c.tell()
	}
}

// tell the session, once, that its connection has ended.
func (c *conn) tell() {
	if session := c.gate.Load(); session != nil && c.told.CompareAndSwap(false, true) {
		session.Closed("the connection ended")
	}
}

// onRequest is netpoll's call for bytes that have arrived, one at a time per connection.
func onRequest(ctx context.Context, nc netpoll.Connection) error {
	ctx.(*conn).onReadable(nc.Reader())
	return nil
}

// onReadable takes all bytes there are and keeps the beginning of a frame itself: netpoll
// would call again and again for bytes left in its buffer, and a wait for the rest of a
// frame would hold a goroutine.
func (c *conn) onReadable(r netpoll.Reader) {
	defer func() { _ = r.Release() }()
	in, err := r.Next(r.Len())
	if err != nil {
		return // closed meanwhile
	}
	if c.ended.Load() {
		return
	}
	if c.header != nil {
		if in = c.proxied(in); in == nil {
			return
		}
	}
	session := c.gate.Load()
	session.Heard()
	waited := len(c.partial) > 0
	if waited {
		c.partial = append(c.partial, in...)
		in = c.partial
	}
	rest := c.frames(session, in)
	c.keep(rest)
	if waited || len(rest) > 0 {
		session.Partial(len(rest) > 0)
	}
}

// proxied takes the PROXY header off the first bytes and opens the session. Nil: there is
// nothing behind it yet, or nothing that could be understood.
func (c *conn) proxied(in []byte) []byte {
	c.partial = append(c.partial, in...) // bounded: parseProxy asks for no more than a header
	client, n, err := parseProxy(c.partial)
	switch {
	case errors.Is(err, wire.ErrShort):
		return nil
	case err != nil:
		c.srv.log.Warn("a balancer's connection was refused", "from", c.nc.RemoteAddr(), "err", err)
		c.header.Stop()
		c.Close(code.CloseProtocolError, err.Error())
		return nil
	case !c.header.Stop(): // too late
		return nil
	}
	if !client.IsValid() {
		client = addrOf(c.nc.RemoteAddr())
	}
	in, c.partial, c.header = c.partial[n:], nil, nil
	c.begin(client)
	if len(in) == 0 {
		return nil
	}
	return in
}

// frames hands on every whole frame and returns the beginning of the next.
func (c *conn) frames(session *gate.Conn, in []byte) []byte {
	for len(in) > 0 && !c.ended.Load() {
		f, n, err := wire.Decode(in, session.MaxBody())
		switch {
		case errors.Is(err, wire.ErrShort):
			return in
		case err != nil && n == 0:
			session.Malformed(err)
			return nil
		case err != nil:
			session.Refuse(f.Cmd, f.Seq, err)
		default:
			c.receive(session, f)
		}
		in = in[n:]
	}
	return nil
}

// keep the rest until more arrives. The bytes are netpoll's, or the front of partial.
func (c *conn) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		c.partial = nil
	case len(rest) != len(c.partial): // otherwise it is partial itself: nothing was taken off it
		c.partial = append([]byte(nil), rest...)
	}
}

// receive turns a frame's body into protobuf and hands it to the session.
func (c *conn) receive(session *gate.Conn, f wire.Frame) {
	c.json.Store(f.Codec == wire.CodecJSON)
	if f.Codec == wire.CodecJSON && f.Flags&wire.FlagResponse == 0 {
		body, err := c.srv.json.ToProto(wire.RequestType(f.Cmd), f.Body)
		if err != nil {
			session.Refuse(f.Cmd, f.Seq, err)
			return
		}
		f.Body, f.Codec = body, wire.CodecProto
	}
	session.Receive(f)
}

const (
	// minWeight is what a frame counts at least while it is queued (gate.Transport).
	minWeight = 256
	// maxBuffer is the largest encoding buffer that is kept for other connections, bytes.
	maxBuffer = 64 << 10
)

// Send writes the frames with one system call, or queues them when the client is behind.
func (c *conn) Send(frames []wire.Frame) {
	buf := c.srv.buffers.Get().(*[]byte)
	b, weight := (*buf)[:0], 0
	for i := range frames {
		from := len(b)
		b = c.encode(b, &frames[i])
		weight += max(len(b)-from, minWeight)
	}
	c.out.Write(b, weight)
	if cap(b) <= maxBuffer {
		*buf = b
	}
	c.srv.buffers.Put(buf)
}

// encode appends a frame in the client's codec. The codec byte says which it is: a body
// that cannot be put into JSON goes as it is.
func (c *conn) encode(b []byte, f *wire.Frame) []byte {
	if !c.json.Load() || len(f.Body) == 0 {
		return wire.Append(b, f)
	}
	text, err := c.srv.json.FromProto(wire.BodyType(f), f.Body)
	if err != nil {
		c.srv.log.Error("a body cannot be put into JSON", "cmd", f.Cmd, "err", err)
		return wire.Append(b, f)
	}
	return wire.Append(b, &wire.Frame{
		Flags: f.Flags, Codec: wire.CodecJSON, Cmd: f.Cmd, Status: f.Status, Seq: f.Seq, Body: text,
	})
}

// Queued is the weight of what the client has not taken, bytes.
func (c *conn) Queued() int { return c.out.Queued() }

// Close closes the connection behind what was sent. The last frame has told the client why.
func (c *conn) Close(code.Code, string) {
	c.ended.Store(true)
	c.out.Close()
}

// gone runs when the connection has ended, before its descriptor is closed.
func (c *conn) gone() {
	c.out.Stop()
	if c.counted {
		c.srv.open.Add(-1)
	}
	c.left.Store(true)
	c.tell()
}
