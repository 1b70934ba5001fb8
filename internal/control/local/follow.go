package local

import (
	"context"
	"time"
)

// follow shows what look finds, at once and whenever it is another, until ctx ends. The channel
// of look is closed when it is time to look again.
func follow[T any](ctx context.Context, look func() (T, <-chan struct{}, error), equal func(a, b T) bool, fn func(T)) error {
	var shown T
	for first := true; ctx.Err() == nil; first = false {
		now, change, err := look()
		if err != nil {
			return err
		}
		if first || !equal(now, shown) {
			fn(now)
			shown = now
		}
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
	return nil
}

// poll reloads a file every interval, until ctx ends. It tells refused each time the reason is
// another one than before.
func poll(ctx context.Context, interval time.Duration, before, reload func() error, refused func(error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			last := before()
			if err := reload(); err != nil && (last == nil || last.Error() != err.Error()) {
				refused(err)
			}
		}
	}
}
