package das

import (
	"context"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// Submit implements tier.Das: it queues writes, and is answered when they are accepted. An
// item that is not named in the reply will be settled by a call to the Logic of the batch,
// except cursors and finished outbox rows, which nobody waits for. The items are given up
// by the caller.
func (d *Das) Submit(ctx context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	if err := ids(field{"logic", b.Logic}, field{"boot", b.Boot}); err != nil {
		return nil, err
	}
	refused := d.accept(b.Items, d.callers.of(b.Logic, b.Boot), true)
	return &tier.SubmitReply{Refused: refused}, nil
}

// Write implements tier.Das: it is Submit for a caller that waits. Each item has one
// Settled in the answer, in no order; refused items too. When ctx ends first the outcome
// of what was accepted is unknown.
func (d *Das) Write(ctx context.Context, b *tier.SubmitBatch) (*tier.SettledBatch, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	if len(b.Items) == 0 {
		return &tier.SettledBatch{Das: d.self.Addr}, nil
	}
	if err := ids(field{"boot", b.Boot}); err != nil {
		return nil, err
	}
	w := &waiter{open: len(b.Items), done: make(chan struct{})}
	w.batch.Das = d.self.Addr
	for _, r := range d.accept(b.Items, &caller{boot: b.Boot, out: w}, false) {
		w.put([]*tier.Settled{{Id: r.Id, Code: r.Code, Message: r.Message, RetryAfterMs: r.RetryAfterMs}}, nil)
	}
	return w.wait(ctx, d.stopped)
}

func (d *Das) open() error {
	if d.isDraining() {
		return code.Errorf(code.Unavailable, "das is stopping")
	}
	return nil
}

// accept queues what can be taken and names the rest. quiet: cursors and finished rows
// are not answered, and may wait for another commit.
func (d *Das) accept(submits []*tier.Submit, from *caller, quiet bool) (refused []*tier.Refused) {
	items := make([]item, len(submits)) // in one piece
	now, share := d.since(), d.appendShare()
	var r run
	for i, s := range submits {
		it := &items[i]
		*it = item{req: s, from: from, arrived: now}
		if err := d.admit(it, share); err != nil {
			d.metrics.refuse(it.biz, err.Code)
			refused = append(refused, &tier.Refused{
				Id: s.GetId(), Code: uint32(err.Code), Message: err.Message,
				RetryAfterMs: uint32(err.RetryAfter.Milliseconds()),
			})
			continue
		}
		it.quiet = quiet && it.lazy()
		r.add(d.writerOf(it), it)
		if s.Done != nil {
			d.everywhere(it, func(c *item) { r.add(d.writerOf(c), c) })
		}
	}
	r.flush()
	return refused
}

// run gathers consecutive items of one queue, so that those that came together are
// committed together.
type run struct {
	w     *writer
	q     *queue
	items []*item
}

func (r *run) add(w *writer, it *item) {
	if q := w.queueOf(it); q != r.q {
		r.flush()
		r.w, r.q = w, q
	}
	r.items = append(r.items, it)
}

func (r *run) flush() {
	if len(r.items) > 0 {
		r.w.push(r.q, r.items)
	}
	r.items = r.items[:0]
}

// admit checks an item and makes room for it.
func (d *Das) admit(it *item, share float64) *code.Error {
	if it.req == nil {
		return code.Errorf(code.BadRequest, "an item is empty")
	}
	if err := it.classify(); err != nil {
		return code.From(err)
	}
	if err := d.validate(it.req); err != nil {
		return code.From(err)
	}
	if it.afterCommit() {
		d.bounds[it.biz].take(it.size, 1, true)
		return nil
	}
	if it.biz != message {
		if !d.bounds[it.biz].take(it.size, 1, false) {
			return d.overloaded(it.biz, 1)
		}
		return nil
	}
	if d.appends.Add(1) > int64(share*float64(d.cfg.Commit.Appends)) {
		d.appends.Add(-1)
		return d.overloaded(message, share)
	}
	if !d.bounds[message].take(it.size, share, false) {
		d.appends.Add(-1)
		return d.overloaded(message, share)
	}
	return nil
}

// overloaded is the refusal of a full queue. The less is let in, the later to come back.
func (d *Das) overloaded(b business, share float64) *code.Error {
	e := code.Errorf(code.Overloaded, "the %s queue is full", b)
	e.RetryAfter = time.Duration(float64(d.cfg.RetryAfter) * (1 + 9*(1-share)))
	return e
}

// release ends an item's part in the bounds.
func (d *Das) release(it *item) {
	if it.biz == message {
		d.appends.Add(-1)
	}
}
