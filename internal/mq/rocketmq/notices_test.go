package rocketmq

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hongyan/internal/mq"
	"hongyan/internal/notice"
)

// The example of a business system publishes by itself, with the plain client and JSON, what
// extlogic and the gateways understand.
func TestZZ09ABusinessSystemPublishesByItself(t *testing.T) {
	cfg := config(t, server(t))
	q := open(t, cfg)
	defer q.Close()
	systems, online := make(chan mq.Message, 10), make(chan mq.Message, 10)
	into := func(c chan mq.Message) mq.Handler {
		return func(_ context.Context, m mq.Message) error { c <- m; return nil }
	}
	if err := q.Subscribe(t.Context(), mq.TopicSystem, "g", into(systems)); err != nil {
		t.Fatal(err)
	}
	if err := q.SubscribeAll(t.Context(), mq.TopicOnline, into(online)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-uid", "bob", "-order", "o-17"}, {"-online", "hello"}} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "hongyan/examples/notices", "-name-servers", cfg.NameServers[0], "-prefix", cfg.Prefix}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	next := func(c chan mq.Message) mq.Message {
		select {
		case m := <-c:
			return m
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came")
			return mq.Message{}
		}
	}
	m := next(systems)
	n, err := notice.System(m.Payload)
	if err != nil || m.Key != "demo/bob" || n.Uid != "bob" || n.ClientMsgId != "shipped-o-17" || n.Channel != "orders" || string(n.Data) != `{"order":"o-17","state":"shipped"}` {
		t.Errorf("%+v, %+v, %v", m, n, err)
	}
	o, err := notice.Online(next(online).Payload)
	if err != nil || o.Tenant != "demo" || o.Text != "hello" || time.Until(notice.Until(o)) <= 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// Two processes: each hears every broadcast, and they share the work.
func TestJT13EveryProcessHearsABroadcast(t *testing.T) {
	cfg := config(t, server(t))
	var queues []*Queue
	heard, worked := make([]chan mq.Message, 2), make(chan int, 400)
	for i := range 2 {
		q := open(t, cfg)
		defer q.Close()
		queues = append(queues, q)
		heard[i] = make(chan mq.Message, 400)
		if err := q.SubscribeAll(t.Context(), mq.TopicOnline, func(_ context.Context, m mq.Message) error { heard[i] <- m; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := q.Subscribe(t.Context(), "t", "g", func(context.Context, mq.Message) error { worked <- i; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	const n = 100
	for i := range n {
		key := string(rune('a' + i%26))
		err := queues[i%2].Publish(t.Context(), mq.Message{Topic: mq.TopicOnline, Key: key, Payload: []byte{byte(i)}}, mq.Message{Topic: "t", Key: key, Payload: []byte{byte(i)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	by := map[int]int{}
	for range n {
		select {
		case i := <-worked:
			by[i]++
		case <-time.After(60 * time.Second):
			t.Fatalf("%v of %d messages were handled", by, n)
		}
	}
	for i := range 2 {
		seen := map[byte]bool{}
		for len(seen) < n {
			select {
			case m := <-heard[i]:
				if seen[m.Payload[0]] {
					t.Fatalf("process %d heard %d twice", i, m.Payload[0])
				}
				seen[m.Payload[0]] = true
			case <-time.After(60 * time.Second):
				t.Fatalf("process %d heard %d of %d", i, len(seen), n)
			}
		}
	}
	t.Logf("work: %v", by)
}

// Without create_topics, a missing topic is an error that names it, at publishing and at
// subscribing.
func TestAMissingTopicIsNamed(t *testing.T) {
	cfg := config(t, server(t))
	cfg.CreateTopics = false
	cfg.StartTimeout = 3 * time.Second
	q := open(t, cfg)
	defer q.Close()
	want := cfg.Prefix + "t is not known to the name servers"
	for what, err := range map[string]error{
		"publish":   q.Publish(t.Context(), mq.Message{Topic: "t", Payload: []byte("x")}),
		"subscribe": q.Subscribe(t.Context(), "t", "g", func(context.Context, mq.Message) error { return nil }),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
