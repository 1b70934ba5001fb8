package rocketmq

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/mq"
	"hongyan/tests/servers"
)

// load publishes and handles until it is told to stop.
type load struct {
	q         *Queue
	published sync.Map // payloads whose Publish returned nil
	handled   sync.Map
	count     atomic.Int64 // of published
	twice     atomic.Int64
	failed    atomic.Int64
	slowest   atomic.Int64 // of failed publishes, ns
	wg        sync.WaitGroup
}

func start(t *testing.T, q *Queue, publishers int) (l *load, stop func()) {
	l = &load{q: q}
	if err := q.Subscribe(t.Context(), "t", "g", func(_ context.Context, m mq.Message) error {
		if _, twice := l.handled.LoadOrStore(string(m.Payload), true); twice {
			l.twice.Add(1)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for p := range publishers {
		l.wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.publish(fmt.Sprintf("%d-%d", p, n), fmt.Sprint(p, "-", n%50))
			}
		})
	}
	return l, func() { cancel(); l.wg.Wait() }
}

func (l *load) publish(payload, key string) {
	begun := time.Now()
	err := l.q.Publish(context.Background(), mq.Message{Topic: "t", Key: key, Payload: []byte(payload)})
	if err == nil {
		l.published.Store(payload, true)
		l.count.Add(1)
		return
	}
	took := int64(time.Since(begun))
	for most := l.slowest.Load(); took > most && !l.slowest.CompareAndSwap(most, took); most = l.slowest.Load() {
	}
	l.failed.Add(1)
	if code.Of(err) != code.Unavailable && code.Of(err) != code.UnknownOutcome {
		panic(fmt.Sprintf("not retryable: %v", err))
	}
	time.Sleep(20 * time.Millisecond)
}

// missing waits until everything published is handled, and returns how many are not.
func (l *load) missing(within time.Duration) (n int) {
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		n = 0
		l.published.Range(func(k, _ any) bool {
			if _, ok := l.handled.Load(k); !ok {
				n++
			}
			return true
		})
		if n == 0 || time.Now().After(deadline) {
			return n
		}
	}
}

func (l *load) until(t *testing.T, n int64, within time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(within); l.count.Load() < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages were published, want %d", l.count.Load(), n)
		}
	}
}

// The broker is killed under load and comes back: whatever Publish said was stored is
// handled, if sometimes twice.
func TestP5BrokerIsKilledUnderLoad(t *testing.T) {
	s := servers.Start(t, "rocketmq")
	q := open(t, config(t, s.Env("SERVERS_ROCKETMQ_NAMESRV")))
	defer q.Close()
	l, stop := start(t, q, 16)
	l.until(t, 2000, 30*time.Second)
	s.Kill("rocketmq-broker")
	at := l.count.Load()
	time.Sleep(2 * time.Second)
	s.Start("rocketmq-broker")
	back := time.Now()
	l.until(t, at+2000, time.Minute)
	recovered := time.Since(back)
	stop()
	if n := l.missing(time.Minute); n > 0 {
		t.Errorf("%d of %d published messages were not handled", n, l.count.Load())
	}
	t.Logf("%d published, %d failed (the slowest after %s), %d handled twice; sends went on %s after the broker was back",
		l.count.Load(), l.failed.Load(), time.Duration(l.slowest.Load()), l.twice.Load(), recovered)
}

// The broker is away for a while: a publish fails within its time and says that it may be
// repeated; once the broker is back, everything arrives. No goroutine stays behind.
func TestP5BrokerIsAwayForAWhile(t *testing.T) {
	s := servers.Start(t, "rocketmq")
	q := open(t, config(t, s.Env("SERVERS_ROCKETMQ_NAMESRV")))
	defer q.Close()
	l, stop := start(t, q, 4)
	l.until(t, 500, 30*time.Second)
	s.Kill("rocketmq-broker")
	time.Sleep(5 * time.Second)
	before := runtime.NumGoroutine()
	time.Sleep(10 * time.Second)
	if after := runtime.NumGoroutine(); after > before+50 {
		t.Errorf("%d goroutines, and %d ten seconds later", before, after)
	}
	at := l.count.Load()
	s.Start("rocketmq-broker")
	l.until(t, at+500, time.Minute)
	stop()
	if n := l.missing(time.Minute); n > 0 {
		t.Errorf("%d of %d published messages were not handled", n, l.count.Load())
	}
	if slowest := time.Duration(l.slowest.Load()); slowest > q.cfg.SendTimeout+time.Second {
		t.Errorf("a publish failed after %s only", slowest)
	}
	if l.failed.Load() == 0 {
		t.Error("no publish failed while the broker was away")
	}
	t.Logf("%d published, %d failed (the slowest after %s), %d handled twice",
		l.count.Load(), l.failed.Load(), time.Duration(l.slowest.Load()), l.twice.Load())
}
