package wheel_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/wheel"
)

const tick = 100 * time.Millisecond

func bubble(t *testing.T, slots int, body func(*wheel.Wheel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := wheel.New(tick, slots)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		body(w)
		cancel()
		running.Wait()
	})
}

// sleep lets virtual time pass and everything due happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Never early, less than a tick late, exactly once; also beyond one round of the wheel and
// from any phase of a tick.
func TestFiresInTime(t *testing.T) {
	bubble(t, 8, func(w *wheel.Wheel) {
		for _, after := range []time.Duration{-time.Hour, 0, 1, tick - 1, tick, tick + 1, 7 * tick, 8 * tick, 9 * tick, 100*tick + 3, time.Hour} {
			sleep(37 * time.Millisecond)
			var timer wheel.Timer
			var took []time.Duration
			start := time.Now()
			w.Schedule(&timer, after, func() { took = append(took, time.Since(start)) })
			sleep(max(after, 0) + 20*tick)
			if len(took) != 1 || took[0] < after || took[0] > max(after, 0)+tick {
				t.Errorf("after %v: fired at %v", after, took)
			}
		}
	})
}

func TestRearmAndStop(t *testing.T) {
	bubble(t, 8, func(w *wheel.Wheel) {
		var fired atomic.Int32
		count := func() { fired.Add(1) }
		check := func(what string, want int32) {
			t.Helper()
			if got := fired.Swap(0); got != want {
				t.Errorf("%s: fired %d times, want %d", what, got, want)
			}
		}
		var timer wheel.Timer
		for range 50 {
			w.Schedule(&timer, 5*tick, count)
			sleep(4 * tick)
		}
		check("put off again and again", 0)
		sleep(2 * tick)
		check("no longer put off", 1)

		w.Schedule(&timer, time.Hour, count)
		w.Schedule(&timer, tick, nil)
		sleep(3 * tick)
		check("brought forward, with its old fire", 1)

		w.Schedule(&timer, 2*tick, count)
		w.Stop(&timer)
		w.Stop(&timer)
		sleep(time.Minute)
		check("stopped", 0)

		w.Schedule(&timer, 0, func() {
			if fired.Add(1) < 5 {
				w.Schedule(&timer, tick, nil)
			}
		})
		sleep(20 * tick)
		check("armed by its own fire", 5)

		var other wheel.Timer
		w.Schedule(&timer, tick, func() { w.Stop(&other); fired.Add(1) })
		w.Schedule(&other, tick, count)
		sleep(5 * tick)
		check("stopped by one that fires in the same tick", 1)

		w.Schedule(&timer, tick, func() { w.Schedule(&other, time.Hour, nil); fired.Add(1) })
		w.Schedule(&other, tick, count)
		sleep(5 * tick)
		check("put off by one that fires in the same tick", 1)
		w.Stop(&other)
		w.Stop(new(wheel.Timer))
	})
}

// Against a dumb twin: random timers, armed and stopped at random.
func TestRandomAgainstTwin(t *testing.T) {
	bubble(t, 16, func(w *wheel.Wheel) {
		rng := rand.New(rand.NewPCG(1, 2))
		type twin struct {
			wheel.Timer
			due   time.Time // zero: not armed
			fired func()
		}
		timers := make([]twin, 200)
		for i := range timers {
			tw := &timers[i]
			tw.fired = func() {
				if late := time.Since(tw.due); tw.due.IsZero() || late < 0 || late > tick {
					t.Errorf("timer %d due %v fired %v late", i, tw.due, late)
				}
				tw.due = time.Time{}
			}
		}
		for range 5000 {
			tw := &timers[rng.IntN(len(timers))]
			if rng.IntN(4) == 0 {
				w.Stop(&tw.Timer)
				tw.due = time.Time{}
			} else {
				after := time.Duration(rng.Int64N(int64(40 * tick)))
				tw.due = time.Now().Add(after)
				w.Schedule(&tw.Timer, after, tw.fired)
			}
			sleep(time.Duration(rng.Int64N(int64(tick / 2))))
			for j := range timers {
				if due := timers[j].due; !due.IsZero() && time.Since(due) > tick {
					t.Fatalf("timer %d is %v overdue", j, time.Since(due))
				}
			}
		}
	})
}

// With nothing armed, no tick wakes the process; a bubble would never go idle otherwise.
func TestSleepsWhenEmptyAndWakes(t *testing.T) {
	bubble(t, 8, func(w *wheel.Wheel) {
		sleep(1000 * time.Hour)
		fired := false
		var timer wheel.Timer
		w.Schedule(&timer, tick, func() { fired = true })
		sleep(2 * tick)
		if !fired {
			t.Error("not fired after a long sleep")
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	w := wheel.New(time.Millisecond, 8)
	ctx, cancel := context.WithCancel(t.Context())
	var running, users sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	for range 8 {
		users.Go(func() {
			var timers [16]wheel.Timer
			var fired sync.WaitGroup
			for i := range 2000 {
				w.Schedule(&timers[i%16], time.Duration(i%5)*time.Millisecond, func() {})
				if i%3 == 0 {
					w.Stop(&timers[i%16])
				}
			}
			for i := range timers {
				w.Stop(&timers[i])
				fired.Add(1)
				w.Schedule(&timers[i], time.Millisecond, fired.Done)
			}
			fired.Wait()
		})
	}
	users.Wait()
	cancel()
	running.Wait()
}

func TestScheduleAllocatesNothing(t *testing.T) {
	w := wheel.New(tick, 64)
	var timer wheel.Timer
	fire := func() {}
	if n := testing.AllocsPerRun(100, func() { w.Schedule(&timer, time.Second, fire); w.Stop(&timer) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A million connections, each of which was heard from.
func BenchmarkRearmOfAMillion(b *testing.B) {
	w := wheel.New(tick, 4096)
	timers := make([]wheel.Timer, 1<<20)
	fire := func() {}
	for i := range timers {
		w.Schedule(&timers[i], time.Minute, fire)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		w.Schedule(&timers[i*7919%len(timers)], time.Minute, nil)
		i++
	}
}
