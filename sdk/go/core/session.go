package core

import (
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// defaultMaxBody is the limit of a body until HELLO_ACK tells another, in bytes.
const defaultMaxBody = 256 << 10

// Room for mods_known: AUTH must fit into the 4 KiB that a server reads before it knows
// whom it talks to, token included; SYNC may be larger.
const (
	authModsBytes = 1 << 10
	syncModsBytes = 48 << 10
)

// Receive takes one frame of the server. It keeps f.Body.
func (c *Core) Receive(now time.Time, f *wire.Frame) {
	if c.stage == down {
		return
	}
	c.owedSince = time.Time{}
	if f.Flags&wire.FlagResponse != 0 {
		c.response(now, f)
	} else {
		c.pushed(now, f)
	}
	c.advance(now)
}

func (c *Core) response(now time.Time, f *wire.Frame) {
	a := answer{err: refusal(f), body: f.Body}
	if k := c.calls[f.Seq]; k != nil {
		delete(c.calls, f.Seq)
		k.done(now, a)
		return
	}
	if a.err == nil && f.Seq <= c.seq && c.stage == online {
		c.told(now, f.Cmd, f.Body)
	}
}

// told takes an answer that nobody waits for any more: the request was written again, given
// up, or answered before by another Logic. If it tells of a change, it counts: no push brings
// a change to a connection that learns of it by an answer.
func (c *Core) told(now time.Time, cmd im.Cmd, body []byte) {
	var err error
	switch cmd {
	case im.Cmd_SEND, im.Cmd_RECALL, im.Cmd_EDIT:
		var ack im.SendAck
		if err = ack.Unmarshal(body); err == nil {
			c.onSendAck(now, c.byID[ack.ClientMsgId], &ack)
		}
	case im.Cmd_READ:
		var ack im.ReadAck
		if err = ack.Unmarshal(body); err == nil {
			c.takeRead(now, &ack)
		}
	case im.Cmd_SETTINGS:
		var ack im.SettingsAck
		if err = ack.Unmarshal(body); err == nil {
			c.takeSettings(now, &ack)
		}
	}
	if err != nil {
		c.unreadable(now, cmd)
	}
}

// refusal is the error a response carries, nil if it is ok.
func refusal(f *wire.Frame) *code.Error {
	if f.Status == code.OK {
		return nil
	}
	var e im.Error
	if err := e.Unmarshal(f.Body); err != nil {
		return &code.Error{Code: f.Status, Message: f.Status.Meaning()}
	}
	return &code.Error{
		Code:       f.Status,
		Message:    strings.Clone(e.Message),
		RetryAfter: min(time.Duration(e.RetryAfterMs)*time.Millisecond, maxRetryAfter),
	}
}

// pushed takes what the server says by itself.
func (c *Core) pushed(now time.Time, f *wire.Frame) {
	switch f.Cmd {
	case im.Cmd_PUSH:
		decoded(c, now, f, &im.Push{}, c.onPush)
	case im.Cmd_NOTICE:
		decoded(c, now, f, &im.Notice{}, c.onNotice)
	case im.Cmd_TYPING:
		decoded(c, now, f, &im.Typing{}, func(_ time.Time, t *im.Typing) {
			c.emit(Typing{Conv: t.Conv, UID: t.Uid, Stopped: t.Stopped})
		})
	case im.Cmd_ANNOUNCE:
		decoded(c, now, f, &im.Announcement{}, func(_ time.Time, a *im.Announcement) {
			c.emit(Announced{ID: a.Id, Text: a.Text, Data: a.Data, At: time.UnixMilli(a.AtMs)})
		})
	case im.Cmd_KICK:
		decoded(c, now, f, &im.Kick{}, c.onKick)
	case im.Cmd_GOAWAY:
		decoded(c, now, f, &im.GoAway{}, func(_ time.Time, g *im.GoAway) {
			c.emit(GoAway{MaxDelay: time.Duration(g.MaxDelayMs) * time.Millisecond, Endpoints: g.Endpoints, Reason: g.Reason})
		})
	case im.Cmd_ERROR:
		decoded(c, now, f, &im.Error{}, c.onError)
	case im.Cmd_PING:
		c.frame(now, wire.Frame{Cmd: im.Cmd_PING, Flags: wire.FlagResponse, Seq: f.Seq, Body: encode(&im.Pong{})})
	default:
		if f.Flags&wire.FlagCritical != 0 {
			c.closeLink(now, Closing{Code: code.CloseProtocolError, Reason: "critical command " + f.Cmd.String() + " is not known here"})
		}
	}
}

type message interface{ Unmarshal([]byte) error }

// decoded gives a frame's body to fn, or ends the connection if it cannot be read.
func decoded[M message](c *Core, now time.Time, f *wire.Frame, m M, fn func(time.Time, M)) {
	if err := m.Unmarshal(f.Body); err != nil {
		c.unreadable(now, f.Cmd)
		return
	}
	fn(now, m)
}

func (c *Core) unreadable(now time.Time, cmd im.Cmd) {
	c.closeLink(now, Closing{Code: code.CloseProtocolError, Reason: "body of " + cmd.String() + " cannot be read"})
}

func (c *Core) hello(now time.Time) {
	h := &im.Hello{
		ClientVersion: c.cfg.ClientVersion, Device: c.cfg.Device, Platform: c.cfg.Platform,
		Suites: []string{"plain"},
	}
	c.request(now, im.Cmd_HELLO, h, &call{done: func(now time.Time, a answer) {
		var ack im.HelloAck
		if c.refused(now, a) {
			return
		}
		if err := ack.Unmarshal(a.body); err != nil {
			c.unreadable(now, im.Cmd_HELLO)
			return
		}
		if ack.MaxBody > 0 {
			c.maxBody = int(ack.MaxBody)
		}
		c.auth(now)
	}})
}

// auth logs in. The counter is saved before the frame leaves: a login that arrives late is
// told from a later one by it (R27).
func (c *Core) auth(now time.Time) {
	c.stage = authenticating
	c.saved.Counter++
	c.before().Counter = c.saved.Counter
	asked := c.saved.Cursor
	a := &im.Auth{
		Token: c.link.Token, Epoch: asked.Epoch, Cursor: asked.Version,
		ConnectionCounter: c.saved.Counter,
		Device:            c.cfg.Device, Platform: c.cfg.Platform, PushToken: c.cfg.PushToken,
		SyncLimit: c.cfg.SyncLimit, ModsKnown: c.modsKnown(authModsBytes),
	}
	c.reads++
	c.request(now, im.Cmd_AUTH, a, &call{done: func(now time.Time, a answer) {
		defer c.readDone()
		var ack im.AuthAck
		if c.refused(now, a) {
			return
		}
		if err := ack.Unmarshal(a.body); err != nil {
			c.unreadable(now, im.Cmd_AUTH)
			return
		}
		c.onAuthAck(now, &ack, asked)
	}})
}

// refused ends the connection when HELLO or AUTH was refused.
func (c *Core) refused(now time.Time, a answer) bool {
	if a.err == nil {
		return false
	}
	cl := Closing{Code: a.err.Code, Reason: a.err.Message, Final: Final(a.err.Code), RetryAfter: a.err.RetryAfter}
	if cl.Final {
		c.emit(Kicked{Code: cl.Code, Reason: cl.Reason, At: now})
	}
	c.closeLink(now, cl)
	return true
}

func (c *Core) onAuthAck(now time.Time, ack *im.AuthAck, asked Cursor) {
	if c.saved.UID != "" && c.saved.UID != ack.Uid {
		c.closeLink(now, Closing{
			Code: code.BadToken, Final: true,
			Reason: "the token is for " + ack.Uid + ", this device's store belongs to " + c.saved.UID,
		})
		return
	}
	if c.saved.UID == "" {
		c.saved.UID = strings.Clone(ack.Uid)
		c.after().UID = c.saved.UID
	}
	c.stage = online
	c.acked = asked // AUTH said so
	if s := time.Duration(ack.HeartbeatS) * time.Second; s > 0 {
		c.heartbeat = min(c.heartbeat, s)
	}
	c.emit(Online{Tenant: ack.Tenant, UID: ack.Uid, Device: ack.Device, Session: ack.Session})
	if ack.Sync != nil {
		c.onSync(now, ack.Sync, asked)
		return
	}
	c.askSync(now, 0)
}

func (c *Core) onKick(now time.Time, k *im.Kick) {
	cd := code.Code(k.Code)
	final := Final(cd)
	c.emit(Kicked{Code: cd, Reason: k.Reason, ByDevice: k.ByDevice, At: time.UnixMilli(k.AtMs)})
	c.closeLink(now, Closing{Code: cd, Reason: k.Reason, Final: final})
}

// onError: with a close code it is the last word before the connection ends.
func (c *Core) onError(now time.Time, e *im.Error) {
	cd := code.Code(e.Code)
	if cd < 4000 {
		c.emit(Problem{&code.Error{Code: cd, Message: e.Message, RetryAfter: time.Duration(e.RetryAfterMs) * time.Millisecond}})
		return
	}
	if Final(cd) {
		c.emit(Kicked{Code: cd, Reason: e.Message, At: now})
	}
	c.closeLink(now, Closing{
		Code: cd, Reason: e.Message, Final: Final(cd),
		RetryAfter: min(time.Duration(e.RetryAfterMs)*time.Millisecond, maxRetryAfter),
	})
}

func (c *Core) onNotice(now time.Time, n *im.Notice) {
	if n.What == im.Notice_QUERY {
		c.emit(Noticed{What: n.What, Unread: n.Unread})
		return
	}
	here := c.saved.Cursor
	if n.Head > 0 && n.Epoch == here.Epoch && n.Head <= here.Version {
		c.unheard(now, n.Head) // or it was on its way while we caught up
		return
	}
	c.askSync(now, 0)
}

// pingIfDue keeps a connection alive on which nothing is written, and ends one that does
// not answer. A gateway answers PING whatever becomes of other requests: if nothing at all
// was heard since one was written, the other end may be gone without a word.
func (c *Core) pingIfDue(now time.Time) {
	if c.stage != online || c.pinging {
		return
	}
	silent := !c.owedSince.IsZero() && c.due(now, c.owedSince.Add(c.cfg.RetryAfter))
	if !silent && !c.due(now, c.wroteAt.Add(c.heartbeat)) {
		return
	}
	c.pinging = true
	c.request(now, im.Cmd_PING, &im.Ping{}, &call{
		done: func(at time.Time, a answer) {
			c.pinging = false
			var pong im.Pong
			if a.err == nil && pong.Unmarshal(a.body) == nil {
				c.clock.sample(now, at, pong.ServerMs)
			}
		},
		late: func(now time.Time) {
			c.closeLink(now, Closing{Code: code.CloseIdle, Reason: "no answer to PING"})
		},
	})
}

// clock keeps the offset of the server's clock, from the sample with the least round trip.
type clock struct {
	known  bool
	trip   time.Duration
	offset time.Duration // server - here
}

func (k *clock) sample(asked, answered time.Time, serverMS int64) {
	trip := answered.Sub(asked)
	if serverMS == 0 || k.known && trip > k.trip {
		return
	}
	*k = clock{true, trip, time.UnixMilli(serverMS).Sub(asked.Add(trip / 2))}
}

// ServerTime is the server's clock at now, as well as it is known.
func (c *Core) ServerTime(now time.Time) time.Time { return now.Add(c.clock.offset) }
