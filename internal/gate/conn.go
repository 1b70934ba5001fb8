package gate

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/wheel"
	"hongyan/internal/wire"
)

// phase of a Conn:
//
//	           AUTH, token good             answered ok
//	opened ------------------------> authing ----------> online
//	  |  HELLO, PING                    |                  |  every command
//	  |                                 |                  |
//	  |  no AUTH in time, another       |  refused, not    |  KICK, LOGOUT, idle, slow,
//	  |  command, token bad             |  answered        |  unacknowledged, drained
//	  v                                 v                  v
//	closed <-----------------------------------------------   and from everywhere: malformed
//	                                                          frames, the peer is gone
type phase uint8

const (
	opened phase = iota
	authing
	online
	closed
)

// Conn is the session of one client connection. It has no goroutine, and while nothing is
// under way no buffer: some 450 bytes.
type Conn struct {
	gate  *Gate
	link  Transport
	id    uint64
	heard atomic.Int64  // when the last byte came, as Gate.now
	lined atomic.Int32  // packets in lane that are not accepted or answered yet
	body  atomic.Uint32 // limit of a frame's body, bytes
	timer wheel.Timer
	fire  func() // c.tick, made once

	mu     sync.Mutex // guards all below; Transport.Send is called under it
	phase  phase
	kicked bool // KICK was sent: it stands for the last ERROR
	slow   bool // over SlowBytes: pushes are dropped
	dirty  bool // cursor is to be told to Logic
	renew  bool // a renewal is queued
	early  uint8
	beat   uint16      // T, seconds
	end    *code.Error // ended under the lock: unlock closes the transport

	// Who is there. uid and tenant from AUTH on.
	tenant, uid, device, platform, class, ip string
	transport                                string
	idle                                     time.Duration // fixed limit; 0 = from beat
	hash                                     uint64        // route.Hash of the user
	session                                  uint64        // session epoch; 0 until logged in
	loginMS                                  int64
	home                                     uint64 // homeKey of the Logic that has this session
	lane                                     *lane  // where its packets queue; fixed while any does

	epoch, cursor uint64       // acknowledged by the client
	pend          *pending     // pushes he has not acknowledged; nil = none
	held          []*tier.Down // what came before AUTH_ACK
	window        *window      // unanswered SENDs; nil = none
	limit         *rate.Limiter
	limited       *limits // what limit was last set to

	// Deadlines as Gate.now; 0 = none.
	fireAt    int64 // when timer fires
	authBy    int64 // AUTH, then its answer
	partialBy int64 // the rest of a frame
	slowBy    int64 // the transport to drain
}

func newConn(g *Gate, t Transport, info Info) *Conn {
	c := &Conn{
		gate: g, link: t, id: g.lastID.Add(1),
		ip: info.IP, platform: info.Platform, transport: info.Transport, idle: info.Idle,
		beat: uint16(g.cfg.HeartbeatMin / time.Second),
	}
	c.body.Store(earlyBody)
	c.fire = c.tick
	c.heard.Store(g.now())
	return c
}

// ID of the connection, unique within the gateway's life and those before it.
func (c *Conn) ID() uint64 { return c.id }

// earlyBody limits the body of a frame before AUTH, bytes.
const earlyBody = 4 << 10

// MaxBody is the limit of the next frame's body, bytes: for wire.Decode.
func (c *Conn) MaxBody() int { return int(c.body.Load()) }

// Heard tells that a byte has arrived: the client is there.
func (c *Conn) Heard() { c.heard.Store(c.gate.now()) }

// Partial tells whether the bytes that have arrived end within a frame. One frame may take
// FrameTimeout.
func (c *Conn) Partial(waiting bool) {
	c.mu.Lock()
	defer c.unlock()
	switch {
	case !waiting:
		c.partialBy = 0
	case c.partialBy == 0:
		c.partialBy = c.gate.now() + int64(c.gate.cfg.FrameTimeout)
		c.armLocked()
	}
}

// Malformed ends the connection: its bytes cannot be followed any further. err is what
// wire.Decode said.
func (c *Conn) Malformed(err error) {
	e := code.From(err)
	if !isClose(e.Code) {
		e = code.Errorf(code.CloseProtocolError, "%s", e.Message)
	}
	c.mu.Lock()
	defer c.unlock()
	c.endLocked(e)
}

