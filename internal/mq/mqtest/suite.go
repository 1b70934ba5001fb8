// Package mqtest is the suite that every mq.Queue passes.
package mqtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	if dead[0].ID == dead[1].ID || time.Since(dead[0].At).Abs() > time.Hour || dead[0].Error != "never" && dead[0].Error != "" {
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
	if attempts.Load() != 1 || dead[0].Attempt != 1 {
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
