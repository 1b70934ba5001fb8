package shards

import (
	"context"
	"sync"
)

// barriers gathers those who wait for a barrier of one member: who comes while a write is
// under way waits for the next one, which begins after his read (R19).
type barriers struct {
	write func(context.Context) error // bounded by the database

	mu      sync.Mutex
	next    *barrier // not begun; nil = nobody waits for it
	running bool
}

type barrier struct {
	done chan struct{} // closed when err is set
	err  error
}

// wait returns when a write that began after the call has ended, or when ctx does. work
// runs the writes: they serve several who wait, whoever gives up.
func (b *barriers) wait(ctx context.Context, work *sync.WaitGroup, life context.Context) error {
	if err := life.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	if b.next == nil {
		b.next = &barrier{done: make(chan struct{})}
	}
	mine := b.next
	if !b.running {
		b.running = true
		work.Go(func() { b.run(life) })
	}
	b.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *barriers) run(ctx context.Context) {
	for {
		b.mu.Lock()
		now := b.next
		b.next = nil
		b.running = now != nil
		b.mu.Unlock()
		if now == nil {
			return
		}
		now.err = b.write(ctx)
		close(now.done)
	}
}
