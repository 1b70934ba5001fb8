package shards

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/das/store"
	"hongyan/internal/control"
)

// MoveKey is where a move under way is noted in the control centre: there is one at a time.
const MoveKey = "shards/move"

// Mover takes buckets from one database to another while they are used.
//
// Of each bucket the rows are copied while it is open, again and again until little is new;
// then it is closed, what changed since is copied, and it is opened at the target, at its
// epoch. At last the map tells everybody. A bucket is closed as long as it takes to compare its
// heads and copy that little. At every moment it is open in one database at most (R17); a move
// that died is run again with Resume, or taken back by Undo, and nothing is lost.
type Mover struct {
	// From and To are the very servers that take writes now: a move does not follow a failover,
	// it fails and is run again.
	From, To         store.Movable
	FromName, ToName string // of the shards
	Values           control.Values

	// Resume goes on with a move that died. The operator knows that it did.
	Resume bool
	// Parallel is how many buckets are on their way at the same time, each by itself; 0 = 1. To
	// move one of little data is a few waits for replicas and for the control centre.
	Parallel int
	// Page is how many rows are read or written at once; 0 = 500.
	Page     int
	Log      *slog.Logger       // nil = none
	Progress func(MoveProgress) // called after every step, one call at a time; nil = not

	// turn is of those that are on their way, for publishing and telling: who puts a token in has
	// it. Capacity 1. A mutex would stop virtual time while its holder sleeps.
	turn chan struct{}
}

// MoveProgress tells how far a move has come.
type MoveProgress struct {
	Bucket uint32
	Step   string        // of: copy, close, tail, open, publish, done
	Pass   int           // of copy
	Rows   int           // copied so far, of this bucket
	Closed time.Duration // for how long the bucket was closed; at step done
}

// Errors of a move. Nothing is lost by any.
var (
	// ErrMoving: another move is under way, or has died.
	ErrMoving = errors.New("another move is noted as under way")
	// ErrElsewhere: the map does not say that the bucket is where it is to be moved from.
	ErrElsewhere = errors.New("the bucket is elsewhere by the map")
	// ErrOccupied: the target is open and has rows, though the map says that it is not in use.
	ErrOccupied = errors.New("the target holds rows of this bucket and is open")
	// ErrDiffers: after the copy source and target do not hold the same.
	ErrDiffers = errors.New("source and target differ after the copy")
)

const (
	movePage   = 500
	movePasses = 8
	// moveLittle is how many rows of a pass are few enough to copy while the bucket is closed.
	moveLittle = 200
	// moveTries is how often a write of a move is tried.
	moveTries = 5
	movePause = 200 * time.Millisecond
)

// Move moves buckets. One that was moved before is passed over. After an error no other is
// begun; those that are on their way are finished.
func (m Mover) Move(ctx context.Context, buckets ...uint32) error {
	return m.locked(ctx, func() error {
		var movers sync.WaitGroup
		var next, failed atomic.Int64
		errs := make([]error, len(buckets))
		for range max(1, min(m.Parallel, len(buckets))) {
			movers.Go(func() {
				for failed.Load() == 0 {
					i := int(next.Add(1)) - 1
					if i >= len(buckets) {
						return
					}
					if err := (&move{Mover: m, bucket: buckets[i]}).run(ctx); err != nil {
						failed.Add(1)
						errs[i] = fmt.Errorf("move bucket %d from %s to %s: %w", buckets[i], m.FromName, m.ToName, err)
					}
				}
			})
		}
		movers.Wait()
		return errors.Join(errs...)
	})
}

// Undo opens buckets again where they were, after a move that died. What the target holds of
// them stays there, closed.
func (m Mover) Undo(ctx context.Context, buckets ...uint32) error {
	m.Resume = true
	return m.locked(ctx, func() error {
		for _, b := range buckets {
			if err := (&move{Mover: m, bucket: b}).undo(ctx); err != nil {
				return fmt.Errorf("take back the move of bucket %d from %s to %s: %w", b, m.FromName, m.ToName, err)
			}
		}
		return nil
	})
}

// Purge deletes what From still holds of buckets that the map says are elsewhere.
func (m Mover) Purge(ctx context.Context, buckets ...uint32) error {
	placed, _, err := m.load(ctx)
	if err != nil {
		return err
	}
	for _, b := range buckets {
		if placed.Shard(b) == m.FromName {
			return fmt.Errorf("purge bucket %d of %s: it is there by the map", b, m.FromName)
		}
		for more := true; more; {
			if more, err = m.From.Purge(ctx, b, m.page()); err != nil {
				return fmt.Errorf("purge bucket %d of %s: %w", b, m.FromName, err)
			}
		}
	}
	return nil
}

func (m *Mover) page() int {
	if m.Page > 0 {
		return m.Page
	}
	return movePage
}

