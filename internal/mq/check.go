package mq

import (
	"context"
	"errors"
	"fmt"
)

// CheckName tells what is wrong with the name of a topic or group.
func CheckName(what, name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%s name has %d bytes, want 1 to %d", what, len(name), MaxName)
	}
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' {
			continue
		}
		return fmt.Errorf("%s name %q holds a byte other than a-z A-Z 0-9 _ - and dot", what, name)
	}
	return nil
}

// Check tells why a message cannot be published.
func Check(m Message) error {
	if err := CheckName("topic", m.Topic); err != nil {
		return err
	}
	if len(m.Key) > MaxKey {
		return fmt.Errorf("key has %d bytes, the limit is %d", len(m.Key), MaxKey)
	}
	if len(m.Payload) > MaxPayload {
		return fmt.Errorf("payload has %d bytes, the limit is %d", len(m.Payload), MaxPayload)
	}
	return nil
}

// CheckSubscribe tells why a topic cannot be subscribed to by a group.
func CheckSubscribe(ctx context.Context, topic, group string, handler Handler) error {
	err := errors.Join(CheckName("topic", topic), CheckName("group", group), ctx.Err())
	if Broadcast(topic) {
		err = errors.Join(err, fmt.Errorf("topic %s is a broadcast, which no group shares", topic))
	}
	return errors.Join(err, checkHandler(handler))
}

// CheckSubscribeAll tells why a topic cannot be listened to.
func CheckSubscribeAll(ctx context.Context, topic string, handler Handler) error {
	err := errors.Join(CheckName("topic", topic), ctx.Err())
	if !Broadcast(topic) {
		err = errors.Join(err, fmt.Errorf("topic %s is no broadcast: its messages are for groups", topic))
	}
	return errors.Join(err, checkHandler(handler))
}

func checkHandler(handler Handler) error {
	if handler == nil {
		return errors.New("no handler")
	}
	return nil
}

// CheckGroup tells why a topic and group cannot have dead letters.
func CheckGroup(ctx context.Context, topic, group string) error {
	return errors.Join(CheckName("topic", topic), CheckName("group", group), ctx.Err())
}
