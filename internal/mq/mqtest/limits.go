package mqtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"hongyan/internal/mq"
)

func panics(s *suite) {
	in := newInbox()
	s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		if m.Attempt == 1 {
			panic("first time")
		}
		return in.handle(ctx, m)
	})
	s.publish("t", "k=x")
	s.wait(in, 1)
}

func concurrentPublish(s *suite) {
	const publishers, each = 16, 20
	in := newInbox()
	s.subscribe("t", "g", in.handle)
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for n := range each {
				err := s.q.Publish(s.Context(),
					mq.Message{Topic: "t", Key: fmt.Sprint(p), Payload: []byte(fmt.Sprint(2 * n))},
					mq.Message{Topic: "t", Key: fmt.Sprint(p), Payload: []byte(fmt.Sprint(2*n + 1))})
				if err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	for _, m := range s.wait(in, 2*publishers*each) {
		key, n, _ := strings.Cut(m, "=")
		if n != fmt.Sprint(next[key]) {
			s.Fatalf("publisher %s: %s where %d was due", key, n, next[key])
		}
		next[key]++
	}
}

func badInput(s *suite) {
	in := newInbox()
	s.subscribe("t", "g", in.handle)
	good := mq.Message{Topic: "t", Key: "k"}
	for name, bad := range map[string]mq.Message{
		"no topic":      {},
		"topic name":    {Topic: "a/b"},
		"long topic":    {Topic: strings.Repeat("t", mq.MaxName+1)},
		"long key":      {Topic: "t", Key: strings.Repeat("k", mq.MaxKey+1)},
		"large payload": {Topic: "t", Payload: make([]byte, mq.MaxPayload+1)},
	} {
		if err := s.q.Publish(s.Context(), good, bad); err == nil {
			s.Errorf("%s: published", name)
		}
	}
	ended, end := context.WithCancel(s.Context())
	end()
	if err := s.q.Publish(ended, good); err == nil {
		s.Error("published with an ended context")
	}
	if err := s.q.Publish(s.Context()); err != nil {
		s.Errorf("publishing nothing: %v", err)
	}
	for name, err := range map[string]error{
		"no topic":      s.q.Subscribe(s.Context(), "", "g", in.handle),
		"no group":      s.q.Subscribe(s.Context(), "t", "", in.handle),
		"no handler":    s.q.Subscribe(s.Context(), "t", "g", nil),
		"ended context": s.q.Subscribe(ended, "t", "g", in.handle),
		"broadcast":     s.q.Subscribe(s.Context(), mq.TopicOnline, "g", in.handle),
		"no broadcast":  s.q.SubscribeAll(s.Context(), "t", in.handle),
		"all, nobody":   s.q.SubscribeAll(s.Context(), mq.TopicOnline, nil),
	} {
		if err == nil {
			s.Errorf("%s: subscribed", name)
		}
	}
	s.settle()
	if got := s.wait(in, 0); len(got) > 0 {
		s.Errorf("parts of what was refused came: %v", got)
	}
}

func closing(s *suite) {
	entered, finished := make(chan string, 1), make(chan string, 1)
	s.subscribe("t", "g", func(ctx context.Context, _ mq.Message) error {
		entered <- ""
		time.Sleep(5 * s.backoff)
		if ctx.Err() != nil {
			s.Error("close ended the handler's context")
		}
		finished <- ""
		return nil
	})
	s.publish("t", "k=1", "k=2")
	s.receive(entered)
	if err := s.q.Close(); err != nil {
		s.Fatal(err)
	}
	if len(finished) != 1 {
		s.Error("close did not wait for the handler")
	}
	if err := s.q.Publish(s.Context(), mq.Message{Topic: "t"}); !errors.Is(err, mq.ErrClosed) {
		s.Errorf("Publish: %v", err)
	}
	if err := s.q.Subscribe(s.Context(), "t", "g", newInbox().handle); !errors.Is(err, mq.ErrClosed) {
		s.Errorf("Subscribe: %v", err)
	}
	if _, err := s.q.Dead(s.Context(), "t", "g", 1); !errors.Is(err, mq.ErrClosed) {
		s.Errorf("Dead: %v", err)
	}
	if err := s.q.SubscribeAll(s.Context(), mq.TopicOnline, newInbox().handle); !errors.Is(err, mq.ErrClosed) {
		s.Errorf("SubscribeAll: %v", err)
	}
	if _, err := s.q.Retry(s.Context(), "t", "g", "1"); !errors.Is(err, mq.ErrClosed) {
		s.Errorf("Retry: %v", err)
	}
}
