package logic

import (
	"context"
	"time"

	"github.com/google/uuid"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/route"
)

// recall takes a message back: an event of the log that also rewrites its target.
func (l *Logic) recall(_ context.Context, r *request, req *im.Modify) (message, error) {
	if req.Text != "" || len(req.Data) > 0 {
		return nil, code.Errorf(code.BadRequest, "text, data: a recall has neither")
	}
	return nil, l.modify(r, req, im.Kind_EVENT_RECALL)
}

// edit gives a message a new body.
func (l *Logic) edit(_ context.Context, r *request, req *im.Modify) (message, error) {
	if err := l.checkBody(req.Text, req.Data); err != nil {
		return nil, err
	}
	return nil, l.modify(r, req, im.Kind_EVENT_EDIT)
}

func (l *Logic) modify(r *request, req *im.Modify, kind im.Kind) error {
	name, sender, id, err := target(r, req.Conv, "")
	if err != nil {
		return err
	}
	if req.Seq == 0 {
		return code.Errorf(code.BadRequest, "seq is missing: which message?")
	}
	if err := l.eventID(r, &req.ClientMsgId, &req.Attempt); err != nil {
		return err
	}
	if err := l.admit(); err != nil {
		return err
	}
	c := &call{request: r, conv: name, reply: sendAck}
	c.msg = tier.Append{
		Conv: name, Sender: sender, ClientMsgId: req.ClientMsgId, Attempt: req.Attempt,
		Kind: kind, Text: req.Text, Data: req.Data, TargetSeq: req.Seq,
	}
	return l.appendMessage(c, id)
}

// eventID checks the client_msg_id of an event. Through Execute it may be missing.
func (l *Logic) eventID(r *request, id *string, attempt *uint32) error {
	if *id == "" && r.done != nil {
		return newID(id, attempt)
	}
	return checkID("client_msg_id", *id)
}

// newID makes a client_msg_id for a caller that has none.
func newID(id *string, attempt *uint32) error {
	v7, err := uuid.NewV7()
	if err != nil {
		return err
	}
	*id, *attempt = v7.String(), 1
	return nil
}

// block stops, or lets again, the other side of a private conversation send: an event of
// its log, so that no stale copy of the flag survives it (R28).
func (l *Logic) block(_ context.Context, r *request, req *im.Block) (message, error) {
	name, err := conv.Private(r.up.Uid, req.Uid)
	if err != nil {
		return nil, err
	}
	attempt := uint32(0)
	if req.ClientMsgId == "" {
		err = newID(&req.ClientMsgId, &attempt)
	} else {
		err = checkID("client_msg_id", req.ClientMsgId)
	}
	if err != nil {
		return nil, err
	}
	if err := l.admit(); err != nil {
		return nil, err
	}
	kind := im.Kind_EVENT_UNBLOCK
	if req.On {
		kind = im.Kind_EVENT_BLOCK
	}
	id, err := conv.Parse(name)
	if err != nil {
		return nil, err
	}
	c := &call{request: r, conv: name, reply: blockAck, untold: true}
	c.msg = tier.Append{
		Conv: name, Sender: r.up.Uid, ClientMsgId: req.ClientMsgId, Attempt: attempt, Kind: kind, Peer: req.Uid,
	}
	return nil, l.appendMessage(c, id)
}

func blockAck(c *call, s *tier.Settled, _ bool) message {
	ack := &im.BlockAck{Conv: c.conv}
	if s.Append != nil {
		ack.Seq = s.Append.Seq
	}
	return ack
}

