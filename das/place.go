package das

import (
	"errors"
	"fmt"

	"hongyan/das/store"
	"hongyan/internal/route"
)

// A commit never spans two databases, so every database has writers of its own. A bucket that
// has moved takes its items along: a writer that meets one of them hands it on.

// findParts takes the store apart, if it is over several databases.
func (d *Das) findParts() error {
	p, ok := d.store.(store.Placed)
	if !ok || p.Databases() < 2 {
		d.parts = []store.Store{d.store}
		return nil
	}
	if d.oneCommit {
		return errors.New("das configuration: form one-commit needs all in one database")
	}
	d.placed = p
	for i := range p.Databases() {
		d.parts = append(d.parts, p.Part(i))
	}
	return nil
}

// database is where a bucket is, by the map of this moment.
func (d *Das) database(bucket uint32) int {
	if d.placed == nil {
		return 0
	}
	return d.placed.Database(bucket)
}

// makeWriters: one for everything where heads of conversations and users move in one
// commit, else several for each database that split the keys.
func (d *Das) makeWriters() {
	if d.store.Exclusive() || d.oneCommit {
		one := [][]*writer{{newWriter(d, 0, "all", session, receipt, fanout, contact, message, system)}}
		d.convWriters, d.userWriters = one, one
		return
	}
	d.convWriters, d.userWriters = make([][]*writer, len(d.parts)), make([][]*writer, len(d.parts))
	for db := range d.parts {
		for i := range d.cfg.Writers.Conversations {
			w := newWriter(d, db, fmt.Sprintf("conversations %d of database %d", i, db), message)
			d.convWriters[db] = append(d.convWriters[db], w)
		}
		for i := range d.cfg.Writers.Users {
			w := newWriter(d, db, fmt.Sprintf("users %d of database %d", i, db), session, receipt, fanout, contact, system)
			d.userWriters[db] = append(d.userWriters[db], w)
		}
	}
}

// writers are all of them, each once.
func (d *Das) writers() (all []*writer) {
	for db := range d.convWriters {
		all = append(all, d.convWriters[db]...)
		if d.convWriters[db][0] != d.userWriters[db][0] {
			all = append(all, d.userWriters[db]...)
		}
	}
	return all
}

// writerOf is the writer of an item's key, where its bucket is now.
func (d *Das) writerOf(it *item) *writer {
	db := it.db
	if it.req.Done == nil {
		db = d.database(it.bucket())
	}
	list := d.userWriters[db]
	if it.biz == message {
		list = d.convWriters[db]
	}
	return list[int(it.hash>>32)%len(list)]
}

func (it *item) bucket() uint32 { return route.Bucket(it.hash) }

// everywhere makes of an item one for each database but the first: rows of one owner are
// finished in ranges over all of them. Nobody waits for the copies.
func (d *Das) everywhere(it *item, add func(*item)) {
	for db := 1; db < len(d.parts); db++ {
		c := *it
		c.db, c.quiet = db, true
		d.bounds[c.biz].take(c.size, 1, true)
		add(&c)
	}
}

// ours returns the items whose keys are in the writer's database, and hands the others on.
func (w *writer) ours(items []*item) []*item {
	if w.das.placed == nil {
		return items
	}
	var kept, stray []*item
	for i, it := range items {
		is := it.req.Done != nil || w.das.database(it.bucket()) == w.db
		switch {
		case !is && stray == nil:
			kept, stray = append(kept, items[:i]...), []*item{it}
		case !is:
			stray = append(stray, it)
		case stray != nil:
			kept = append(kept, it)
		}
	}
	if stray == nil {
		return items
	}
	w.handOn(stray)
	return kept
}

// handOn gives items to the writers of the databases that their buckets have moved to. One
// that comes there before an earlier one of its sender is told to come again (R13).
func (w *writer) handOn(items []*item) {
	d := w.das
	if d.isDraining() {
		w.refuse(items, errMoved)
		return
	}
	d.metrics.handed.Add(float64(len(items)))
	var r run
	for _, it := range items {
		d.bounds[it.biz].take(it.size, 1, true)
		r.add(d.writerOf(it), it)
	}
	r.flush()
}
