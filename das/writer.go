package das

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// writer is one goroutine that commits: it gathers what waits in its queues, plans it
// against the heads it remembers, commits it, and tells the callers. All that it remembers
// is its own.
type writer struct {
	das       *Das
	db        int         // of which database
	store     store.Store // it: all commits go there
	name      string
	exclusive bool               // the store's only writer: its memory is the truth
	queues    [businesses]*queue // nil: served by another writer
	lazy      *queue             // what may wait for another commit; nil as above
	wake      chan struct{}      // capacity 1: a token that is there says enough

	convs   cache[store.Key, conversation, *conversation]
	users   cache[store.Key, user, *user]
	members cache[memberKey, member, *member]
	epochs  [store.Buckets]uint64 // of buckets, 0 = not known
	tenants map[string]string     // one copy of each name

	plan      *plan
	mail      mail
	batch     []*item
	heldUntil time.Duration
	held      []*item // their buckets are closed for the moment; in order
	entries   slab[entry]
	told      slab[told]
}

func newWriter(d *Das, db int, name string, serves ...business) *writer {
	w := &writer{
		das: d, db: db, store: d.parts[db], name: name, exclusive: d.store.Exclusive(), wake: make(chan struct{}, 1),
		tenants: make(map[string]string),
	}
	w.convs.init(d.cfg.Cache.Conversations)
	w.users.init(d.cfg.Cache.Users)
	w.members.init(d.cfg.Cache.Members)
	for _, b := range serves {
		w.queues[b] = &queue{bound: &d.bounds[b]}
		if b == receipt {
			w.lazy = &queue{bound: &d.bounds[b]}
		}
	}
	w.plan = newPlan(w)
	return w
}

// queueOf is where an item waits.
func (w *writer) queueOf(it *item) *queue {
	if it.lazy() && it.quiet {
		return w.lazy
	}
	return w.queues[it.biz]
}

// push queues items and wakes the writer; for lazy ones only to set its timer.
func (w *writer) push(q *queue, items []*item) {
	if n := q.push(items); q != w.lazy || n == len(items) {
		w.signal()
	}
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run commits until the das drains and nothing is left. An error means that the store is
// broken: nothing may be answered any more.
func (w *writer) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		items := w.gather()
		if len(items) > 0 {
			if err := w.process(ctx, items); err != nil {
				return err
			}
			w.trim()
			continue
		}
		if w.das.isDraining() {
			return nil
		}
		var due <-chan time.Time
		if wait, ok := w.due(); ok {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-w.wake:
		case <-due:
		case <-w.das.draining:
		case <-ctx.Done():
		}
	}
	return nil
}

// gather takes what is there, each business at most its share: a flood of one leaves the
// others' places free. Lazy items come along, or alone when they are due.
func (w *writer) gather() []*item {
	items := w.batch[:0]
	c := &w.das.cfg.Commit
	held := w.takeHeld()
	items = append(items, held...)
	for b, q := range w.queues {
		if q == nil {
			continue
		}
		n := len(items)
		if items = q.take(items, share(business(b), c.Items), c.Bytes); len(items) > n {
			w.das.metrics.wait[b].Observe((w.das.since() - items[n].arrived).Seconds())
		}
	}
	if len(items) == len(held) && !w.heldDue(held) {
		w.held = append(w.held[:0], held...)
		items = items[:0]
	}
	if w.lazy != nil {
		if wait, ok := w.lazyDue(); ok && (len(items) > 0 || wait <= 0 || w.das.isDraining()) {
			items = w.lazy.take(items, c.Items, c.Bytes)
		}
	}
	w.batch = items
	return items
}

// share is how many items of a business a commit takes at most.
func share(b business, appends int) int {
	switch b {
	case message:
		return appends
	case system:
		return max(appends/8, 1)
	default:
		return max(appends/2, 1)
	}
}

// lazyDue tells how long the oldest lazy item may still wait, false for none.
func (w *writer) lazyDue() (time.Duration, bool) {
	if w.lazy == nil {
		return 0, false
	}
	at, ok := w.lazy.oldest()
	return at + w.das.cfg.Commit.LazyDelay - w.das.since(), ok
}

// process settles every item: committed, denied, or failed.
func (w *writer) process(ctx context.Context, items []*item) error {
	for repeat := 0; len(items) > 0; repeat++ {
		tried, f, err := w.try(ctx, items)
		if err != nil || f == nil {
			return err
		}
		items = tried
		hit, rest := w.split(items, f)
		if len(hit) == 0 { // keys of nobody: bounded all the same
			hit, rest = rest, nil
		}
		hit = w.giveUp(hit)
		if repeat == 0 || len(hit) == 0 || len(rest) == 0 {
			items = inOrder(items, hit, rest)
			continue
		}
		// A second fence: the keys it names are contended. The rest does not wait for them.
		rest = append([]*item(nil), rest...)
		if err := w.process(ctx, rest); err != nil {
			return err
		}
		items = hit
	}
	return nil
}

// try plans and commits once. A fence is returned after its keys were forgotten, with the
// items that are not answered yet; an error means that the store is broken.
func (w *writer) try(ctx context.Context, items []*item) ([]*item, *fenced, error) {
	p := w.plan
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.das.cfg.Commit.Timeout)
	defer cancel()
	items, err := w.prepare(ctx, w.ours(items))
	if err != nil {
		p.discard(false)
		if errors.Is(err, store.ErrBroken) {
			return nil, nil, err
		}
		w.unreadable(items, err)
		return nil, nil, nil
	}
	if !p.empty() {
		if done, f, err := w.commit(ctx, items); !done {
			return items, f, err
		}
	}
	p.apply()
	p.settle()
	p.reset()
	return nil, nil, nil
}

