package das

import (
	"errors"
	"fmt"
	"time"
)

// Form is how an append reaches the rows of the members.
type Form string

const (
	FormAuto      Form = "auto"       // one-commit if and only if the store is exclusive
	FormOneCommit Form = "one-commit" // message and members' rows in one transaction
	FormTwoStage  Form = "two-stage"  // message first, then a fan-out per member
)

// Config of a das. The zero value is not usable: start from DefaultConfig.
type Config struct {
	Form    Form          `koanf:"form"`    // auto, one-commit or two-stage
	Queues  QueuesConfig  `koanf:"queues"`  // bounds, per business
	Writers WritersConfig `koanf:"writers"` // on a store that other processes write too
	Commit  CommitConfig  `koanf:"commit"`
	Cache   CacheConfig   `koanf:"cache"` // per writer
	Reads   ReadsConfig   `koanf:"reads"` // concurrent reads, per business
	Lag     LagConfig     `koanf:"lag"`
	Session SessionConfig `koanf:"session"`

	// MaxBody is the most text and data of one message, in bytes.
	MaxBody int `koanf:"max_body"`
	// MaxAnswer is about how many bytes of messages one read returns; then it says that there
	// is more. No peer of the protocol must take a body over 1 MiB.
	MaxAnswer int `koanf:"max_answer"`
	// DedupeWindow is for how long the keys of a conversation's messages are remembered. It
	// must exceed by far what a SEND can live on its way here (R10).
	DedupeWindow time.Duration `koanf:"dedupe_window"`
	// RetryAfter is the hint with a refusal when all is well but a queue is full; it grows
	// tenfold as fan-out falls behind.
	RetryAfter time.Duration `koanf:"retry_after"`
	// DrainTime is for how long a stopping das still commits what it had accepted.
	DrainTime time.Duration `koanf:"drain_time"`
}

// QueuesConfig bounds the queue of each business.
type QueuesConfig struct {
	Message QueueConfig `koanf:"message"` // appends
	FanOut  QueueConfig `koanf:"fanout"`  // fan-outs: the bound slows appends, it refuses none
	Receipt QueueConfig `koanf:"receipt"` // reads, cursors, woken marks, finished outbox rows
	Session QueueConfig `koanf:"session"` // logins, logouts
	Contact QueueConfig `koanf:"contact"` // settings
	System  QueueConfig `koanf:"system"`  // push records
}

// QueueConfig is one bound.
type QueueConfig struct {
	Items int `koanf:"items"` // items waiting
	Bytes int `koanf:"bytes"` // their size in bytes
}

// WritersConfig counts writers, of each database. A store that is exclusive has one for everything.
type WritersConfig struct {
	Conversations int `koanf:"conversations"` // for what is keyed by conversation
	Users         int `koanf:"users"`         // for what is keyed by user
}

// CommitConfig shapes a group commit.
type CommitConfig struct {
	Items   int           `koanf:"items"`   // appends per commit at most; the other queues add half as many each, system an eighth
	Bytes   int           `koanf:"bytes"`   // of appends per commit
	Appends int           `koanf:"appends"` // accepted and not settled at most
	Timeout time.Duration `koanf:"timeout"` // then the outcome is unknown
	Repeats int           `koanf:"repeats"` // of an item whose key was fenced, then unavailable
	// Hold is how long an item waits here for a bucket that is closed, as it is for a moment
	// while it moves to another database; then unavailable.
	Hold time.Duration `koanf:"hold"`
	// LazyDelay is how long cursors and finished outbox rows may wait for another commit to
	// ride on.
	LazyDelay time.Duration `koanf:"lazy_delay"`
}

// CacheConfig bounds what one writer remembers, in entries.
type CacheConfig struct {
	Conversations int `koanf:"conversations"` // about 400 bytes each, 3 KB when busy
	Users         int `koanf:"users"`         // about 150 bytes
	Members       int `koanf:"members"`       // rows (user, conversation), about 350 bytes
}

// ReadsConfig is how many reads of a business run at once. As many times Waiting wait; more
// are refused.
type ReadsConfig struct {
	Message int `koanf:"message"` // History, Find, ReadPoint
	Session int `koanf:"session"` // Sync, Progress
	Contact int `koanf:"contact"` // Conversations, Unread
	System  int `koanf:"system"`  // Scan, Pushes
	Waiting int `koanf:"waiting"` // reads that may wait, per running one
}

// LagConfig says when appends are slowed because fan-outs fall behind (law 2).
type LagConfig struct {
	Age   time.Duration `koanf:"age"`   // a fan-out row open longer is overdue
	Rows  int           `koanf:"rows"`  // overdue rows at which no append is taken; slowed from half of it
	Every time.Duration `koanf:"every"` // between two looks
}

