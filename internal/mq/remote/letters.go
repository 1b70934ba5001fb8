package remote

import (
	"context"
	"time"

	"hongyan/idl/tier"
	"hongyan/internal/mq"
)

// Letters are the dead letters of a queue that another process hosts.
type Letters struct{ Host tier.Queue }

// Dead is mq.Queue's.
func (l Letters) Dead(ctx context.Context, topic, group string, limit int) ([]mq.DeadLetter, error) {
	reply, err := l.Host.DeadLetters(ctx, &tier.DeadLettersRequest{Topic: topic, Group: group, Limit: uint32(max(limit, 0))})
	if err != nil {
		return nil, err
	}
	var dead []mq.DeadLetter
	for _, it := range reply.Letters {
		m := it.Message
		if m == nil {
			m = &tier.QueueMessage{}
		}
		d := mq.DeadLetter{
			ID: it.Id, Error: it.Error,
			Message: mq.Message{Topic: m.Topic, Key: m.Key, Payload: m.Payload, Attempt: int(it.Attempts)},
		}
		if it.AtMs != 0 {
			d.At = time.UnixMilli(it.AtMs)
		}
		dead = append(dead, d)
	}
	return dead, nil
}

// Retry is mq.Queue's.
func (l Letters) Retry(ctx context.Context, topic, group string, ids ...string) (int, error) {
	reply, err := l.Host.RetryDeadLetters(ctx, &tier.RetryDeadLettersRequest{Topic: topic, Group: group, Ids: ids})
	if err != nil {
		return 0, err
	}
	return int(reply.Retried), nil
}
