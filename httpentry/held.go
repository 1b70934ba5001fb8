package httpentry

import (
	"time"

	"github.com/cloudwego/hertz/pkg/protocol"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// held is a request that is answered later, without a goroutine waiting for it: a poll. The
// connection is parked meanwhile.
type held struct {
	conn    *conn
	id      string // request id
	origin  string
	path    string
	started time.Time
	close   bool // the connection ends with the answer
	http11  bool

	session *pollSession // set under conn.mu, once the session has it
}

var _ waiter = (*held)(nil)

// hold takes the answer out of the handler's hands.
func (x *exchange) hold() *held {
	h := &held{
		conn: x.conn, id: x.id, origin: x.header("Origin"), path: x.endpoint.id, started: x.started,
		close: x.close, http11: x.rc.Request.Header.IsHTTP11(),
	}
	x.held = h
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	if x.conn.mode == serving {
		x.conn.mode, x.conn.held = parked, h
	}
	return h
}

// belongsTo tells who is to hear when the client goes away. Whether he has gone before is
// told at once.
func (h *held) belongsTo(s *pollSession) {
	h.conn.mu.Lock()
	h.session = s
	left := h.conn.mode == gone
	h.conn.mu.Unlock()
	if left {
		s.abandon(h)
	}
}

// abandoned is called when the connection has ended with the poll unanswered.
func (h *held) abandoned() {
	h.conn.mu.Lock()
	s := h.session
	h.conn.mu.Unlock()
	if s != nil {
		s.abandon(h)
	}
}

// answer implements waiter. It runs on whatever goroutine had the news.
func (h *held) answer(rsp *im.LpPollRsp, err error, last bool) {
	s := h.conn.srv
	var out protocol.Response
	s.decorate(&out, h.origin)
	if err == nil {
		err = s.writePollRsp(&out, rsp, h.id)
	}
	if err != nil {
		if code.Of(err) == code.Internal {
			s.log.Error("answer a poll", "err", err, "request_id", h.id)
		}
		writeError(&out, err, h.id)
	}
	h.close = h.close || last || s.draining.Load() || s.stopping.Load()
	s.metrics.observe(h.path, out.StatusCode(), time.Since(h.started))
	h.conn.release(h, &out)
}

func (s *Server) writePollRsp(out *protocol.Response, rsp *im.LpPollRsp, id string) error {
	encoded, err := rsp.Marshal(nil)
	if err != nil {
		return err
	}
	body, err := s.json.FromProto("hongyan.im.LpPollRsp", encoded)
	if err != nil {
		return err
	}
	out.SetStatusCode(200)
	out.Header.SetContentType(jsonType)
	out.Header.Set("Cache-Control", "no-store")
	out.Header.Set("X-Request-ID", id)
	out.SetBodyRaw(body)
	return nil
}

// release answers a held request and makes the connection ready for the next one.
func (c *conn) release(h *held, rsp *protocol.Response) {
	buf := c.srv.buffers.get()
	defer c.srv.buffers.put(buf)
	if err := encodeResponse(buf, rsp, h.close, h.http11); err != nil {
		c.srv.log.Error("encode response", "err", err)
		_ = c.nc.Close()
		return
	}
	c.mu.Lock()
	if c.held != h {
		c.mu.Unlock()
		return // the client has gone
	}
	// In one step, so that the answer to whatever comes next cannot overtake this one.
	c.mode, c.held = serving, nil
	c.armLocked(dueIdle, c.srv.cfg.IdleTimeout)
	c.write(buf.b)
	c.mu.Unlock()
	if h.close {
		c.linger()
	}
}