// settings changes how the user sees one conversation.
func (l *Logic) settings(_ context.Context, r *request, req *im.Settings) (message, error) {
	if _, err := member(r, req.Conv); err != nil {
		return nil, err
	}
	if len(req.Fields) == 0 {
		return nil, code.Errorf(code.BadRequest, "fields is empty: name pinned, muted, hidden or remark")
	}
	for _, f := range req.Fields {
		switch f {
		case "pinned", "muted", "hidden":
		case "remark":
			if err := checkText("remark", req.Remark, maxRemark); err != nil {
				return nil, err
			}
		default:
			return nil, code.Errorf(code.BadRequest, "fields: %.64q is not one of pinned, muted, hidden, remark", f)
		}
	}
	c := &call{request: r, conv: req.Conv, reply: settingsAck}
	c.submit = tier.Submit{
		Tenant: r.up.Tenant, Repeated: r.up.Repeated,
		Settings: &tier.SettingsMark{Uid: r.up.Uid, Settings: req},
	}
	return nil, l.begin(c, r.user())
}

func settingsAck(_ *call, s *tier.Settled, carries bool) message {
	ack := &im.SettingsAck{Conversation: s.Row}
	if carries {
		ack.Epoch, ack.Version = s.Epoch, s.Version
	}
	return ack
}

// read moves the user's read position. Where logs live with other das, the position is
// resolved on the log first.
func (l *Logic) read(ctx context.Context, r *request, req *im.Read) (message, error) {
	id, err := member(r, req.Conv)
	if err != nil {
		return nil, err
	}
	if req.Seq == 0 {
		return nil, code.Errorf(code.BadRequest, "seq is missing: read up to which message?")
	}
	mark, err := l.readMark(ctx, r.up.Tenant, r.up.Uid, id, req)
	if err != nil {
		return nil, err
	}
	c := &call{request: r, conv: req.Conv, reply: readAck}
	c.submit = tier.Submit{Tenant: r.up.Tenant, Repeated: r.up.Repeated, Read: mark}
	return nil, l.begin(c, r.user())
}

func (l *Logic) readMark(ctx context.Context, tenant, uid string, id conv.ID, req *im.Read) (*tier.ReadMark, error) {
	mark := &tier.ReadMark{Uid: uid, Conv: req.Conv, Seq: req.Seq, Homes: l.homes(tenant, id)}
	if l.deps.Das.Slots() <= 1 && !l.twoStage.Load() {
		return mark, nil
	}
	ask := &tier.ReadPointRequest{Tenant: tenant, Uid: uid, Conv: req.Conv, Seq: req.Seq}
	point, err := read(l, ctx, route.Hash(tenant, req.Conv), func(ctx context.Context, das tier.Das) (*tier.ReadPointReply, error) {
		return das.ReadPoint(ctx, ask)
	})
	mark.Point = point
	return mark, err
}

func readAck(c *call, s *tier.Settled, carries bool) message {
	ack := &im.ReadAck{Conv: c.conv}
	if s.Row != nil {
		ack.ReadSeq, ack.Unread = s.Row.ReadSeq, s.Row.Unread
	}
	if carries {
		ack.Epoch, ack.Version, ack.LastSeq = s.Epoch, s.Version, s.LastSeq
	}
	return ack
}

// displayed marks what a SEND said was shown to its user, where das could not do so within
// the append. Best effort: the next READ repeats it.
func (l *Logic) displayed(c *call) {
	id, err := conv.Parse(c.conv)
	if err != nil || id.Kind != conv.KindPrivate {
		return
	}
	r := &request{up: c.up, deadline: time.Now().Add(l.cfg.CommandTimeout)}
	r.job = func(ctx context.Context) {
		mark, err := l.readMark(ctx, c.up.Tenant, c.up.Uid, id, &im.Read{Conv: c.conv, Seq: c.displayed})
		if err == nil {
			_, err = l.await(ctx, r.user(), &tier.Submit{Tenant: c.up.Tenant, Read: mark})
		}
		if err != nil {
			l.log.Debug("displayed position was not stored", "tenant", c.up.Tenant, "uid", c.up.Uid, "conv", c.conv, "err", err)
		}
	}
	l.lanes[chat].put(r.user(), r)
}
