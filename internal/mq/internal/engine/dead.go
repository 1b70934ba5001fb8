package engine

import (
	"context"
	"fmt"
	"strconv"

	"hongyan/internal/mq"
)

// Dead implements mq.Queue.
func (q *Queue) Dead(ctx context.Context, topicName, groupName string, limit int) ([]mq.DeadLetter, error) {
	if err := mq.CheckGroup(ctx, topicName, groupName); err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	if !q.enter() { // holds Close back as a Publish does
		return nil, fmt.Errorf("dead letters: %w", mq.ErrClosed)
	}
	defer q.publishing.Done()
	if limit <= 0 {
		return nil, nil
	}
	letters, err := q.log.Dead(topicName, groupName, 0, limit)
	if err != nil {
		return nil, fmt.Errorf("dead letters of %s for %s: %w", topicName, groupName, err)
	}
	out := make([]mq.DeadLetter, len(letters))
	for i, l := range letters {
		out[i] = mq.DeadLetter{
			ID:      strconv.FormatUint(l.N, 10),
			Message: mq.Message{Topic: l.Topic, Key: l.Key, Payload: l.Payload, Attempt: l.Attempts},
			At:      l.At,
			Error:   l.Error,
		}
	}
	return out, nil
}

// Retry implements mq.Queue. A crash between the two steps leaves the letter on the list.
func (q *Queue) Retry(ctx context.Context, topicName, groupName string, ids ...string) (int, error) {
	if err := mq.CheckGroup(ctx, topicName, groupName); err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	if !q.enter() {
		return 0, fmt.Errorf("retry: %w", mq.ErrClosed)
	}
	defer q.publishing.Done()
	retried := 0
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return retried, fmt.Errorf("retry: %q names no dead letter", id)
		}
		letters, err := q.log.Dead(topicName, groupName, n, 1)
		if err != nil {
			return retried, fmt.Errorf("retry: %w", err)
		}
		if len(letters) == 0 || letters[0].N != n {
			continue
		}
		m := mq.Message{Topic: topicName, Key: letters[0].Key, Payload: letters[0].Payload}
		if err := q.store(ctx, &publish{msgs: []mq.Message{m}, group: groupName, done: make(chan error, 1)}); err != nil {
			return retried, fmt.Errorf("retry: %w", err)
		}
		if err := q.log.Unbury(topicName, groupName, n); err != nil {
			return retried, fmt.Errorf("retry: %w", err)
		}
		retried++
	}
	return retried, nil
}
