package mqtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hongyan/internal/mq"
)

func deadLetters(s *suite) {
	var attempts atomic.Int64
	in := newInbox()
	s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		if strings.HasPrefix(string(m.Payload), "bad") {
			attempts.Add(1)
			return errors.New("never")
		}
		return in.handle(ctx, m)
	})
	s.publish("t", "a=bad1", "a=after", "b=bad2")
	deadline := time.Now().Add(s.patience + 2*mq.MaxAttempts*8*s.backoff)
	var dead []mq.DeadLetter
	for len(dead) < 2 && time.Now().Before(deadline) {
		time.Sleep(s.backoff)
		var err error
		if dead, err = s.q.Dead(s.Context(), "t", "g", 10); err != nil {
			s.Fatal(err)
		}
	}
	if len(dead) == 2 && s.overtakes && string(dead[0].Payload) == "bad2" { // whichever died first
		dead[0], dead[1] = dead[1], dead[0]
	}
	if len(dead) != 2 || string(dead[0].Payload) != "bad1" || dead[0].Key != "a" || dead[0].Topic != "t" || dead[0].Attempt != mq.MaxAttempts {
		s.Fatalf("dead letters %+v", dead)
	}
	if dead[0].ID == dead[1].ID || time.Since(dead[0].At).Abs() > time.Hour || dead[0].Error != "never" || dead[1].Error != "never" {
		s.Errorf("dead letters %+v", dead)
	}
	if n := attempts.Load(); n != 2*mq.MaxAttempts {
		s.Errorf("%d attempts, want %d for each of two", n, mq.MaxAttempts)
	}
	s.wait(in, 1) // what waited behind goes on
	if one, err := s.q.Dead(s.Context(), "t", "g", 1); err != nil || len(one) != 1 || string(one[0].Payload) != "bad1" && !s.overtakes {
		s.Errorf("at most one, the oldest: %+v, %v", one, err)
	}
	for _, group := range []string{"h", "gg"} {
		if none, err := s.q.Dead(s.Context(), "t", group, 10); err != nil || len(none) != 0 {
			s.Errorf("dead letters of group %s: %+v, %v", group, none, err)
		}
	}
}

func rejected(s *suite) {
	in := newInbox()
	var attempts atomic.Int64
	s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		if string(m.Payload) == "garbage" {
			attempts.Add(1)
			return fmt.Errorf("not protobuf: %w", mq.ErrReject)
		}
		return in.handle(ctx, m)
	})
	s.publish("t", "k=garbage", "k=good")
	s.wait(in, 1)
	dead := s.dead("t", "g", 1)
	if attempts.Load() != 1 || dead[0].Attempt != 1 || !strings.HasPrefix(dead[0].Error, "not protobuf") {
		s.Errorf("%d attempts, dead letters %+v", attempts.Load(), dead)
	}
}

// dead waits until a group has n dead letters.
func (s *suite) dead(topic, group string, n int) []mq.DeadLetter {
	s.Helper()
	for deadline := time.Now().Add(s.patience); ; time.Sleep(s.backoff) {
		dead, err := s.q.Dead(s.Context(), topic, group, 100)
		if err != nil {
			s.Fatal(err)
		}
		if len(dead) == n {
			return dead
		}
		if time.Now().After(deadline) {
			s.Fatalf("%d dead letters, want %d: %+v", len(dead), n, dead)
		}
	}
}

func retried(s *suite) {
	var cured atomic.Bool
	in, other := newInbox(), newInbox()
	s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		if !cured.Load() {
			return fmt.Errorf("not yet: %w", mq.ErrReject)
		}
		if m.Attempt != 1 {
			s.Errorf("attempt %d of a retried message", m.Attempt)
		}
		return in.handle(ctx, m)
	})
	s.subscribe("t", "other", other.handle)
	s.publish("t", "a=1", "b=2", "c=3")
	s.wait(other, 3)
	dead := s.dead("t", "g", 3)
	cured.Store(true)
	var ids, want []string
	for _, d := range dead[:2] {
		ids, want = append(ids, d.ID), append(want, d.Key+"="+string(d.Payload))
	}
	if n, err := s.q.Retry(s.Context(), "t", "g", ids...); n != 2 || err != nil {
		s.Fatalf("retried %d, %v", n, err)
	}
	got := s.wait(in, 2)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("got %v, want %v", got, want)
	}
	if left := s.dead("t", "g", 1); left[0].ID != dead[2].ID {
		s.Errorf("left %+v, want %+v", left, dead[2])
	}
	if n, err := s.q.Retry(s.Context(), "t", "g", ids...); n != 0 || err != nil {
		s.Errorf("retried once more: %d, %v", n, err)
	}
	s.settle()
	if n := len(s.wait(other, 3)); n != 3 {
		s.Errorf("the other group got %d messages, want 3", n)
	}
}
