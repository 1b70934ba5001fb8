package mqtest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"hongyan/internal/mq"
)

func broadcast(s *suite) {
	s.publish(mq.TopicOnline, "k=before")
	a, b := newInbox(), newInbox()
	ctx, leave := context.WithCancel(s.Context())
	for _, in := range []struct {
		ctx context.Context
		*inbox
	}{{ctx, a}, {s.Context(), b}} {
		if err := s.q.SubscribeAll(in.ctx, mq.TopicOnline, in.handle); err != nil {
			s.Fatal(err)
		}
	}
	s.publish(mq.TopicOnline, "k=1")
	s.wait(a, 1)
	leave()
	s.settle()
	s.publish(mq.TopicOnline, "k=2")
	s.wait(b, 2)
	s.settle()
	if got := s.wait(b, 2); !slices.Equal(got, []string{"k=1", "k=2"}) {
		s.Errorf("who stayed got %v", got)
	}
	if got := s.wait(a, 1); !slices.Equal(got, []string{"k=1"}) {
		s.Errorf("who left got %v", got)
	}
}

func broadcastFails(s *suite) {
	var calls atomic.Int64
	in := newInbox()
	err := s.q.SubscribeAll(s.Context(), mq.TopicOnline, func(ctx context.Context, m mq.Message) error {
		calls.Add(1)
		switch string(m.Payload) {
		case "error":
			return errors.New("no")
		case "panic":
			panic("no")
		}
		return in.handle(ctx, m)
	})
	if err != nil {
		s.Fatal(err)
	}
	s.publish(mq.TopicOnline, "k=error", "k=panic", "k=good")
	s.wait(in, 1)
	s.settle()
	if n := calls.Load(); n != 3 {
		s.Errorf("%d calls, want 3", n)
	}
}
