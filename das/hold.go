package das

import (
	"context"
	"log/slog"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// What a writer cannot commit now but can in a moment.
var (
	// errClosed: a bucket may not be written here. A move closes it for well under a second.
	errClosed = code.Errorf(code.Unavailable, "the bucket of this key is closed here")
	// errMoved: the writer that has the bucket now will not come to it.
	errMoved = code.Errorf(code.Unavailable, "the bucket of this key has moved and das is stopping")
	// errNotTaken: the database is not there, or takes no writes.
	errNotTaken = code.Errorf(code.Unavailable, "the database takes no writes just now; nothing was stored")
	// errUnsure: what is there may be lost with the server that shows it.
	errUnsure = code.Errorf(code.Unavailable, "the database cannot confirm what it shows")
)

// holdPause is the time between two looks at a closed bucket.
const holdPause = 20 * time.Millisecond

// hold keeps an item whose bucket is closed for another try, unless it has waited long enough.
func (w *writer) hold(it *item, now time.Duration) bool {
	if it.held == 0 {
		it.held = now
	}
	return now-it.held < w.das.cfg.Commit.Hold && !w.das.isDraining()
}

// takeHeld are the items that were held: they come before all that arrived later.
func (w *writer) takeHeld() []*item {
	held := w.held
	w.held = nil
	return held
}

// heldDue tells that held items are to be tried though nothing else is.
func (w *writer) heldDue(held []*item) bool {
	return len(held) > 0 && (w.das.since() >= w.heldUntil || w.das.isDraining())
}

// due is when there is something to do though nothing comes, false for never.
func (w *writer) due() (wait time.Duration, ok bool) {
	wait, ok = w.lazyDue()
	if len(w.held) > 0 {
		if until := w.heldUntil - w.das.since(); !ok || until < wait {
			wait, ok = until, true
		}
	}
	return max(wait, 0), ok
}

// keepHeld puts what the plan held aside, after its commit.
func (w *writer) keepHeld(items []*item) {
	w.held = append(w.held, items...)
	w.heldUntil = w.das.since() + holdPause
	w.das.metrics.held.Add(float64(len(items)))
}

// setHeldAside keeps the items that wait for their bucket, and returns the others.
func (w *writer) setHeldAside(items []*item) (others []*item) {
	var held []*item
	for _, it := range items {
		if it.out.held {
			held = append(held, it)
		} else {
			others = append(others, it)
		}
	}
	if held != nil {
		w.keepHeld(held)
	}
	return others
}

// refuse answers items that were not written, with a hint when to come again.
func (w *writer) refuse(items []*item, why *code.Error) {
	m := &w.mail
	for _, it := range items {
		w.das.release(it)
		if it.quiet {
			continue
		}
		box := m.of(it.from)
		box.settled = append(box.settled, &tier.Settled{
			Id: it.req.Id, Code: uint32(why.Code), Message: why.Message,
			RetryAfterMs: uint32(w.das.cfg.RetryAfter.Milliseconds()),
		})
	}
	m.post()
}

// confirm waits until what answers without a write were read from survives a failover (R19):
// one barrier for the whole batch, after the last read. It returns the items that it answered
// because there is no telling.
func (w *writer) confirm(ctx context.Context, items []*item) (unsure []*item) {
	p := w.plan
	if p.shown == nil || w.exclusive {
		return nil
	}
	for _, it := range items {
		if it.derived {
			unsure = append(unsure, it)
		}
	}
	if len(unsure) == 0 {
		return nil
	}
	err := store.Confirm(ctx, w.das.store, p.shown)
	if err == nil {
		return nil
	}
	w.das.log.Warn("what was read may not last", "items", len(unsure), slog.Any("error", err))
	w.refuse(unsure, errUnsure)
	return unsure
}
