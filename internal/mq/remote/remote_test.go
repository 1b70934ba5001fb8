package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/route"
)

// flaky is a host that can be unreachable.
type flaky struct {
	tier.Queue
	down bool
}

func (f *flaky) Publish(ctx context.Context, req *tier.PublishBatch) (*tier.Accepted, error) {
	if f.down {
		return nil, code.Errorf(code.Unavailable, "refused")
	}
	return f.Queue.Publish(ctx, req)
}

func TestPublisherReachesTheHostedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue, err := memory.Open(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		host := &flaky{Queue: NewHost(queue)}
		center, err := local.New(map[string]control.Members{"extlogic": {Instances: []control.Instance{{Addr: "x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		pool := route.NewPool(center, "extlogic", func(string) (tier.Queue, error) { return host, nil }, route.PoolOptions{})
		ctx, stop := context.WithCancel(t.Context())
		go pool.Run(ctx)
		synctest.Wait()
		p := NewPublisher(pool)

		got := make(chan mq.Message, 10)
		if err := queue.Subscribe(ctx, mq.TopicOffline, "g", func(_ context.Context, m mq.Message) error { got <- m; return nil }); err != nil {
			t.Fatal(err)
		}
		var msgs []mq.Message
		for i := range 3 {
			msgs = append(msgs, mq.Message{Topic: mq.TopicOffline, Key: "alice", Payload: []byte(fmt.Sprint(i))})
		}
		if err := p.Publish(ctx, msgs...); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if m := <-got; string(m.Payload) != fmt.Sprint(i) || m.Key != "alice" {
				t.Errorf("message %d: %+v", i, m)
			}
		}

		host.down = true
		for range 2 {
			if err := p.Publish(ctx, msgs...); code.Of(err) != code.Unavailable {
				t.Errorf("host down: %v", err)
			}
		}
		host.down = false
		time.Sleep(time.Second)
		if err := p.Publish(ctx, msgs[0]); err != nil {
			t.Errorf("host back: %v", err)
		}
		if err := p.Publish(ctx, mq.Message{Topic: "no/name"}); err == nil {
			t.Error("a bad topic was published")
		}
		if _, err := NewHost(queue).Publish(ctx, &tier.PublishBatch{Items: []*tier.QueueMessage{{Topic: "no/name"}}}); code.Of(err) != code.BadRequest {
			t.Errorf("a bad topic at the host: %v", err)
		}
		if err := p.Subscribe(ctx, "t", "g", nil); !errors.Is(err, ErrPublishOnly) {
			t.Errorf("subscribe: %v", err)
		}
		if err := queue.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Publish(ctx, msgs[0]); code.Of(err) != code.Unavailable {
			t.Errorf("queue closed: %v", err)
		}
		stop()
		center.Close()
	})
}