// Refuse answers a request that cannot be handed to Receive, because its body cannot be
// read. The connection stays.
func (c *Conn) Refuse(cmd im.Cmd, seq uint32, err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase == closed {
		return
	}
	refusal := c.admitLocked()
	if refusal == nil {
		refusal = code.From(err)
	}
	c.rejectLocked(cmd, seq, refusal, oneWay(cmd))
}

// rejectLocked ends the connection, or answers the request where an answer is expected.
func (c *Conn) rejectLocked(cmd im.Cmd, seq uint32, err *code.Error, silent bool) {
	switch {
	case isClose(err.Code):
		c.endLocked(err)
	case !silent:
		c.refuseLocked(cmd, seq, err)
	}
}

// Closed tells that the transport has ended by itself. The reason is for the log.
func (c *Conn) Closed(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == closed {
		return
	}
	c.leaveLocked()
	c.gate.metrics.closed(code.OK)
	c.gate.deps.Log.Debug("connection ended", "conn", c.id, "uid", c.uid, "reason", reason)
}

// shut closes the connection from our side.
func (c *Conn) shut(why code.Code, reason string) {
	c.mu.Lock()
	defer c.unlock()
	c.endLocked(code.Errorf(why, "%s", reason))
}

// endLocked closes the connection with err.Code. The last frame tells the client why.
func (c *Conn) endLocked(err *code.Error) {
	if c.phase == closed {
		return
	}
	if !c.kicked {
		c.sendLocked(wire.Frame{Cmd: im.Cmd_ERROR, Flags: wire.FlagOneWay, Body: c.errorBody(err, 0)})
	}
	c.leaveLocked()
	c.end = err
	c.gate.metrics.closed(err.Code)
	c.gate.deps.Log.Debug("connection closed", "conn", c.id, "uid", c.uid, "code", err.Code, "reason", err.Message)
}

// leaveLocked takes the connection out of the gate and tells Logic.
func (c *Conn) leaveLocked() {
	if c.phase == authing || c.phase == online {
		c.tellCursorLocked()
		c.eventLocked(tier.Uplink_CLOSED)
	}
	c.phase = closed
	c.gate.conns.remove(c.id)
	c.gate.wheel.Stop(&c.timer)
	c.dropPendingLocked()
	c.dropWindowLocked()
	c.held = nil
}

// unlock releases the lock. When the connection was ended under it, the transport is closed
// after it: a transport may call Closed from within Close.
func (c *Conn) unlock() {
	end := c.end
	c.end = nil
	c.mu.Unlock()
	if end != nil {
		c.link.Close(end.Code, end.Message)
	}
}

// sendLocked gives frames to the transport and counts them.
func (c *Conn) sendLocked(frames ...wire.Frame) {
	if len(frames) == 0 || c.phase == closed {
		return
	}
	bytes := 0
	for i := range frames {
		bytes += len(frames[i].Body)
	}
	c.gate.metrics.framesOut.Add(float64(len(frames)))
	c.gate.metrics.bytesOut.Add(float64(bytes))
	c.link.Send(frames)
}

// answerLocked sends the response to a request that the gateway serves itself.
func (c *Conn) answerLocked(cmd im.Cmd, seq uint32, body []byte) {
	c.sendLocked(wire.Frame{Cmd: cmd, Flags: wire.FlagResponse, Seq: seq, Body: body})
}

// refuseLocked answers a request with an error; the connection stays.
func (c *Conn) refuseLocked(cmd im.Cmd, seq uint32, err *code.Error) {
	c.gate.metrics.refuse(err.Code)
	c.sendLocked(wire.Frame{
		Cmd: cmd, Flags: wire.FlagResponse, Status: err.Code, Seq: seq, Body: c.errorBody(err, seq),
	})
}

func (c *Conn) errorBody(err *code.Error, seq uint32) []byte {
	body, _ := (&im.Error{ // encoding a flat message cannot fail
		Code:         uint32(err.Code),
		Name:         err.Code.Name(),
		Message:      err.Message,
		RequestId:    c.requestID(seq),
		Retryable:    err.Code.Retryable(),
		RetryAfterMs: uint32(err.RetryAfter.Milliseconds()),
	}).Marshal(nil)
	return body
}

// requestID names a request in logs: the connection's number is unique across gateways.
func (c *Conn) requestID(seq uint32) string {
	var buf [32]byte
	b := strconv.AppendUint(buf[:0], c.id, 16)
	b = append(b, '-')
	return string(strconv.AppendUint(b, uint64(seq), 10))
}

// isClose tells close codes from those of requests.
func isClose(c code.Code) bool { return c >= 4300 }
