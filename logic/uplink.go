package logic

import (
	"context"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// Uplink takes packets and events of clients. It returns when all are in their lanes or
// batches, in order per user; answers follow by Downlink. The items are kept.
func (l *Logic) Uplink(_ context.Context, b *tier.UplinkBatch) (*tier.Accepted, error) {
	if err := l.accepts(); err != nil {
		return nil, err
	}
	l.live.heard(b.Boot)
	now := time.Now()
	for _, up := range b.Items {
		switch up.Event {
		case tier.Uplink_PACKET:
			l.packet(&request{up: up, gateway: b.Gateway, boot: b.Boot}, now)
		case tier.Uplink_CURSOR:
			l.cursorEvent(up, b.Boot)
		case tier.Uplink_OVERDUE:
			l.overdue(up)
		case tier.Uplink_CLOSED:
			r := &request{up: up, gateway: b.Gateway, boot: b.Boot, deadline: now.Add(l.cfg.CommandTimeout)}
			if !l.lanes[session].put(r.user(), r) {
				l.closed(r)
			}
		}
	}
	return accepted(), nil
}

// accepted is the answer to every batch.
func accepted() *tier.Accepted { return &tier.Accepted{} }

// packet runs a command or puts it into its lane.
func (l *Logic) packet(r *request, now time.Time) {
	c := l.command(r.up.Cmd)
	if c == nil {
		l.fail(r, code.Errorf(code.Unsupported, "command %s is not supported", r.cmd()))
		return
	}
	if r.deadline.IsZero() {
		r.deadline = now.Add(l.life(r.up, c))
	}
	if c.duty == inline {
		l.run(context.Background(), c, r, now)
		return
	}
	if !l.lanes[c.duty].put(r.user(), r) {
		l.met.shed(c.duty)
		err := code.Errorf(code.Overloaded, "too many %s commands are waiting", l.lanes[c.duty].name)
		err.RetryAfter = shedRetry
		l.fail(r, err)
	}
}

// shedRetry is when a client may come back that met a full lane.
const shedRetry = 500 * time.Millisecond

// life of a packet from now on: what its gateway left it (R10), or the default of its kind.
func (l *Logic) life(up *tier.Uplink, c *command) time.Duration {
	most := l.cfg.CommandTimeout
	if c.duty == inline {
		most = l.cfg.SendTTL
	}
	if ms := up.TtlMs; ms < 0 {
		return 0
	} else if ms > 0 && ms < most.Milliseconds() {
		return time.Duration(ms) * time.Millisecond
	}
	return most
}

// serve does what a lane holds: a command, an event or a job.
func (l *Logic) serve(ctx context.Context, r *request) {
	if r.up.Event == tier.Uplink_CLOSED {
		l.closed(r)
		return
	}
	ctx, cancel := context.WithDeadline(ctx, r.deadline)
	defer cancel()
	if r.job != nil {
		r.job(ctx)
		return
	}
	l.run(ctx, l.command(r.up.Cmd), r, time.Now())
}

// run runs a command, unless its time is up, and answers it.
func (l *Logic) run(ctx context.Context, c *command, r *request, now time.Time) {
	if !now.Before(r.deadline) {
		l.fail(r, code.Errorf(code.Expired, "the request outlived its deadline in a queue"))
		return
	}
	r.at = now
	body, err := c.run(l, ctx, r)
	switch {
	case err != nil:
		l.fail(r, err)
	case body != nil:
		l.answer(r, body)
	}
}

// answer sends the response of a request that was done.
func (l *Logic) answer(r *request, body message) {
	l.respond(r, code.OK, body, nil)
}

// fail answers a request with an error. What is not an error for callers is logged here,
// once, and told as internal.
func (l *Logic) fail(r *request, err error) { l.failClose(r, err, code.OK) }

// failClose is fail, and closes the connection with a code unless that is OK.
func (l *Logic) failClose(r *request, err error, closing code.Code) {
	e := code.From(err)
	if e.Code == code.Internal {
		l.log.Error("command failed", "cmd", r.cmd().String(), "tenant", r.up.Tenant, "uid", r.up.Uid,
			"request_id", r.up.RequestId, "err", err)
	}
	body := &im.Error{
		Code: uint32(e.Code), Name: e.Code.Name(), Message: e.Message, RequestId: r.up.RequestId,
		Retryable: e.Code.Retryable(), RetryAfterMs: uint32(e.RetryAfter.Milliseconds()),
	}
	l.respond(r, e.Code, body, &tier.Down{Close: uint32(closing)})
}

// respond sends a response, on the frame down if that is given.
func (l *Logic) respond(r *request, status code.Code, body message, down *tier.Down) {
	l.met.command(r.cmd(), status)
	encoded, err := body.Marshal(make([]byte, 0, 96))
	if err != nil {
		l.log.Error("response cannot be encoded", "cmd", r.cmd().String(), "err", err)
		return
	}
	if r.done != nil {
		reply := &tier.ExecuteReply{Code: uint32(status), Body: encoded}
		if e, ok := body.(*im.Error); ok {
			reply.Message, reply.RetryAfterMs = e.Message, e.RetryAfterMs
		}
		select {
		case r.done <- reply:
		default: // answered already: the caller has gone
		}
		return
	}
	if c := l.command(r.up.Cmd); c != nil && c.oneWay {
		return
	}
	if down == nil {
		down = &tier.Down{}
	}
	down.Conn, down.Cmd, down.Response, down.Seq = r.up.Conn, r.up.Cmd, true, r.up.Seq
	down.Status, down.Body = uint32(status), encoded
	l.downItem(lineKey{r.gateway, r.boot}, downItem{down: down, arrived: r.arrived})
}
