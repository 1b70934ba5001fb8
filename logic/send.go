package logic

import (
	"bytes"
	"context"
	"math/rand/v2"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/route"
)

// call is a user's write on its way: SEND, RECALL, EDIT, BLOCK, READ, SETTINGS.
type call struct {
	write
	*request
	conv string
	// reply makes the answer of a committed write. carries: it may name the user's version,
	// because the device then needs no push of that change.
	reply func(c *call, s *tier.Settled, carries bool) message
	// displayed is the highest seq that a SEND says was shown: in the two-stage form a READ
	// of its own.
	displayed uint64
	// untold: the answer says nothing of the row that moved, so the device needs the push too.
	untold bool

	settled *tier.Settled // its outcome, while its change is looked for
	next    *call         // caused the same change
	// What a call needs on its way there and back, allocated with it.
	submit tier.Submit
	msg    tier.Append
	ack    im.SendAck
	down   tier.Down
}

func (c *call) failed(l *Logic, err *code.Error) { l.fail(c.request, err) }

// device is the one that learns of its own change by the answer; empty for none.
func (c *call) device() string {
	if c.request.done != nil {
		return ""
	}
	return c.up.Device
}

// send takes a message. It is checked and handed to the batch of its das here, on the
// caller's goroutine: a user's messages keep their order.
func (l *Logic) send(_ context.Context, r *request, req *im.Send) (message, error) {
	name, sender, id, err := target(r, req.Conv, req.To)
	if err != nil {
		return nil, err
	}
	if err = l.checkSend(r, req); err != nil {
		return nil, err
	}
	kind, err := kindOf(req.Kind, id, r.system)
	if err != nil {
		return nil, err
	}
	c := &call{request: r, conv: name, reply: sendAck, displayed: req.DisplayedSeq}
	c.msg = tier.Append{
		Conv: name, Sender: sender, ClientMsgId: req.ClientMsgId, Attempt: req.Attempt, After: req.After,
		Kind: kind, Text: req.Text, Data: req.Data, DisplayedSeq: req.DisplayedSeq,
	}
	if err = l.checkBody(req.Text, req.Data); err != nil {
		return nil, l.deny(c, err)
	}
	if err = l.admit(); err != nil {
		return nil, err
	}
	return nil, l.appendAllowed(c, id)
}

func (l *Logic) checkSend(r *request, req *im.Send) error {
	if req.ClientMsgId == "" && r.done != nil {
		if err := newID(&req.ClientMsgId, &req.Attempt); err != nil {
			return err
		}
	}
	if err := checkID("client_msg_id", req.ClientMsgId); err != nil {
		return err
	}
	if err := checkOptionalID("after", req.After, maxClientMsgID); err != nil {
		return err
	}
	if req.After == req.ClientMsgId {
		return code.Errorf(code.BadRequest, "after names the message itself")
	}
	return nil
}

// appendMessage submits an append; its answer follows when it is settled.
func (l *Logic) appendMessage(c *call, id conv.ID) error {
	c.msg.Homes = l.homes(c.up.Tenant, id)
	c.submit = tier.Submit{Tenant: c.up.Tenant, Repeated: c.up.Repeated, Append: &c.msg}
	return l.begin(c, route.Hash(c.up.Tenant, c.conv))
}

// begin submits a call's item.
func (l *Logic) begin(c *call, hash uint64) error {
	c.submit.TtlMs = max(1, c.deadline.Sub(c.at).Milliseconds())
	c.write = write{item: &c.submit, hash: hash, outcome: c, expires: c.at.Add(l.cfg.SettleTimeout)}
	if c.deadline.Before(c.expires) {
		c.expires = c.deadline
	}
	if err := l.submit(&c.write); err != nil {
		return err
	}
	return nil
}

// sendAck is the answer of SEND, RECALL and EDIT. Without the version, the change follows
// as a push.
func sendAck(c *call, s *tier.Settled, carries bool) message {
	a := s.Append
	ack := &c.ack
	ack.Conv, ack.ClientMsgId = c.conv, c.msg.ClientMsgId
	if a != nil {
		ack.Seq, ack.CreatedMs, ack.Duplicate = a.Seq, a.CreatedMs, a.Duplicate
	}
	if carries {
		ack.Epoch, ack.Version, ack.LastSeq = s.Epoch, s.Version, s.LastSeq
		if s.Row != nil && s.Row.ReadSeq > 0 {
			ack.ReadSeq, ack.Unread = s.Row.ReadSeq, s.Row.Unread
		}
	}
	return ack
}

// admit refuses a write that could not be taken without making those before it late:
// too many wait for a das, or committed messages have fallen behind in being fanned out
// (R04: nothing is shed after its commit, so it must be refused before).
func (l *Logic) admit() error {
	if n := l.writes.count.Load(); n >= int64(l.cfg.MaxInFlight) {
		return overloaded("%d writes are waiting", n)
	}
	if p := l.fans.pressure(l.cfg.MaxFanOut, l.cfg.MaxFanOutAge); p > 0 && rand.Float64() < p {
		return overloaded("messages sent before are still being fanned out")
	}
	return nil
}

func overloaded(format string, a ...any) error {
	err := code.Errorf(code.Overloaded, format, a...)
	err.RetryAfter = shedRetry + rand.N(shedRetry)
	return err
}

// deny answers a denial of a message, but not before an earlier commit of the same
// message has been looked for: rules and limits may have changed since (R29). Only the
// first attempt of a packet that no tier repeated cannot have one.
func (l *Logic) deny(c *call, denial error) error {
	if c.msg.Attempt == 1 && !c.up.Repeated {
		return denial
	}
	found := &request{up: c.up, gateway: c.gateway, boot: c.boot, system: c.system, deadline: c.deadline, done: c.done}
	found.job = func(ctx context.Context) {
		switch ack, err := l.committed(ctx, c); {
		case err != nil:
			l.fail(c.request, err)
		case ack == nil:
			l.fail(c.request, denial)
		default:
			l.answer(c.request, ack)
		}
	}
	if !l.lanes[query].put(found.user(), found) {
		return overloaded("too many queries are waiting")
	}
	return nil
}

// committed looks for an earlier commit of a message; nil when there is none.
func (l *Logic) committed(ctx context.Context, c *call) (*im.SendAck, error) {
	req := &tier.FindRequest{Tenant: c.up.Tenant, Conv: c.conv, Sender: c.msg.Sender, ClientMsgId: c.msg.ClientMsgId}
	reply, err := read(l, ctx, route.Hash(c.up.Tenant, c.conv), func(ctx context.Context, das tier.Das) (*tier.FindReply, error) {
		return das.Find(ctx, req)
	})
	if err != nil || reply.Message == nil {
		return nil, err
	}
	m := reply.Message
	if m.ModSeq == 0 && (m.Kind != c.msg.Kind || m.Text != c.msg.Text || !bytes.Equal(m.Data, c.msg.Data)) {
		return nil, code.Errorf(code.Conflict, "client_msg_id %s was used for another message", m.ClientMsgId)
	}
	return &im.SendAck{Conv: c.conv, Seq: m.Seq, CreatedMs: m.CreatedMs, Duplicate: true, ClientMsgId: m.ClientMsgId}, nil
}
