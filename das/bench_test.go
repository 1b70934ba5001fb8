package das

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"hongyan/das/store"
	"hongyan/idl/tier"
	"hongyan/internal/control"
)

// nullStore takes everything and holds nothing: what is left is the cost of the core.
type nullStore struct{ delay time.Duration }

func (s nullStore) Commit(context.Context, *store.Batch) error {
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	return nil
}
func (nullStore) View(context.Context) (store.View, error) { return nullView{}, nil }
func (nullStore) Now(context.Context) (int64, error)       { return time.Now().UnixMilli(), nil }
func (nullStore) Exclusive() bool                          { return true }
func (nullStore) Close() error                             { return nil }

type nullView struct{ store.View }

func (nullView) Bucket(uint32) (store.BucketState, error) {
	return store.BucketState{Epoch: 1, Open: true}, nil
}
func (nullView) Conv(store.Key) (store.ConvHead, error) { return store.ConvHead{}, nil }
func (nullView) User(store.Key) (store.UserHead, error) { return store.UserHead{}, nil }
func (nullView) Member(store.Key, string) (store.Member, error) {
	return store.Member{}, store.ErrNotFound
}
func (nullView) DeliverRows(store.RowKey, store.Created, int) ([]store.DeliverRow, error) {
	return nil, nil
}
func (nullView) FanOutRows(store.RowKey, store.Created, int) ([]store.FanOutRow, error) {
	return nil, nil
}
func (nullView) Close() {}

// countingLogic counts what is settled, and lets the sender go on.
type countingLogic struct {
	tier.Logic
	settled chan int
}

func (l countingLogic) Settled(_ context.Context, b *tier.SettledBatch) (*tier.Accepted, error) {
	l.settled <- len(b.Items)
	return &tier.Accepted{}, nil
}

// BenchmarkAppend measures a message through Submit, plan, commit to nowhere, and the
// results to its Logic: ns and allocations of the core, requests made by the benchmark
// included (2 allocations, about 0.4 us).
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ convs, window int }{{200, 200}, {200, 6400}, {100_000, 6400}} {
		b.Run(fmt.Sprintf("convs=%d/window=%d", c.convs, c.window), func(b *testing.B) {
			benchAppend(b, nullStore{}, c.convs, c.window)
		})
	}
}

// BenchmarkAppendPebble is the same over the embedded store, flushed.
func BenchmarkAppendPebble(b *testing.B) {
	for _, c := range []struct{ convs, window int }{{200, 200}, {200, 6400}} {
		b.Run(fmt.Sprintf("convs=%d/window=%d", c.convs, c.window), func(b *testing.B) {
			s := openPebble(b)
			defer s.Close()
			benchAppend(b, s, c.convs, c.window)
		})
	}
}

func benchAppend(b *testing.B, s store.Store, convs, window int) {
	logic := countingLogic{settled: make(chan int, 1024)}
	cfg := DefaultConfig()
	d, err := New(cfg, Deps{
		Store: s, Self: control.Instance{Addr: "D0"},
		Logics: func(string) (tier.Logic, error) { return logic, nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	names := make([][2]string, convs) // conversation, sender
	for i := range names {
		low, high := fmt.Sprintf("a%06d", i), fmt.Sprintf("b%06d", i)
		names[i] = [2]string{"p:" + low + ":" + high, low}
	}
	b.ReportAllocs()
	b.ResetTimer()
	spent := cpuTime(b)
	defer func() { b.ReportMetric(float64((cpuTime(b)-spent).Nanoseconds())/float64(b.N), "cpu-ns/op") }()
	next, open := 0, 0
	for done := 0; done < b.N; {
		for open < window && next < b.N {
			n := min(64, window-open, b.N-next)
			batch := &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: make([]*tier.Submit, n)}
			for i := range batch.Items {
				name := &names[next%convs]
				batch.Items[i] = &tier.Submit{
					Id: uint64(next), Tenant: tenant, TtlMs: 120_000,
					Append: &tier.Append{
						Conv: name[0], Sender: name[1], ClientMsgId: "0190-" + strconv.Itoa(next), Attempt: 1,
						Text: "how much is the fish, and is it fresh?", DisplayedSeq: uint64(next / convs),
					},
				}
				next++
			}
			if rsp, err := d.Submit(ctx, batch); err != nil || len(rsp.Refused) > 0 {
				b.Fatal(rsp, err)
			}
			open += n
		}
		n := <-logic.settled
		open -= n
		done += n
	}
}

// cpuTime is what the process has used: wall time means little on a shared machine.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
