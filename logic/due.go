package logic

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"hongyan/idl/tier"
)

// due is a delivery of a user that nobody acked yet, of a row of the delivery outbox.
type due struct {
	version position
	row     rowKey
	conv    string
	seq     uint64
	at      time.Time
	// silent: nothing in it is worth waking a device for (own messages, read positions).
	// Connections learn of it by push or by their next renewal.
	silent bool
}

// rowKey names an outbox row: n is dense per owner and shard (the das that wrote it).
type rowKey struct {
	owner string
	shard uint32
	n     uint64
}

// deliverRows counts what is outstanding of each row whose deliveries came here. A row is
// finished when all of its entries were seen here and reached; what is not seen in whole
// stays in the store and is found by Scan.
type deliverRows struct {
	sync.Mutex
	open     map[rowKey]*deliverRow
	untold   []rowKey // nothing left, but how many entries there are was not told
	finished []rowKey
	due      int // deliveries outstanding, of all users
}

type deliverRow struct {
	seen   []uint32  // prints of the entries seen: one may be told twice
	left   int       // of them outstanding
	want   uint32    // entries of the row, 0 = not told
	broken bool      // an entry could not be remembered: never finished here
	at     time.Time // of the last entry seen
	batch  *encoder  // of the batch that brought the first: within it, none is told twice
}

// rowEntry is one entry of a delivery row.
type rowEntry struct {
	print       uint32 // of user and version
	of          uint32 // entries of the row, 0 = not told
	outstanding bool   // an ack is to be waited for
	batch       *encoder
}

// untoldWait is how long a row of untold size is waited for after its last entry was
// reached: the entries of one commit come within milliseconds.
const untoldWait = 2 * time.Second

func newDeliverRows() *deliverRows { return &deliverRows{open: map[rowKey]*deliverRow{}} }

// add counts an entry. True: it is to be remembered with its user until it is reached.
// Beyond most outstanding entries none is: Scan will find the row.
func (d *deliverRows) add(key rowKey, e rowEntry, now time.Time, most int) bool {
	d.Lock()
	defer d.Unlock()
	row := d.open[key]
	if row == nil {
		row = &deliverRow{batch: e.batch}
		d.open[key] = row
	}
	row.at, row.want = now, max(row.want, e.of)
	if (e.batch == nil || row.batch != e.batch) && slices.Contains(row.seen, e.print) {
		return false
	}
	row.seen = append(row.seen, e.print)
	if e.outstanding && d.due >= most {
		row.broken = true
		return false
	}
	if e.outstanding {
		row.left++
		d.due++
	}
	d.checkLocked(key, row)
	return e.outstanding
}

// reached counts an entry as delivered.
func (d *deliverRows) reached(key rowKey) {
	d.Lock()
	defer d.Unlock()
	d.due--
	if row := d.open[key]; row != nil && row.left > 0 {
		row.left--
		d.checkLocked(key, row)
	}
}

func (d *deliverRows) checkLocked(key rowKey, row *deliverRow) {
	switch {
	case row.left > 0 || row.broken:
	case row.want == 0:
		d.untold = append(d.untold, key)
	case len(row.seen) >= int(row.want):
		delete(d.open, key)
		d.finished = append(d.finished, key)
	}
}

// tracks tells whether a row is outstanding here.
func (d *deliverRows) tracks(key rowKey) bool {
	d.Lock()
	defer d.Unlock()
	return d.open[key] != nil
}

// take returns the rows that are finished since the last time. Rows of which only a part
// was ever seen here are forgotten after a while.
func (d *deliverRows) take(now time.Time, forget time.Duration) []rowKey {
	d.Lock()
	defer d.Unlock()
	kept := d.untold[:0]
	for _, key := range d.untold {
		row := d.open[key]
		if row == nil || row.left > 0 || row.broken {
			continue // finished, or more entries came: it will be back
		}
		if now.Sub(row.at) < untoldWait {
			kept = append(kept, key)
			continue
		}
		delete(d.open, key)
		d.finished = append(d.finished, key)
	}
	d.untold = kept
	for key, row := range d.open {
		if row.left == 0 && (row.want > 0 || row.broken) && now.Sub(row.at) > forget {
			delete(d.open, key)
		}
	}
	out := d.finished
	d.finished = nil
	return out
}

// sizes for metrics.
func (d *deliverRows) sizes() (rows, due int) {
	d.Lock()
	defer d.Unlock()
	return len(d.open), d.due
}

// rowRange is a run of finished rows of one owner without a hole.
type rowRange struct {
	owner    string
	shard    uint32
	from, to uint64
}

// ranges joins finished rows into runs. A run never covers a row that is not in keys: an
// insert whose reply was lost has left a hole there, and its row must live (R07).
func ranges(keys []rowKey) []rowRange {
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.shard, b.shard), cmp.Compare(a.n, b.n))
	})
	var out []rowRange
	for _, k := range keys {
		if last := len(out) - 1; last >= 0 && out[last].owner == k.owner && out[last].shard == k.shard &&
			(out[last].to == k.n || out[last].to+1 == k.n) {
			out[last].to = k.n
			continue
		}
		out = append(out, rowRange{k.owner, k.shard, k.n, k.n})
	}
	return out
}

// endRows deletes finished outbox rows, in ranges where they are this Logic's own.
func (l *Logic) endRows(kind tier.Outbox, keys []rowKey) {
	var mine []rowKey
	for _, k := range keys {
		if k.owner == l.self.Boot || k.owner == l.self.Addr {
			mine = append(mine, k)
		} else {
			l.endRange(kind, rowRange{k.owner, k.shard, k.n, k.n})
		}
	}
	for _, r := range ranges(mine) {
		l.endRange(kind, r)
	}
}

func (l *Logic) endRange(kind tier.Outbox, r rowRange) {
	// hash % n of the shard's number is that shard's das, as long as it lives.
	_ = l.submit(&write{hash: uint64(r.shard), item: &tier.Submit{
		Done: &tier.OutboxDone{Kind: kind, Owner: r.owner, From: r.from, To: r.to, Shard: r.shard},
	}})
}
