package mqtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/internal/mq"
)

func arrive(s *suite) {
	payload := bytes.Repeat([]byte{0, 1, 255}, 100_000)
	got := make(chan mq.Message, 10)
	s.subscribe("t", "g", func(_ context.Context, m mq.Message) error { got <- m; return nil })
	want := mq.Message{Topic: "t", Key: "k\x00ü", Payload: payload}
	if err := s.q.Publish(s.Context(), want, mq.Message{Topic: "other", Key: "k"}); err != nil {
		s.Fatal(err)
	}
	select {
	case m := <-got:
		if m.Topic != "t" || m.Key != want.Key || !bytes.Equal(m.Payload, payload) || m.Attempt != 1 {
			s.Errorf("got topic %q, key %q, %d bytes, attempt %d", m.Topic, m.Key, len(m.Payload), m.Attempt)
		}
	case <-time.After(s.patience):
		s.Fatal("nothing came")
	}
	s.settle()
	if len(got) > 0 {
		s.Errorf("%d more came", len(got))
	}
}

func orderPerKey(s *suite) {
	const keys, each = 20, 50
	in := newInbox()
	var busy sync.Map
	s.subscribe("t", "g", func(ctx context.Context, m mq.Message) error {
		if _, twice := busy.LoadOrStore(m.Key, true); twice {
			s.Errorf("two messages of %s at once", m.Key)
		}
		defer busy.Delete(m.Key)
		return in.handle(ctx, m)
	})
	for n := range each {
		var batch []string
		for k := range keys {
			batch = append(batch, fmt.Sprintf("k%d=%d", k, n))
		}
		s.publish("t", batch...)
	}
	next := map[string]int{}
	for _, m := range s.wait(in, keys*each) {
		key, n, _ := strings.Cut(m, "=")
		if want := fmt.Sprint(next[key]); n != want {
			s.Fatalf("%s: %s came where %s was due", key, n, want)
		}
		next[key]++
	}
}

func parallelKeys(s *suite) {
	var busy, most atomic.Int64
	release := make(chan struct{})
	arrived := make(chan string, 100)
	s.subscribe("t", "g", func(_ context.Context, m mq.Message) error {
		if n := busy.Add(1); n > most.Load() {
			most.Store(n)
		}
		arrived <- m.Key
		<-release
		busy.Add(-1)
		return nil
	})
	for k := range 30 {
		s.publish("t", fmt.Sprintf("k%d=x", k))
	}
	for range 8 {
		s.receive(arrived)
	}
	s.settle()
	if len(arrived) > 0 {
		s.Errorf("%d handlers beyond the bound of 8", len(arrived))
	}
	close(release)
	for range 22 {
		s.receive(arrived)
	}
	if most.Load() != 8 {
		s.Errorf("%d handlers at once, want 8", most.Load())
	}
}

func noKey(s *suite) {
	hold := make(chan struct{})
	arrived := make(chan string, 10)
	s.subscribe("t", "g", func(_ context.Context, m mq.Message) error {
		if string(m.Payload) == "slow" {
			<-hold
		}
		arrived <- string(m.Payload)
		return nil
	})
	s.publish("t", "=slow", "=fast")
	if got := s.receive(arrived); got != "fast" {
		s.Errorf("%s came first", got)
	}
	close(hold)
	s.receive(arrived)
}
