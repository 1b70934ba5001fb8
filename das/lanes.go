package das

import (
	"context"
	"sync/atomic"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
)

// lane bounds the reads of one business: so many run, so many wait, more are refused.
type lane struct {
	running chan struct{} // capacity: how many run; a token is a running read
	waiting atomic.Int64
	most    int64
}

type lanes struct{ message, session, contact, system *lane }

func newLanes(c ReadsConfig) lanes {
	make1 := func(n int) *lane {
		return &lane{running: make(chan struct{}, n), most: int64(n * c.Waiting)}
	}
	return lanes{message: make1(c.Message), session: make1(c.Session), contact: make1(c.Contact), system: make1(c.System)}
}

// enter waits for a place. leave gives it back.
func (l *lane) enter(ctx context.Context) error {
	select {
	case l.running <- struct{}{}:
		return nil
	default:
	}
	if l.waiting.Add(1) > l.most {
		l.waiting.Add(-1)
		return code.Errorf(code.Overloaded, "too many reads of this kind wait")
	}
	defer l.waiting.Add(-1)
	select {
	case l.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		return code.From(ctx.Err())
	}
}

func (l *lane) leave() { <-l.running }

// reading runs one read in its lane over one snapshot. Reads see the store only, never what
// writers remember (R16). One that meets a closed bucket is repeated for a moment.
func reading[T any](ctx context.Context, d *Das, l *lane, name string, read func(store.View) (T, error)) (T, error) {
	return inLane(ctx, d, l, name, func() (T, error) { return once(ctx, d.store, read, false) })
}

// confirmed is reading for what is acked, pushed or acted upon: it is answered when what it
// was read from survives a failover (R19).
func confirmed[T any](ctx context.Context, d *Das, l *lane, name string, read func(store.View) (T, error)) (T, error) {
	return inLane(ctx, d, l, name, func() (T, error) { return once(ctx, d.store, read, true) })
}

func inLane[T any](ctx context.Context, d *Das, l *lane, name string, read func() (T, error)) (T, error) {
	var none T
	began := d.since()
	if err := l.enter(ctx); err != nil {
		d.metrics.readRefused.WithLabelValues(name).Inc()
		return none, err
	}
	defer l.leave()
	defer func() { d.metrics.readTime.WithLabelValues(name).Observe((d.since() - began).Seconds()) }()
	for until := began + d.cfg.Commit.Hold; ; {
		res, err := read()
		if err == nil {
			return res, nil
		}
		if err != errClosed || d.since() >= until || pause(ctx, holdPause) != nil {
			return none, d.readError(name, err)
		}
	}
}

// once reads from one snapshot of a store.
func once[T any](ctx context.Context, s store.Store, read func(store.View) (T, error), confirm bool) (T, error) {
	var none T
	v, err := s.View(ctx)
	if err != nil {
		return none, err
	}
	res, err := read(v)
	v.Close()
	if err != nil {
		return none, err
	}
	if confirm {
		if err := store.Confirm(ctx, s, v); err != nil {
			return none, err
		}
	}
	return res, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
