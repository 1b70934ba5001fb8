package jtransit

import (
	"context"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/rpc"
)

func TestJT06Breaker(t *testing.T) {
	now := time.Unix(1000, 0)
	b := &breaker{cfg: BreakerConfig{Ratio: 0.5, MinCalls: 4, OpenFor: 5 * time.Second}}
	run := func(v verdict) bool {
		life, _, ok := b.admit(now)
		if ok {
			b.done(life, v, now)
		}
		return ok
	}
	for range 3 {
		run(failed)
	}
	now = now.Add(window * time.Second) // forgotten
	for range 3 {
		run(failed)
	}
	for range 10 {
		run(neither)
	}
	if b.isOpen() {
		t.Fatal("open before enough calls")
	}
	old, _, _ := b.admit(now)
	run(worked) // the fourth, three of four failed... it was counted, and opens
	if !b.isOpen() || run(worked) {
		t.Fatal("not open at three of four")
	}
	b.done(old, worked, now) // begun before it opened: says nothing
	if !b.isOpen() {
		t.Fatal("an old call closed it")
	}
	now = now.Add(5 * time.Second)
	probe, _, ok := b.admit(now)
	if _, wait, second := b.admit(now); !ok || second || wait == 0 {
		t.Fatal("not one probe")
	}
	b.done(probe, neither, now) // gave up: the next may try
	probe, _, ok = b.admit(now)
	b.done(probe, failed, now)
	if !ok || run(worked) {
		t.Fatal("a failed probe did not open it again")
	}
	now = now.Add(5 * time.Second)
	if !run(worked) || b.isOpen() || !run(failed) || b.isOpen() {
		t.Fatal("a good probe did not close it, with nothing remembered")
	}
}

// flaky loses its first calls under way.
type flaky struct{ lose, calls int }

func (f *flaky) Call(context.Context, string, []byte) ([]byte, error) {
	if f.calls++; f.calls <= f.lose {
		return nil, code.Errorf(code.UnknownOutcome, "lost: %w", rpc.ErrDown)
	}
	return []byte("ok"), nil
}

func (f *flaky) Close() {}

func TestZZ11OnlyIdempotentCallsAreRepeated(t *testing.T) {
	for _, c := range []struct{ retries, lose, calls int }{{0, 1, 1}, {1, 1, 2}, {2, 5, 3}} {
		f := &flaky{lose: c.lose}
		call := &call{cfg: CallConfig{Retries: c.retries}, clients: []*client{{service: f}}, order: []int{0}, health: &health{}}
		_, err := call.repeat(t.Context(), nil)
		if f.calls != c.calls || (err == nil) != (c.lose < c.calls) {
			t.Errorf("%+v: %d calls, %v", c, f.calls, err)
		}
	}
}
