package batch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/batch"
)

func TestTimeoutIsSharedByCallsThatBeginTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithCancel(t.Context())
		defer stop()
		timeout := batch.NewTimeout(4 * time.Second)
		first := timeout.Context(parent)
		time.Sleep(999 * time.Millisecond)
		if timeout.Context(parent) != first {
			t.Error("a call right behind has a context of its own")
		}
		time.Sleep(time.Millisecond)
		second := timeout.Context(parent)
		if second == first || first.Err() == nil {
			t.Error("a call later on shares a context that would end too early, or that stays behind")
		}
		began := time.Now()
		<-second.Done()
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("a call that hangs is ended after %v", took)
		}
		third := timeout.Context(parent)
		if third.Err() != nil {
			t.Error("the call after one that hung has no time at all")
		}
		stop()
		if third.Err() == nil {
			t.Error("does not end with its parent")
		}
		if other := timeout.Context(t.Context()); other.Err() != nil {
			t.Error("another parent's call ends with the first")
		}
	})
}

func BenchmarkContextOfACall(b *testing.B) {
	parent, stop := context.WithCancel(b.Context())
	defer stop()
	b.Run("its own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, cancel := context.WithTimeout(parent, 5*time.Second)
			cancel()
		}
	})
	b.Run("shared", func(b *testing.B) {
		b.ReportAllocs()
		timeout := batch.NewTimeout(5 * time.Second)
		for b.Loop() {
			timeout.Context(parent)
		}
	})
}
