// Package mqtest is the suite that every mq.Queue passes.
package mqtest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/internal/mq"
)

// Options that a case asks of a queue.
type Options struct {
	Parallel               int
	MinBackoff, MaxBackoff time.Duration
}

// Backend is one implementation under test.
type Backend struct {
	// Open returns an empty queue.
	Open func(t *testing.T, opt Options) mq.Queue
	// Wrap, where not nil, runs each case, e.g. within a synctest bubble.
	Wrap func(*testing.T, func(*testing.T))
	// Backoff is the first delay after a failure: long in virtual time, short in real time.
	Backoff time.Duration
	// Overtakes: messages behind a failed one of their key do not wait for it.
	Overtakes bool
	// Patience bounds how long something may take to happen. Default 20 s.
	Patience time.Duration
}

type suite struct {
	*testing.T
	q         mq.Queue
	backoff   time.Duration
	overtakes bool
	patience  time.Duration
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	cases := []struct {
		name string
		run  func(*suite)
	}{
		{"messages arrive whole, once", arrive},
		{"messages of one key keep their order, one at a time", orderPerKey},
		{"keys are handled in parallel, up to a bound", parallelKeys},
		{"messages without a key do not wait for each other", noKey},
		{"a failed message comes again and holds up its key alone", redelivery},
		{"each group gets every message, its members share them", groups},
		{"a group begins with the oldest message still held", lateGroup},
		{"what nobody handles is kept until a member joins", noMember},
		{"ZZ-19 a member that goes away costs no message", memberLeaves},
		{"dead letters after the last attempt", deadLetters},
		{"a rejected message is a dead letter at once", rejected},
		{"a panic is a failure", panics},
		{"dead letters are retried by their group alone", retried},
		{"JT-13 a broadcast is heard by all who listen, once", broadcast},
		{"a broadcast is not tried again", broadcastFails},
		{"concurrent publishers", concurrentPublish},
		{"bad input is refused whole", badInput},
		{"close waits for handlers, then everything is refused", closing},
	}
	wrap := b.Wrap
	if wrap == nil {
		wrap = func(t *testing.T, run func(*testing.T)) { run(t) }
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			wrap(t, func(t *testing.T) {
				q := b.Open(t, Options{Parallel: 8, MinBackoff: b.Backoff, MaxBackoff: 8 * b.Backoff})
				defer func() {
					if err := q.Close(); err != nil {
						t.Error(err)
					}
				}()
				c.run(&suite{t, q, b.Backoff, b.Overtakes, cmp.Or(b.Patience, 20*time.Second)})
			})
		})
	}
}

func (s *suite) publish(topic string, keyed ...string) {
	s.Helper()
	var msgs []mq.Message
	for _, k := range keyed {
		key, payload, _ := strings.Cut(k, "=")
		msgs = append(msgs, mq.Message{Topic: topic, Key: key, Payload: []byte(payload)})
	}
	if err := s.q.Publish(s.Context(), msgs...); err != nil {
		s.Fatal(err)
	}
}

func (s *suite) subscribe(topic, group string, h mq.Handler) (leave func()) {
	s.Helper()
	ctx, leave := context.WithCancel(s.Context())
	if err := s.q.Subscribe(ctx, topic, group, h); err != nil {
		s.Fatal(err)
	}
	return leave
}

// inbox is a handler that keeps what it gets, as key=payload.
type inbox struct {
	mu   sync.Mutex
	got  []string
	news chan struct{} // capacity 1: one wake-up for any number of messages
}

func newInbox() *inbox { return &inbox{news: make(chan struct{}, 1)} }

func (i *inbox) handle(_ context.Context, m mq.Message) error {
	i.mu.Lock()
	i.got = append(i.got, m.Key+"="+string(m.Payload))
	i.mu.Unlock()
	select {
	case i.news <- struct{}{}:
	default:
	}
	return nil
}

// wait returns the first n messages.
func (s *suite) wait(i *inbox, n int) []string {
	s.Helper()
	deadline := time.After(s.patience)
	for {
		i.mu.Lock()
		got := slices.Clone(i.got)
		i.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-i.news:
		case <-deadline:
			s.Fatalf("%d messages arrived, want %d: %v", len(got), n, got)
		}
	}
}

// settle gives the queue time for what it should not do.
func (s *suite) settle() { time.Sleep(10 * s.backoff) }

func (s *suite) receive(c <-chan string) string {
	s.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(s.patience):
		s.Fatal("nothing came")
		return ""
	}
}
