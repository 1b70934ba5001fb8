package local

import "context"

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
