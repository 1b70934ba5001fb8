package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/mq"
	"hongyan/internal/mq/internal/engine"
	"hongyan/internal/mq/mqtest"
)

func TestSuite(t *testing.T) {
	mqtest.Run(t, mqtest.Backend{
		Wrap:    synctest.Test,
		Backoff: time.Second,
		Open: func(t *testing.T, opt mqtest.Options) mq.Queue {
			return open(t, Options{Parallel: opt.Parallel, MinBackoff: opt.MinBackoff, MaxBackoff: opt.MaxBackoff})
		},
	})
}

func open(t *testing.T, opt Options) mq.Queue {
	t.Helper()
	q, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// The delays double from one second and stay at a minute: sixteen attempts within ten
// minutes and a few seconds.
func TestBackoffSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, Options{})
		defer q.Close()
		var at []time.Time
		err := q.Subscribe(t.Context(), "t", "g", func(context.Context, mq.Message) error {
			at = append(at, time.Now())
			return errors.New("never")
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Publish(t.Context(), mq.Message{Topic: "t", Key: "k"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != mq.MaxAttempts {
			t.Fatalf("%d attempts, want %d", len(at), mq.MaxAttempts)
		}
		want := time.Second
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap != want {
				t.Errorf("attempt %d came after %s, want %s", i+1, gap, want)
			}
			want = min(2*want, time.Minute)
		}
	})
}

// A group whose every message fails stops reading at its window: an outage of what the
// handlers need makes no dead letters of what has not been tried.
func TestWindowBoundsWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, Options{Window: 10, Parallel: 100})
		defer q.Close()
		var down atomic.Bool
		down.Store(true)
		var seen sync.Map
		err := q.Subscribe(t.Context(), "t", "g", func(_ context.Context, m mq.Message) error {
			if down.Load() {
				seen.Store(m.Key, true)
				return errors.New("down")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			if err := q.Publish(t.Context(), mq.Message{Topic: "t", Key: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		tried := 0
		seen.Range(func(any, any) bool { tried++; return true })
		if tried != 10 {
			t.Errorf("%d messages were tried, want the window of 10", tried)
		}
		down.Store(false)
		time.Sleep(2 * time.Minute)
		if dead, err := q.Dead(t.Context(), "t", "g", 1000); err != nil || len(dead) != 0 {
			t.Errorf("%d dead letters, %v", len(dead), err)
		}
	})
}

func TestHandledMessagesTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(1)
		q, err := engine.Open(l, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if err := q.Subscribe(t.Context(), "t", "g", func(context.Context, mq.Message) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			if err := q.Publish(t.Context(), mq.Message{Topic: "t", Key: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(l.topics["t"].entries); n > 2500 {
			t.Errorf("%d of 10000 handled messages are still held", n)
		}
	})
}
