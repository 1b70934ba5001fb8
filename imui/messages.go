package imui

import (
	"context"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/platform"
	"hongyan/internal/conv"
)

// MaxRecipients of one SendSystem.
const MaxRecipients = 500

// firstEvent is the lowest im.Kind that a caller cannot send: events come of commands.
const firstEvent = im.Kind_EVENT_RECALL

// SendMessage implements platform.IMUI.
func (s *Service) SendMessage(ctx context.Context, req *platform.SendMessageRequest) (*platform.SendMessageReply, error) {
	var ack im.SendAck
	status := s.call("SendMessage", req.Caller, func() error {
		if err := checkUID("from", req.From); err != nil {
			return err
		}
		if err := checkUID("to", req.To); err != nil {
			return err
		}
		if req.Kind >= uint32(firstEvent) {
			return code.Errorf(code.BadRequest, "kind: %d is not a kind of message", req.Kind)
		}
		return s.run(ctx, req.Caller, req.From, im.Cmd_SEND, &im.Send{
			ClientMsgId: idOr(req.ClientMsgId), To: req.To, Text: req.Text, Data: req.Data,
			Kind: im.Kind(req.Kind),
		}, &ack)
	})
	return &platform.SendMessageReply{
		Status: status, Conv: ack.Conv, Seq: ack.Seq, CreatedMs: ack.CreatedMs, Duplicate: ack.Duplicate,
	}, nil
}

// SendSystem implements platform.IMUI. Each user has a result of his own: one that fails
// stops no other.
func (s *Service) SendSystem(ctx context.Context, req *platform.SendSystemRequest) (*platform.SendSystemReply, error) {
	results := []*platform.SendResult{}
	status := s.call("SendSystem", req.Caller, func() error {
		if err := checkUID("channel", req.Channel); err != nil {
			return err
		}
		if len(req.To) == 0 || len(req.To) > MaxRecipients {
			return code.Errorf(code.BadRequest, "to: %d users; must be 1 to %d", len(req.To), MaxRecipients)
		}
		if err := s.callers.spend(req.Caller, len(req.To)-1); err != nil {
			return err
		}
		results = s.sendEach(ctx, req)
		return nil
	})
	return &platform.SendSystemReply{Status: status, Results: results}, nil
}

func (s *Service) sendEach(ctx context.Context, req *platform.SendSystemRequest) []*platform.SendResult {
	msgID := idOr(req.ClientMsgId)
	results := make([]*platform.SendResult, len(req.To))
	var group errgroup.Group
	group.SetLimit(s.cfg.Concurrency)
	for i, uid := range req.To {
		group.Go(func() error {
			var ack im.SendAck
			err := s.notify(ctx, req, uid, msgID, &ack)
			results[i] = &platform.SendResult{Uid: uid, Status: s.status(req.Caller.RequestId, err), Conv: ack.Conv, Seq: ack.Seq}
			return nil
		})
	}
	_ = group.Wait() // errors are in the results
	return results
}

// notify appends to the user's log of the channel. The user's home carries it out.
func (s *Service) notify(ctx context.Context, req *platform.SendSystemRequest, uid, msgID string, ack *im.SendAck) error {
	id, err := conv.System(req.Channel, uid)
	if err != nil {
		return err
	}
	return s.run(ctx, req.Caller, uid, im.Cmd_SEND, &im.Send{
		ClientMsgId: msgID, Conv: id, Kind: im.Kind_SYSTEM, Text: req.Text, Data: req.Data,
	}, ack)
}

// idOr makes an id where the caller has none: then a retry may send twice.
func idOr(id string) string {
	if id != "" {
		return id
	}
	return uuid.Must(uuid.NewV7()).String()
}
