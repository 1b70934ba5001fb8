package rocketmq

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func id(offset int64) messageID { return messageID{"t", "b", 0, offset} }

// Goroutines start in any order; messages of a key have their turn in the order in which
// they were pulled, one at a time.
func TestLanesKeepTheOrderOfPulling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes()
		const n = 50
		for i := range int64(n) {
			l.enter("k", id(i))
		}
		var mu sync.Mutex
		var got []int64
		var wg sync.WaitGroup
		for i := int64(n - 1); i >= 0; i-- { // the wrong way round
			wg.Go(func() {
				ticket := l.claim("k", id(i))
				defer l.leave(ticket)
				if !l.wait(ticket, nil) {
					t.Error("stopped")
				}
				mu.Lock()
				got = append(got, i)
				mu.Unlock()
				time.Sleep(time.Millisecond)
			})
		}
		wg.Wait()
		if !slices.IsSorted(got) || len(got) != n {
			t.Errorf("order %v", got)
		}
		if len(l.last)+len(l.entered) > 0 {
			t.Errorf("left: %v, %v", l.last, l.entered)
		}
	})
}

// A message that was pulled and never comes is waited for a moment; who is behind it still
// waits for those before it.
func TestLanesGiveUpWhatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes()
		for i := range int64(3) {
			l.enter("k", id(i))
		}
		first := l.claim("k", id(0))
		done := make(chan time.Duration, 1)
		begun := time.Now()
		go func() {
			last := l.claim("k", id(2)) // 1 never comes
			l.wait(last, nil)
			l.leave(last)
			done <- time.Since(begun)
		}()
		time.Sleep(5 * time.Second)
		l.leave(first)
		if took := <-done; took != 5*time.Second {
			t.Errorf("the last had its turn after %s", took)
		}
		late := l.claim("k", id(1)) // after all: at the end
		if !l.wait(late, nil) {
			t.Error("stopped")
		}
		l.leave(late)
		stop := make(chan struct{})
		held := l.claim("k", id(7))
		behind := l.claim("k", id(8))
		close(stop)
		if l.wait(behind, stop) {
			t.Error("not stopped")
		}
		l.leave(held)
		l.leave(behind)
		if len(l.last)+len(l.entered) > 0 {
			t.Errorf("left: %v, %v", l.last, l.entered)
		}
	})
}