const (
	// staleLimit is how often a batch is planned anew because what was remembered was found
	// to be stale while planning. Each time the stale key is read anew, so it ends.
	staleLimit = 64
	// unreadableLimit is how many items of a batch are left out because what they need cannot
	// be read. One more, and the store itself is taken to be ill.
	unreadableLimit = 3
)

// prepare decides the items and builds the batch. It returns the items that are in it: one
// whose keys cannot be read is answered, and spoils nothing for the others.
func (w *writer) prepare(ctx context.Context, items []*item) ([]*item, error) {
	p := w.plan
	for stale, left := 0, 0; ; {
		p.begin(ctx, items)
		err := p.decide()
		if err == nil {
			err = p.build()
		}
		p.closeView()
		if err == nil {
			unsure := w.confirm(ctx, items)
			if len(unsure) == 0 {
				return items, nil
			}
			items = slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return slices.Contains(unsure, it) })
			p.discard(false)
			continue
		}
		switch {
		case errors.Is(err, errStale) && stale < staleLimit:
			stale++
			w.das.metrics.stale()
		case errors.Is(err, store.ErrBroken), p.failing == nil, left == unreadableLimit:
			return items, err
		default:
			left++
			w.unreadable([]*item{p.failing}, err)
			items = slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return it == p.failing })
		}
		p.discard(false)
	}
}

// unreadable answers items that need what cannot be read. Nothing was written.
func (w *writer) unreadable(items []*item, err error) {
	w.das.log.Error("could not read what a commit needs", "items", len(items), slog.Any("error", err))
	w.fail(items, code.Unavailable, "the store could not be read")
}

// commit writes the batch. Not done and fenced: nothing was written, repeat. Not done and
// neither: it failed, the items have been answered.
func (w *writer) commit(ctx context.Context, items []*item) (done bool, f *fenced, err error) {
	p := w.plan
	began := w.das.since()
	err = w.store.Commit(ctx, &p.batch)
	w.das.metrics.committed(w.das.since()-began, len(items), err)
	if err == nil {
		return true, nil, nil
	}
	if fe, ok := errors.AsType[*store.FenceError](err); ok && !fe.Empty() {
		w.forget(fe)
		p.discard(false)
		return false, newFenced(fe), nil
	}
	if errors.Is(err, store.ErrBroken) {
		return false, nil, err
	}
	w.das.log.Error("commit failed", "items", len(items), slog.Any("error", err))
	p.dropAll()
	items = w.setHeldAside(items)
	switch {
	case errors.Is(err, store.ErrInvalid): // nothing was written
		p.discard(false)
		w.fail(items, code.Internal, "internal error")
	case errors.Is(err, store.ErrNotWritten):
		p.discard(false)
		w.refuse(items, errNotTaken)
	default:
		p.discard(true)
		w.fail(items, code.UnknownOutcome, "the write may or may not have been stored")
	}
	return false, nil, nil
}

// forget drops the keys whose belief was wrong, and only those (law 5).
func (w *writer) forget(f *store.FenceError) {
	for _, id := range f.Buckets {
		w.dropBucket(id)
	}
	for _, k := range f.Convs {
		w.convs.drop(k)
	}
	for _, k := range f.Users {
		w.users.drop(k)
	}
	for _, m := range f.Duplicates { // loaded anew, first attempts are looked up
		w.convs.drop(m.Conv)
	}
	w.skip(tier.Outbox_FANOUT, f.FanOut)
	w.skip(tier.Outbox_DELIVER, f.Deliver)
}

func (w *writer) skip(kind tier.Outbox, taken []store.RowKey) {
	for _, k := range taken {
		w.das.log.Error("another das numbers outbox rows with this one's slot: slots must differ",
			"slot", w.das.outbox.shard, "owner", k.Owner)
		w.das.outbox.skip(kind, k.Owner)
	}
}

// dropBucket forgets all that is remembered of a bucket: its epoch changed.
func (w *writer) dropBucket(id uint32) {
	w.epochs[id] = 0
	for k, s := range w.convs.slots {
		if s.value.bucket == id {
			w.convs.drop(k)
		}
	}
	for k, s := range w.users.slots {
		if s.value.bucket == id {
			w.users.drop(k)
		}
	}
}

// split parts the items that a fence hit from the rest, both in order.
func (w *writer) split(items []*item, f *fenced) (hit, rest []*item) {
	for _, it := range items {
		if it.touches(f) {
			hit = append(hit, it)
		} else {
			rest = append(rest, it)
		}
	}
	return hit, rest
}

// giveUp answers those that were repeated too often, and returns the others.
func (w *writer) giveUp(hit []*item) []*item {
	kept, lost := hit[:0], []*item(nil)
	for _, it := range hit {
		if it.repeats++; it.repeats > w.das.cfg.Commit.Repeats {
			lost = append(lost, it)
			continue
		}
		kept = append(kept, it)
	}
	w.das.metrics.repeated(len(kept))
	if len(lost) > 0 {
		w.das.log.Warn("given up: others kept moving their keys", "items", len(lost))
		w.fail(lost, code.Unavailable, "others kept moving this key")
	}
	return kept
}

// inOrder is hit and rest in the order of all. hit may have lost some.
func inOrder(all, hit, rest []*item) []*item {
	merged := make([]*item, 0, len(hit)+len(rest))
	for _, it := range all {
		switch {
		case len(hit) > 0 && hit[0] == it:
			merged, hit = append(merged, it), hit[1:]
		case len(rest) > 0 && rest[0] == it:
			merged, rest = append(merged, it), rest[1:]
		}
	}
	return merged
}

// trim bounds the memory, between two batches.
func (w *writer) trim() {
	w.convs.trim()
	w.users.trim()
	w.members.trim()
	clear(w.batch)
}
