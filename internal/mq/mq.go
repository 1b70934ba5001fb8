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

// Message is one entry of a topic. Messages of one Key are handled in order, one at a time.
type Message struct {
	Topic   string
	Key     string
	Payload []byte
	Attempt int // from 1, set on delivery
}

// Handler handles one message. An error means: again later, with growing delay; after
// MaxAttempts the message goes to the topic's dead letters.
type Handler func(ctx context.Context, m Message) error

// MaxAttempts before a message is a dead letter.
const MaxAttempts = 16

// Queue is safe for concurrent use.
type Queue interface {
	// Publish returns when the messages are stored durably, all or none.
	Publish(ctx context.Context, msgs ...Message) error
	// Subscribe runs handler for each message of topic, once per group (clustering: members
	// of a group share the messages), until ctx ends or the queue is closed. It returns
	// when the subscription stands; handlers run on goroutines the queue owns.
	Subscribe(ctx context.Context, topic, group string, handler Handler) error
	// Dead lists at most limit dead letters of a topic and group, oldest first.
	Dead(ctx context.Context, topic, group string, limit int) ([]Message, error)
	// Close waits for running handlers.
	Close() error
}

// ErrClosed: the queue is closed.
var ErrClosed = errors.New("queue is closed")