// SessionConfig is about the multi-device policy.
type SessionConfig struct {
	// FreeAfter is three renewal periods: a slot not renewed for so long is free, by the
	// store's clock.
	FreeAfter time.Duration `koanf:"free_after"`
	// RenewAfter is the least age at which a renewal is written.
	RenewAfter time.Duration `koanf:"renew_after"`
}

// DefaultConfig serves a machine with a few cores.
func DefaultConfig() Config {
	return Config{
		Form: FormAuto,
		Queues: QueuesConfig{
			Message: QueueConfig{Items: 16384, Bytes: 64 << 20},
			FanOut:  QueueConfig{Items: 32768, Bytes: 64 << 20},
			Receipt: QueueConfig{Items: 32768, Bytes: 16 << 20},
			Session: QueueConfig{Items: 16384, Bytes: 16 << 20},
			Contact: QueueConfig{Items: 4096, Bytes: 8 << 20},
			System:  QueueConfig{Items: 4096, Bytes: 16 << 20},
		},
		Writers: WritersConfig{Conversations: 2, Users: 2},
		Commit: CommitConfig{
			Items: 512, Bytes: 4 << 20, Appends: 16384,
			Timeout: 10 * time.Second, Repeats: 8, LazyDelay: 2 * time.Second, Hold: time.Second,
		},
		Cache:        CacheConfig{Conversations: 100_000, Users: 100_000, Members: 200_000},
		Reads:        ReadsConfig{Message: 16, Session: 16, Contact: 8, System: 4, Waiting: 64},
		Lag:          LagConfig{Age: 5 * time.Second, Rows: 256, Every: time.Second},
		Session:      SessionConfig{FreeAfter: 60 * time.Second, RenewAfter: 15 * time.Second},
		MaxBody:      256 << 10,
		MaxAnswer:    512 << 10,
		DedupeWindow: 5 * time.Minute,
		RetryAfter:   200 * time.Millisecond,
		DrainTime:    2 * time.Second,
	}
}

// Validate names every value that cannot work.
func (c Config) Validate() error {
	var errs []error
	switch c.Form {
	case FormAuto, FormOneCommit, FormTwoStage:
	default:
		errs = append(errs, fmt.Errorf("form %q is not auto, one-commit or two-stage", c.Form))
	}
	for _, v := range c.positive() {
		if v.value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be above 0, not %d", v.name, v.value))
		}
	}
	if c.Session.RenewAfter >= c.Session.FreeAfter {
		errs = append(errs, fmt.Errorf("session.renew_after (%v) must be below session.free_after (%v)",
			c.Session.RenewAfter, c.Session.FreeAfter))
	}
	return errors.Join(errs...)
}

type setting struct {
	name  string
	value int64
}

func (c Config) positive() []setting {
	list := []setting{
		{"writers.conversations", int64(c.Writers.Conversations)},
		{"writers.users", int64(c.Writers.Users)},
		{"commit.items", int64(c.Commit.Items)},
		{"commit.bytes", int64(c.Commit.Bytes)},
		{"commit.appends", int64(c.Commit.Appends)},
		{"commit.timeout", int64(c.Commit.Timeout)},
		{"commit.repeats", int64(c.Commit.Repeats)},
		{"commit.hold", int64(c.Commit.Hold)},
		{"commit.lazy_delay", int64(c.Commit.LazyDelay)},
		{"cache.conversations", int64(c.Cache.Conversations)},
		{"cache.users", int64(c.Cache.Users)},
		{"cache.members", int64(c.Cache.Members)},
		{"reads.message", int64(c.Reads.Message)},
		{"reads.session", int64(c.Reads.Session)},
		{"reads.contact", int64(c.Reads.Contact)},
		{"reads.system", int64(c.Reads.System)},
		{"reads.waiting", int64(c.Reads.Waiting)},
		{"lag.age", int64(c.Lag.Age)},
		{"lag.rows", int64(c.Lag.Rows)},
		{"lag.every", int64(c.Lag.Every)},
		{"max_body", int64(c.MaxBody)},
		{"max_answer", int64(c.MaxAnswer)},
		{"dedupe_window", int64(c.DedupeWindow)},
		{"retry_after", int64(c.RetryAfter)},
		{"drain_time", int64(c.DrainTime)},
		{"session.renew_after", int64(c.Session.RenewAfter)},
	}
	for b := range businesses {
		q := c.Queues.of(b)
		list = append(list,
			setting{"queues." + b.String() + ".items", int64(q.Items)},
			setting{"queues." + b.String() + ".bytes", int64(q.Bytes)})
	}
	return list
}

func (q QueuesConfig) of(b business) QueueConfig {
	return [businesses]QueueConfig{
		message: q.Message, fanout: q.FanOut, receipt: q.Receipt,
		session: q.Session, contact: q.Contact, system: q.System,
	}[b]
}