// locked runs work while the control centre notes that this move is under way. When it fails
// the note stays: the move is to be run again, or taken back.
func (m *Mover) locked(ctx context.Context, work func() error) error {
	m.turn = make(chan struct{}, 1)
	note, err := json.Marshal(map[string]string{"from": m.FromName, "to": m.ToName, "since": time.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	revision := int64(0)
	if m.Resume {
		revision = control.AnyRevision
	}
	v, err := m.Values.PutValue(ctx, MoveKey, note, revision)
	if errors.Is(err, control.ErrConflict) {
		return ErrMoving
	}
	if err != nil {
		return fmt.Errorf("note the move: %w", err)
	}
	if err := work(); err != nil {
		return err
	}
	if _, err := m.Values.PutValue(ctx, MoveKey, nil, v.Revision); err != nil {
		return fmt.Errorf("note the end of the move: %w", err)
	}
	return nil
}

// load reads the map and its revision.
func (m *Mover) load(ctx context.Context) (Map, int64, error) {
	v, err := m.Values.Value(ctx, MapKey)
	if err != nil {
		return Map{}, 0, fmt.Errorf("read the map: %w", err)
	}
	if v.Data == nil {
		return Map{}, 0, fmt.Errorf("the control centre has no map at %s", MapKey)
	}
	placed, err := ParseMap(v.Data)
	return placed, v.Revision, err
}

// publish puts a map in force, if nobody else has done so since revision.
func (m *Mover) publish(ctx context.Context, next Map, revision int64) error {
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if _, err := m.Values.PutValue(ctx, MapKey, data, revision); err != nil {
		return fmt.Errorf("publish the map: %w", err)
	}
	return nil
}

// move is that of one bucket.
type move struct {
	Mover
	bucket uint32
	epoch  uint64
	rows   int
	closed time.Duration
}

func (m *move) tell(step string, pass int) {
	if m.Progress != nil {
		m.turn <- struct{}{}
		defer func() { <-m.turn }()
		m.Progress(MoveProgress{Bucket: m.bucket, Step: step, Pass: pass, Rows: m.rows, Closed: m.closed})
	}
}

// run moves the bucket from whatever state an earlier try has left.
func (m *move) run(ctx context.Context) error {
	placed, revision, err := m.load(ctx)
	if err != nil {
		return err
	}
	switch placed.Shard(m.bucket) {
	case m.ToName:
		m.tell("done", 0)
		return nil
	case m.FromName:
	default:
		return fmt.Errorf("%w: %q", ErrElsewhere, placed.Shard(m.bucket))
	}
	from, to, err := m.states(ctx)
	if err != nil {
		return err
	}
	m.epoch = from.Epoch
	handed, err := m.handedOver(ctx, from, to)
	switch {
	case err != nil:
		return err
	case !handed && !from.Open: // an earlier try has died: nobody waits while the bucket is copied anew
		if err := m.undo(ctx); err != nil {
			return err
		}
		return m.run(ctx)
	case !handed:
		if err := m.prepare(ctx, to); err != nil {
			return err
		}
		if err := m.copyOpen(ctx); err != nil {
			return err
		}
		if err := m.handOver(ctx); err != nil {
			return err
		}
	}
	m.tell("publish", 0)
	if err := m.place(ctx, m.ToName, placed, revision); err != nil {
		return err
	}
	m.tell("done", 0)
	return nil
}

// place publishes that a bucket of the source is at shard. The map may have changed for another
// bucket since it was read.
func (m *move) place(ctx context.Context, shard string, placed Map, revision int64) error {
	m.turn <- struct{}{}
	defer func() { <-m.turn }()
	for try := 1; ; try++ {
		err := m.publish(ctx, placed.With(shard, m.bucket), revision)
		if err == nil || !errors.Is(err, control.ErrConflict) || try == moveTries {
			return err
		}
		if placed, revision, err = m.load(ctx); err != nil {
			return err
		}
		if placed.Shard(m.bucket) != m.FromName {
			return fmt.Errorf("%w: %q", ErrElsewhere, placed.Shard(m.bucket))
		}
	}
}

// states are the bucket's rows.
func (m *move) states(ctx context.Context) (from, to store.BucketState, err error) {
	if from, err = stateOf(ctx, m.From, m.bucket); err == nil {
		to, err = stateOf(ctx, m.To, m.bucket)
	}
	return from, to, err
}

func stateOf(ctx context.Context, db store.Store, bucket uint32) (store.BucketState, error) {
	v, err := db.View(ctx)
	if err != nil {
		return store.BucketState{}, err
	}
	defer v.Close()
	return v.Bucket(bucket)
}

// handedOver tells whether an earlier try has opened the target and died before it could
// publish: the source is closed, the target open, and both hold the same. Either may have failed
// over since, which raises its epoch: the bucket goes on at the higher one (R18). The rows at the
// target are not of a lost history, for they were completed after the source's closing had
// survived.
func (m *move) handedOver(ctx context.Context, from, to store.BucketState) (bool, error) {
	if from.Open || !to.Open {
		return false, nil
	}
	if err := m.verify(ctx); err != nil {
		if errors.Is(err, ErrDiffers) { // it was closed on the way to somewhere else
			err = nil
		}
		return false, err
	}
	if to.Epoch < from.Epoch {
		if err := m.set(ctx, m.To, store.BucketState{Epoch: from.Epoch, Open: true}); err != nil {
			return false, fmt.Errorf("raise the epoch of the target: %w", err)
		}
	}
	return true, nil
}

// prepare closes the bucket at the target, at the source's epoch. Rows that are there may be of
// a history that a failover has ended, and no epoch tells: that of the target rises with failovers
// of its own. They go.
func (m *move) prepare(ctx context.Context, to store.BucketState) error {
	n, err := m.To.BucketCount(ctx, m.bucket)
	if err != nil {
		return err
	}
	held := n != (store.BucketCount{})
	if to.Open && held {
		return ErrOccupied
	}
	if err := m.set(ctx, m.To, store.BucketState{Epoch: to.Epoch}); err != nil {
		return err
	}
	for more := held; more; {
		if more, err = m.To.Purge(ctx, m.bucket, m.page()); err != nil {
			return fmt.Errorf("purge rows of epoch %d: %w", to.Epoch, err)
		}
	}
	return m.set(ctx, m.To, store.BucketState{Epoch: m.epoch})
}

// copyOpen copies while the bucket is used, until a pass finds little that is new.
func (m *move) copyOpen(ctx context.Context) error {
	for pass := 1; pass <= movePasses; pass++ {
		before := m.rows
		if err := m.copy(ctx); err != nil {
			return err
		}
		m.tell("copy", pass)
		if m.rows-before < moveLittle {
			break
		}
	}
	return nil
}

// handOver closes the bucket here and opens it there. If that fails the bucket is opened here
// again.
func (m *move) handOver(ctx context.Context) (err error) {
	if now, err := stateOf(ctx, m.From, m.bucket); err != nil || now.Epoch != m.epoch {
		return errors.Join(fmt.Errorf("the bucket has epoch %d, the copy was begun at %d", now.Epoch, m.epoch), err)
	}
	m.tell("close", 0)
	began := time.Now()
	defer func() {
		if err != nil {
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveTries*time.Second)
			defer cancel()
			err = errors.Join(err, m.reopen(back, m.epoch))
		}
	}()
	if err := m.set(ctx, m.From, store.BucketState{Epoch: m.epoch}); err != nil {
		return fmt.Errorf("close the source: %w", err)
	}
	if err := m.copy(ctx); err != nil {
		return err
	}
	m.tell("tail", 0)
	if err := m.verify(ctx); err != nil {
		return err
	}
	if err := m.set(ctx, m.To, store.BucketState{Epoch: m.epoch, Open: true}); err != nil {
		return fmt.Errorf("open the target: %w", err)
	}
	m.closed = time.Since(began)
	m.tell("open", 0)
	if m.Log != nil {
		m.Log.Info("bucket moved", "bucket", m.bucket, "from", m.FromName, "to", m.ToName, "rows", m.rows, "closed", m.closed)
	}
	return nil
}

// reopen gives the bucket back to the source: only once the target is known to be closed, at its
// epoch.
func (m *move) reopen(ctx context.Context, target uint64) error {
	if err := m.set(ctx, m.To, store.BucketState{Epoch: target}); err != nil {
		return fmt.Errorf("the bucket stays closed, run the move again or take it back: %w", err)
	}
	if err := m.set(ctx, m.From, store.BucketState{Epoch: m.epoch, Open: true}); err != nil {
		return fmt.Errorf("the bucket may be closed, run the move again or take it back: %w", err)
	}
	return nil
}

// undo makes sure that a late word of the move that died cannot publish its map any more, and
// opens the source.
func (m *move) undo(ctx context.Context) error {
	placed, revision, err := m.load(ctx)
	if err != nil {
		return err
	}
	if placed.Shard(m.bucket) != m.FromName {
		return fmt.Errorf("%w: %q; move it back instead", ErrElsewhere, placed.Shard(m.bucket))
	}
	if err := m.place(ctx, m.FromName, placed, revision); err != nil {
		return err
	}
	from, to, err := m.states(ctx)
	if err != nil {
		return err
	}
	m.epoch = from.Epoch
	if from.Open {
		return nil
	}
	return m.reopen(ctx, to.Epoch)
}

// set writes the bucket's row. It is tried again: to write it twice does no harm.
func (m *move) set(ctx context.Context, db store.Movable, state store.BucketState) error {
	return m.again(ctx, func() error { return db.SetBucket(ctx, m.bucket, state) })
}

// again repeats a write that may be repeated.
func (m *move) again(ctx context.Context, write func() error) error {
	for try := 1; ; try++ {
		err := write()
		var fence *store.FenceError
		if err == nil || try == moveTries || errors.As(err, &fence) || errors.Is(err, store.ErrInvalid) || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(movePause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.Join(err, ctx.Err())
		}
	}
}

// verify compares what can be counted. Head rows of users are left out: that of one who has no
// version yet may or may not be there, and the others were compared one by one.
func (m *move) verify(ctx context.Context) error {
	from, err := m.From.BucketCount(ctx, m.bucket)
	if err != nil {
		return err
	}
	to, err := m.To.BucketCount(ctx, m.bucket)
	if err != nil {
		return err
	}
	if from.Users, to.Users = 0, 0; from != to {
		return fmt.Errorf("%w: %+v here, %+v there", ErrDiffers, from, to)
	}
	return nil
}
