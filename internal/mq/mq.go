// Package mq is the message queue between Logic and Extlogic: RocketMQ in a cluster, an
// embedded durable queue in one process. It only wakes: whatever it loses can be read
// from the store again, whatever it repeats is harmless.
package mq

import (
	"context"
	"errors"
)

// Topics.
const (
	TopicOffline = "offline" // event.Offline
	TopicSystem  = "system"  // event.SystemNotice
)

// Message is one entry of a topic. Messages of one Key are handled in order, one at a
// time: one that fails holds up those behind it. Without a Key there is no order.
type Message struct {
	Topic   string
	Key     string
	Payload []byte // given up by the publisher, not changed by handlers
	Attempt int    // from 1, set on delivery
}

// Handler handles one message. An error means: again later, with growing delay; after
// MaxAttempts the message goes to the topic's dead letters, with ErrReject at once. An
// error after ctx ended does not count as an attempt. A panic is an error.
type Handler func(ctx context.Context, m Message) error

// MaxAttempts before a message is a dead letter.
const MaxAttempts = 16

const (
	// MaxName bounds the names of topics and groups, in bytes of [a-zA-Z0-9_.-].
	MaxName = 64
	// MaxKey bounds a key, in bytes.
	MaxKey = 512
	// MaxPayload bounds a payload, in bytes.
	MaxPayload = 1 << 20
)

// Queue is safe for concurrent use.
type Queue interface {
	// Publish returns when the messages are stored durably, all or none. If ctx ends
	// before, the outcome is unknown.
	Publish(ctx context.Context, msgs ...Message) error
	// Subscribe runs handler for each message of topic, once per group (clustering: members
	// of a group share the messages), until ctx ends or the queue is closed. It returns
	// when the subscription stands; handlers run on goroutines the queue owns. A group's
	// first subscription begins with the oldest message still held; from then on the topic
	// keeps what the group has not handled, whether it has members or not.
	Subscribe(ctx context.Context, topic, group string, handler Handler) error
	// Dead lists at most limit dead letters of a topic and group, oldest message first.
	Dead(ctx context.Context, topic, group string, limit int) ([]Message, error)
	// Close waits for running handlers.
	Close() error
}

var (
	// ErrClosed: the queue is closed.
	ErrClosed = errors.New("queue is closed")
	// ErrReject, wrapped by a handler's error, makes the message a dead letter at once: it
	// can never be handled.
	ErrReject = errors.New("message can never be handled")
)
