package imui

import (
	"context"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/idl/platform"
	"hongyan/internal/notice"
)

// Notify implements platform.IMUI: every gateway tells the sessions it holds (JT-13).
func (s *Service) Notify(ctx context.Context, req *platform.NotifyRequest) (*platform.NotifyReply, error) {
	id := ""
	status := s.call("Notify", req.Caller, func() error {
		if s.queue == nil {
			return code.Errorf(code.Unsupported, "no queue is configured here")
		}
		n := &event.OnlineNotice{
			Id: req.Id, Tenant: req.Caller.Tenant, Platforms: req.Platforms, Classes: req.Classes,
			Text: req.Text, Data: req.Data, TtlMs: req.TtlMs,
		}
		m, err := notice.Message(n)
		if err != nil {
			return err
		}
		id = n.Id
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		return s.queue.Publish(ctx, m)
	})
	return &platform.NotifyReply{Status: status, Id: id}, nil
}
