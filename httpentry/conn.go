package httpentry

import (
	"context"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/http1/req"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/cloudwego/netpoll"

	"hongyan/idl/code"
	"hongyan/internal/netloop"
)

// conn is one accepted connection. It begins as HTTP/1 and may become a WebSocket:
//
//	        +--(request served)--+
//	        v                    |
//	      serving --(poll held)--+-> parked --(answered)--> serving
//	        |  \
//	(upgrade)   (error, Connection: close)
//	        v    v
//	   socketed  lingering --(peer closes, or takes too long)--> gone
//
// onData is called serially, and only while there is something to read: an idle connection
// in any state holds no goroutine.
type conn struct {
	context.Context // netpoll hands it to every callback: the conn finds itself without a table
	srv             *Server
	nc              netpoll.Connection
	out             *netloop.Writer
	remote          string // the peer's IP

	// Touched by onData only.
	framer    framer
	in        []byte // a request that is not whole yet
	headed    bool   // its head is there
	continued bool   // 100 Continue was sent for it

	mu     sync.Mutex
	mode   mode
	held   *held   // mode parked
	socket *socket // mode socketed
	timer  *time.Timer
	due    due // what the timer is for
}

type mode uint8

const (
	serving mode = iota
	parked
	socketed
	lingering
	gone
)

// due says what it means that the timer of a connection fires.
type due uint8

const (
	dueNever   due = iota
	dueIdle        // no request began: close without a word
	dueRequest     // a request began and did not become whole: 408
)

func newConn(s *Server, nc netpoll.Connection) *conn {
	c := &conn{
		Context: context.Background(), srv: s, nc: nc, remote: hostOf(nc.RemoteAddr()),
		out:    netloop.NewWriter(nc, &s.writers),
		framer: framer{maxHead: s.cfg.MaxHeaderBytes, maxBody: s.cfg.MaxBodyBytes},
	}
	c.arm(dueIdle, s.cfg.IdleTimeout)
	return c
}

// onData takes everything that is readable.
func (c *conn) onData() {
	r := c.nc.Reader()
	p, err := r.Next(r.Len())
	if err != nil {
		return
	}
	c.mu.Lock()
	mode, socket := c.mode, c.socket
	c.mu.Unlock()
	switch mode {
	case serving:
		c.receive(p)
	case socketed:
		socket.receive(p)
	case parked:
		// A request behind a held poll would wait for it: nobody needs that, and keeping its
		// bytes would let a client fill the memory.
		_ = c.nc.Close()
	}
	_ = r.Release()
}

// receive adds p to what is there and serves every request that is whole.
func (c *conn) receive(p []byte) {
	buf := p
	if len(c.in) > 0 {
		c.in = append(c.in, p...)
		buf = c.in
	}
	for len(buf) > 0 {
		size, err := c.framer.scan(buf)
		if err != nil {
			c.refuse(err)
			return
		}
		if size == 0 {
			c.await(buf)
			return
		}
		raw, h := buf[:size], c.framer.head
		c.framer.reset()
		c.disarm()
		buf, c.headed, c.continued = buf[size:], false, false
		if !c.serve(raw, h, buf) {
			c.in = nil
			return
		}
	}
	c.in = nil
	c.arm(dueIdle, c.srv.cfg.IdleTimeout)
}

