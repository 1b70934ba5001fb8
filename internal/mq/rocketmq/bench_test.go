package rocketmq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hongyan/internal/mq"
)

// BenchmarkPublish: many callers with one message of 200 bytes each, stored with SYNC_FLUSH
// where the broker is so configured. cpu-us/op is this process's, all of it.
func BenchmarkPublish(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(callers, "callers"), func(b *testing.B) {
			q := open(b, config(b, server(b)))
			defer q.Close()
			payload := make([]byte, 200)
			warm(b, q)
			var n atomic.Int64
			var wg sync.WaitGroup
			before := cpu()
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						if err := q.Publish(context.Background(), mq.Message{Topic: "t", Key: fmt.Sprint(i), Payload: payload}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// BenchmarkConsume: what is published in batches of 100 is handled.
func BenchmarkConsume(b *testing.B) {
	q := open(b, config(b, server(b)))
	defer q.Close()
	warm(b, q)
	for from := 0; from < b.N; from += 100 {
		var msgs []mq.Message
		for i := from; i < min(b.N, from+100); i++ {
			msgs = append(msgs, mq.Message{Topic: "t", Key: fmt.Sprint(i % 1000), Payload: make([]byte, 200)})
		}
		if err := q.Publish(context.Background(), msgs...); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	var n atomic.Int64
	b.ResetTimer()
	before := cpu()
	if err := q.Subscribe(b.Context(), "t", "g", func(context.Context, mq.Message) error {
		if n.Add(1) == int64(b.N) {
			close(done)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		b.Fatalf("%d of %d were handled", n.Load(), b.N)
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// warm makes the topic and the connections.
func warm(b *testing.B, q *Queue) {
	b.Helper()
	if err := q.Publish(b.Context(), mq.Message{Topic: "other", Payload: []byte("x")}); err != nil {
		b.Fatal(err)
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
