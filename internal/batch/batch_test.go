package batch_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/batch"
)

// recorder notes each batch and takes delay for it.
type recorder struct {
	delay   time.Duration
	batches [][]int
}

func (r *recorder) send(ctx context.Context, items []int) {
	r.batches = append(r.batches, items)
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
	}
}

// settled returns the batches so far, once everything in the bubble waits.
func (r *recorder) settled() [][]int {
	synctest.Wait()
	return r.batches
}

// bubble runs a sender in virtual time and waits for its end.
func bubble(t *testing.T, max, bound int, delay time.Duration, body func(*batch.Sender[int], *recorder, context.CancelFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{delay: delay}
		s := batch.New(max, bound, r.send)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		synctest.Wait()
		body(s, r, cancel)
		cancel()
		running.Wait()
	})
}

func TestLoneItemIsSentAtOnce(t *testing.T) {
	bubble(t, 100, 0, time.Hour, func(s *batch.Sender[int], r *recorder, _ context.CancelFunc) {
		start := time.Now()
		s.Add(1)
		if len(r.settled()) != 1 || time.Since(start) != 0 {
			t.Errorf("batches %v after %v", r.batches, time.Since(start))
		}
		if s.Len() != 1 {
			t.Errorf("the item under way is not counted: %d", s.Len())
		}
	})
}

func TestGathersWhileOneIsUnderWay(t *testing.T) {
	bubble(t, 4, 0, time.Second, func(s *batch.Sender[int], r *recorder, _ context.CancelFunc) {
		s.Add(0)
		synctest.Wait()
		for i := 1; i <= 6; i++ {
			s.Add(i)
		}
		time.Sleep(10 * time.Second)
		want := [][]int{{0}, {1, 2, 3, 4}, {5, 6}}
		if !slices.EqualFunc(r.settled(), want, slices.Equal) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
		if s.Len() != 0 {
			t.Errorf("%d left", s.Len())
		}
	})
}

func TestBoundTakesAllOrNothing(t *testing.T) {
	bubble(t, 10, 3, time.Second, func(s *batch.Sender[int], r *recorder, _ context.CancelFunc) {
		if !s.Add() {
			t.Error("adding nothing was refused")
		}
		s.Add(0)
		synctest.Wait() // 0 is under way and no longer waits
		if !s.Add(1, 2) || s.Add(3, 4) || !s.Add(5) || s.Add(6) {
			t.Error("a bound of 3 was not kept")
		}
		time.Sleep(5 * time.Second)
		want := [][]int{{0}, {1, 2, 5}}
		if !slices.EqualFunc(r.settled(), want, slices.Equal) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}

func TestStopsWithoutDraining(t *testing.T) {
	bubble(t, 1, 0, time.Second, func(s *batch.Sender[int], r *recorder, cancel context.CancelFunc) {
		s.Add(1, 2, 3)
		synctest.Wait()
		cancel()
		if len(r.settled()) != 1 || s.Len() != 2 {
			t.Errorf("batches %v, %d left", r.batches, s.Len())
		}
		if s.Add(4) {
			t.Error("a stopped sender took an item")
		}
	})
}

// A slice that send keeps is not written to again.
func TestSendOwnsItsSlice(t *testing.T) {
	bubble(t, 2, 0, time.Millisecond, func(s *batch.Sender[int], r *recorder, _ context.CancelFunc) {
		for i := range 100 {
			s.Add(i)
			if i%7 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		var all []int
		for _, b := range r.settled() {
			all = append(all, b...)
		}
		if len(all) != 100 || !slices.IsSorted(all) {
			t.Errorf("got %v", all)
		}
	})
}

func TestMoreTakesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		var s *batch.Sender[int]
		s = batch.New(2, 0, func(_ context.Context, items []int) {
			time.Sleep(time.Second) // meanwhile all are there
			if got = append(got, items...); len(got) == 1 {
				got = append(got, s.More(3)...)
				if s.Len() != 6 {
					t.Errorf("%d items are not done", s.Len())
				}
				got = append(got, s.More(0)...)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.Run(ctx)
		s.Add(1)
		synctest.Wait()
		s.Add(2, 3, 4, 5, 6)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !slices.Equal(got, []int{1, 2, 3, 4, 5, 6}) || s.Len() != 0 {
			t.Errorf("got %v, %d left", got, s.Len())
		}
	})
}

// Order per producer holds with many producers and real goroutines (run with -race).
func TestOrderPerProducer(t *testing.T) {
	type item struct{ producer, n int }
	const producers, each = 8, 500
	ctx, cancel := context.WithCancel(t.Context())
	next := make([]int, producers)
	got := 0
	s := batch.New(64, 0, func(_ context.Context, items []item) {
		for _, it := range items {
			if it.n != next[it.producer] {
				t.Errorf("producer %d: %d came instead of %d", it.producer, it.n, next[it.producer])
			}
			next[it.producer]++
		}
		if got += len(items); got == producers*each {
			cancel()
		}
	})
	var all sync.WaitGroup
	for p := range producers {
		all.Go(func() {
			for n := range each {
				s.Add(item{p, n})
			}
		})
	}
	s.Run(ctx)
	all.Wait()
	if got != producers*each {
		t.Errorf("%d items came", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	s := batch.New(256, 0, func(context.Context, []int) {})
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	b.ReportAllocs()
	for i := range b.N {
		s.Add(i)
	}
	cancel()
	running.Wait()
}
