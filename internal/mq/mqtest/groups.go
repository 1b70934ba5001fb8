package mqtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hongyan/internal/mq"
)

func redelivery(s *suite) {
	type run struct {
		what string
		at   time.Time
	}
	runs := make(chan run, 100)
	s.subscribe("t", "g", func(_ context.Context, m mq.Message) error {
		runs <- run{fmt.Sprintf("%s=%s/%d", m.Key, m.Payload, m.Attempt), time.Now()}
		if string(m.Payload) == "bad" && m.Attempt < 5 {
			return errors.New("not yet")
		}
		return nil
	})
	s.publish("t", "a=bad", "a=next", "b=other")
	var order []string
	var at []time.Time
	late := 0 // runs of what was not held up
	for range 7 {
		select {
		case r := <-runs:
			if r.what == "b=other/1" || s.overtakes && r.what == "a=next/1" {
				late++
				continue
			}
			order, at = append(order, r.what), append(at, r.at)
		case <-time.After(s.patience):
			s.Fatalf("only %v came", order)
		}
	}
	want := []string{"a=bad/1", "a=bad/2", "a=bad/3", "a=bad/4", "a=bad/5", "a=next/1"}
	if want = want[:7-late]; !slices.Equal(order, want) {
		s.Fatalf("order %v, want %v", order, want)
	}
	for i, factor := range []time.Duration{1, 2, 4, 8} {
		if gap := at[i+1].Sub(at[i]); gap < factor*s.backoff-s.backoff/10 {
			s.Errorf("attempt %d came after %s, want at least %s", i+2, gap, factor*s.backoff)
		}
	}
	if s.overtakes {
		return
	}
	if gap := at[5].Sub(at[4]); gap >= s.patience/2 {
		s.Errorf("the message behind waited %s more", gap)
	}
}

func groups(s *suite) {
	a, b1, b2 := newInbox(), newInbox(), newInbox()
	s.subscribe("t", "a", a.handle)
	s.subscribe("t", "b", b1.handle)
	s.subscribe("t", "b", b2.handle)
	const n = 60
	for i := range n {
		s.publish("t", fmt.Sprintf("k%d=x", i))
	}
	s.wait(a, n)
	deadline := time.Now().Add(s.patience)
	for len(s.wait(b1, 0))+len(s.wait(b2, 0)) < n && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	s.settle()
	all := slices.Concat(s.wait(b1, 1), s.wait(b2, 1))
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != n || len(all) != n {
		s.Errorf("members of b got %d messages, %d different, want %d once each", len(all), len(slices.Compact(all)), n)
	}
}

func lateGroup(s *suite) {
	s.publish("t", "k=1", "k=2")
	in := newInbox()
	s.subscribe("t", "late", in.handle)
	s.publish("t", "k=3")
	if got := s.wait(in, 3); !slices.Equal(got, []string{"k=1", "k=2", "k=3"}) {
		s.Errorf("got %v", got)
	}
}

func noMember(s *suite) {
	first := newInbox()
	leave := s.subscribe("t", "g", first.handle)
	s.publish("t", "k=1")
	s.wait(first, 1)
	leave()
	s.settle()
	s.publish("t", "k=2", "k=3")
	s.settle()
	second := newInbox()
	s.subscribe("t", "g", second.handle)
	if got := s.wait(second, 2); !slices.Equal(got, []string{"k=2", "k=3"}) {
		s.Errorf("the next member got %v", got)
	}
	if got := s.wait(first, 1); len(got) != 1 {
		s.Errorf("the member that left got %v", got)
	}
}

// A member dies with a message in its hands: it comes to another at once, and not as a
// failure of the message.
func memberLeaves(s *suite) {
	entered := make(chan string, 1)
	leave := s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		entered <- string(m.Payload)
		<-ctx.Done()
		return ctx.Err()
	})
	s.publish("t", "k=1", "k=2")
	s.receive(entered)
	attempts := make(chan string, 10)
	s.subscribe("t", "g", func(_ context.Context, m mq.Message) error {
		attempts <- fmt.Sprintf("%s/%d", m.Payload, m.Attempt)
		return nil
	})
	leave()
	for _, want := range []string{"1/1", "2/1"} {
		if got := s.receive(attempts); got != want {
			s.Errorf("the member that stayed got %s, want %s", got, want)
		}
	}
}