// await keeps the beginning of a request until more of it comes.
func (c *conn) await(buf []byte) {
	h := c.framer.head
	switch { // counted from the first byte, whatever drips in later (slow-loris)
	case h.size > 0 && !c.headed:
		c.headed = true
		c.arm(dueRequest, c.srv.cfg.BodyReadTimeout)
	case len(c.in) == 0:
		c.arm(dueRequest, c.srv.cfg.HeaderReadTimeout)
	}
	c.in = append(c.in[:0], buf...) // grows as bytes come, not as a header announces them
	if h.size > 0 && h.expect && !c.continued {
		c.continued = true
		c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
}

// serve answers one whole request; rest is what came behind it. It returns true when the
// connection is ready for the next one.
func (c *conn) serve(raw []byte, h head, rest []byte) bool {
	if c.out.Queued() > maxUnread {
		_ = c.nc.Close() // asks on and on and reads none of the answers
		return false
	}
	if h.upgrade && h.path == socketPath {
		c.srv.upgrade(c, raw, rest)
		return false
	}
	pool := c.srv.engine.GetCtxPool()
	rc := pool.Get().(*app.RequestContext)
	defer func() { rc.Reset(); pool.Put(rc) }()
	if err := readRequest(&rc.Request, raw, c.srv.cfg.MaxBodyBytes); err != nil {
		c.refuse(code.Errorf(code.BadRequest, "the request is malformed"))
		return false
	}
	x := &exchange{srv: c.srv, conn: c, rc: rc, started: time.Now(), close: rc.Request.Header.ConnectionClose()}
	c.srv.engine.ServeHTTP(context.WithValue(c.srv.base, exchangeKey{}, x), rc)
	if x.held != nil {
		if len(rest) > 0 {
			_ = c.nc.Close() // see onData
		}
		return false
	}
	if rc.Request.Header.IsHead() {
		rc.Response.SkipBody = true
	}
	x.close = x.close || c.srv.draining.Load() || c.srv.stopping.Load()
	return c.answer(&rc.Response, x.close, rc.Request.Header.IsHTTP11())
}

// maxUnread is how much of earlier answers may wait for the peer when he asks for more.
const maxUnread = 256 << 10

// answer writes a response and returns true when the connection stays open.
func (c *conn) answer(rsp *protocol.Response, close, http11 bool) bool {
	buf := c.srv.buffers.get()
	defer c.srv.buffers.put(buf)
	if err := encodeResponse(buf, rsp, close, http11); err != nil {
		c.srv.log.Error("encode response", "err", err)
		_ = c.nc.Close()
		return false
	}
	c.write(buf.b)
	if close {
		c.linger()
	}
	return !close
}

// encodeResponse writes rsp as HTTP/1.
func encodeResponse(buf *byteWriter, rsp *protocol.Response, close, http11 bool) error {
	switch {
	case close:
		rsp.Header.Set("Connection", "close")
	case !http11:
		rsp.Header.Set("Connection", "keep-alive")
	}
	return resp.Write(rsp, buf)
}

// refuse answers what is not even a request, and closes.
func (c *conn) refuse(err error) {
	c.disarm()
	c.in = nil
	var rsp protocol.Response
	c.srv.decorate(&rsp, "")
	writeError(&rsp, err, newRequestID())
	c.srv.metrics.refused.Inc()
	c.answer(&rsp, true, true)
}

func (c *conn) write(b []byte) { c.out.Write(b, len(b)) }

// linger ends the connection from our side; the peer may still read what was sent, what he
// sends is for nobody.
func (c *conn) linger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == gone {
		return
	}
	c.mode, c.due = lingering, dueNever
	c.out.Close()
}

// onClosed runs when the connection has ended, once, never beside onData.
func (c *conn) onClosed() {
	c.out.Stop()
	c.mu.Lock()
	held, socket := c.held, c.socket
	c.mode, c.held, c.socket = gone, nil, nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	if held != nil {
		held.abandoned()
	}
	if socket != nil {
		socket.ended()
	}
}

func (c *conn) arm(d due, after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode != gone {
		c.armLocked(d, after)
	}
}

func (c *conn) armLocked(d due, after time.Duration) {
	c.due = d
	if c.timer == nil {
		c.timer = time.AfterFunc(after, c.onTimer)
		return
	}
	c.timer.Reset(after)
}

func (c *conn) disarm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = dueNever
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *conn) onTimer() {
	c.mu.Lock()
	due := c.due
	c.due = dueNever
	c.mu.Unlock()
	switch due {
	case dueRequest:
		c.write(c.srv.timeoutAnswer)
		c.linger()
	case dueIdle:
		_ = c.nc.Close()
	}
}

// readRequest parses one whole request. The body aliases raw.
func readRequest(r *protocol.Request, raw []byte, maxBody int) error {
	src := &byteReader{b: raw}
	if err := req.ReadHeader(&r.Header, src); err != nil {
		return err
	}
	r.Header.Del("Expect") // answered while the request was gathered
	return req.ReadLimitBody(r, src, maxBody, false, false)
}
