package extlogic

import (
	"context"
	"errors"
	"fmt"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/mq"
	"hongyan/internal/notice"
)

// notice sends what a business system put into the queue to one user, as the channel (ZZ-03,
// ZZ-09). client_msg_id makes repeating it harmless; without one it would not be, so such a
// notice is refused.
func (e *ExtLogic) notice(ctx context.Context, m mq.Message) error {
	err := e.send(ctx, m)
	e.metrics.notices.WithLabelValues(code.Of(err).Name()).Inc()
	if ce, ok := errors.AsType[*code.Error](err); ok && !ce.Code.Retryable() {
		return fmt.Errorf("system notice: %w: %w", err, mq.ErrReject)
	}
	return err
}

func (e *ExtLogic) send(ctx context.Context, m mq.Message) error {
	n, err := notice.System(m.Payload)
	if err != nil {
		return err
	}
	id, err := conv.System(n.Channel, n.Uid)
	if err != nil {
		return err
	}
	body, err := (&im.Send{ClientMsgId: n.ClientMsgId, Conv: id, Kind: im.Kind_SYSTEM, Text: n.Text, Data: n.Data}).Marshal(nil)
	if err != nil {
		return code.Errorf(code.BadRequest, "notice cannot be encoded: %w", err)
	}
	_, err = e.exec.Run(ctx, &tier.ExecuteRequest{
		Tenant: n.Tenant, Uid: n.Uid, Cmd: uint32(im.Cmd_SEND), Body: body, System: true,
	})
	return err
}
