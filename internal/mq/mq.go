// Package mq is the message queue between Logic and Extlogic: RocketMQ in a cluster, an
// embedded durable queue in one process. It only wakes: whatever it loses can be read
// from the store again, whatever it repeats is harmless.
//
// Topics are of two kinds. The messages of most are work: each group handles each message
// once or more (Subscribe). Those of a broadcast topic are heard by every process that
// listens, at most once, and are not kept (SubscribeAll).
package mq

import (
	"context"
	"errors"
	"time"
)

// Topics.
const (
	TopicOffline = "offline" // event.Offline
	TopicSystem  = "system"  // event.SystemNotice
	TopicOnline  = "online"  // event.OnlineNotice, a broadcast
)

// Topics are all there are.
func Topics() []string { return []string{TopicOffline, TopicSystem, TopicOnline} }

// Broadcast tells the topics of SubscribeAll from those of Subscribe.
func Broadcast(topic string) bool { return topic == TopicOnline }

// Message is one entry of a topic. Messages of one Key are handled one at a time in a
// process, and in order until one fails. What happens then depends on the queue: the
// embedded one holds up those behind it, RocketMQ hands the failed one out again later and
// goes on; so a handler must be right under both. Without a Key there is no order.
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

// DeadLetter is a message that its group could not handle.
type DeadLetter struct {
	ID      string // names it to Retry
	Message        // Attempt says how often it was tried
	At      time.Time
	Error   string // of the last attempt; empty where the queue does not keep it
}

// Queue is safe for concurrent use.
type Queue interface {
	// Publish returns nil when all messages are stored durably. With an error some of them
	// may be stored, or all: the caller repeats the whole. It ends within the time of ctx,
	// and of the queue's own. Broadcasts are sent, not stored.
	Publish(ctx context.Context, msgs ...Message) error
	// Subscribe runs handler for each message of topic, once per group (clustering: members
	// of a group share the messages), until ctx ends or the queue is closed. It returns
	// when the subscription stands; handlers run on goroutines the queue owns. A group's
	// first subscription begins with the oldest message still held; from then on the topic
	// keeps what the group has not handled, whether it has members or not.
	Subscribe(ctx context.Context, topic, group string, handler Handler) error
	// SubscribeAll runs handler, on one goroutine, for each message of a broadcast topic that
	// is published from now on, in every process that calls it, until ctx ends or the queue is
	// closed. Each comes at most once: an error is not tried again, and a process that falls
	// behind misses messages, which are counted.
	SubscribeAll(ctx context.Context, topic string, handler Handler) error
	// Dead lists at most limit dead letters of a topic and group, oldest message first. The
	// newest are kept, as many as the queue is configured for.
	Dead(ctx context.Context, topic, group string, limit int) ([]DeadLetter, error)
	// Retry hands dead letters of a group to it again, as new messages, takes them off the
	// list and returns how many. Ids that are not on the list are passed over.
	Retry(ctx context.Context, topic, group string, ids ...string) (int, error)
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
