package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"hongyan/das/store"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/idl/im"
)

var (
	chat  = store.Key{Tenant: "shop", ID: "p:alice:bob"}
	alice = store.Key{Tenant: "shop", ID: "alice"}
)

// nth is the n-th group commit of a tiny world: one message, one row, one delivery row.
func nth(n uint64) *store.Batch {
	return &store.Batch{
		Convs: []store.ConvMove{{Key: chat, From: n - 1, To: store.ConvHead{Seq: n, Ord: n}}},
		Messages: []*store.Message{{
			Conv: chat, Seq: n, Sender: "alice", ClientMsgID: fmt.Sprint(n), Kind: im.Kind_TEXT, Text: "hi", Ord: n, OwnOrd: n,
		}},
		Users:   []store.UserMove{{Key: alice, From: n - 1, To: n}},
		Members: []store.MemberRow{{User: alice, Member: store.Member{Conv: chat.ID, Version: n, LastSeq: n}}},
		Deliver: []store.DeliverRow{{RowKey: store.RowKey{Owner: "l", N: n}}},
	}
}

// receive waits for what must come soon.
func receive[T any](t testing.TB, ch <-chan T) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came in 30 s")
	}
}

func commit(t testing.TB, s store.Store, b *store.Batch) {
	t.Helper()
	if err := s.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// head checks that a store holds whole commits 1..n and returns n.
func head(t testing.TB, s store.Store) uint64 {
	t.Helper()
	v, err := s.View(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	conv, err1 := v.Conv(chat)
	user, err2 := v.User(alice)
	rows, err3 := v.DeliverRows(store.RowKey{}, store.Anytime(), 0)
	list, err4 := v.Range(chat, 0, 1<<60, 0)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	n := conv.Seq
	if user.Version != n || uint64(len(rows)) != n || uint64(len(list)) != n {
		t.Fatalf("half a commit: conversation at %d, user at %d, %d rows, %d entries", n, user.Version, len(rows), len(list))
	}
	return n
}

// isLogSync tells a flush of the write-ahead log.
func isLogSync(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return strings.HasSuffix(op.Path, ".log")
	}
	return false
}

// gate holds flushes of the log back while it is shut.
type gate struct {
	shut    atomic.Bool
	waiting chan struct{} // one for each flush that came to the gate; capacity for all of a test
	open    chan struct{} // closed to let them go
	once    sync.Once
}

func newGate() *gate { return &gate{waiting: make(chan struct{}, 100), open: make(chan struct{})} }

// release opens the gate for good.
func (g *gate) release() {
	g.once.Do(func() {
		g.shut.Store(false)
		close(g.open)
	})
}

func (g *gate) MaybeError(op errorfs.Op) error {
	if isLogSync(op) && g.shut.Load() {
		g.waiting <- struct{}{}
		<-g.open
	}
	return nil
}

func (g *gate) String() string { return "gate" }

// Seen to fail with the wait taken out of View (the rows are handed out, and the crash that
// follows loses them), with the wait taken out of a refused Commit, and with commits that
// are not synced.
func TestR14ReadersWaitForTheFlushUnderWay(t *testing.T) {
	disk, g := vfs.NewCrashableMem(), newGate()
	s := open(t, small(), errorfs.Wrap(disk, g))
	commit(t, s, nth(1))

	g.shut.Store(true)
	defer g.release()
	committed := make(chan error, 1)
	go func() { committed <- s.Commit(context.Background(), nth(2)) }()
	receive(t, g.waiting)
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.View(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a view during the flush: %v, want it to wait", err)
	}
	soon, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Commit(soon, nth(2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a refusal that tells of the flush under way: %v, want it to wait", err)
	}
	select {
	case err := <-committed:
		t.Errorf("commit was answered before its flush: %v", err)
	default:
	}
	if n := head(t, open(t, small(), disk.CrashClone(vfs.CrashCloneCfg{}))); n != 1 {
		t.Errorf("head after a crash in mid-flush is %d, want 1", n)
	}

	g.release()
	if err := <-committed; err != nil {
		t.Errorf("commit: %v", err)
	}
	if n := head(t, s); n != 2 {
		t.Errorf("head is %d, want 2", n)
	}
}

// While one commit is being flushed the next is applied already, so that one flush may
// serve both.
func TestCommitsOverlapWithTheFlushInFront(t *testing.T) {
	g := newGate()
	s := open(t, small(), errorfs.Wrap(vfs.NewMem(), g))
	commit(t, s, nth(1))
	g.shut.Store(true)
	defer g.release()
	done := make(chan error, 2)
	go func() { done <- s.Commit(context.Background(), nth(2)) }()
	receive(t, g.waiting)
	go func() { done <- s.Commit(context.Background(), nth(3)) }()
	for deadline := time.Now().Add(30 * time.Second); s.Issued() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the third commit waits for the flush of the second")
		}
	}
	g.release()
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	if n := head(t, s); n != 3 {
		t.Errorf("head is %d, want 3", n)
	}
}

// Seen to fail with flushes.fail forgetting the reason: the store went on after it.
func TestR14FailedFlushBreaksTheStore(t *testing.T) {
	for name, match := range map[string]func(errorfs.Op) bool{
		"sync of the log":  isLogSync,
		"write of the log": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") },
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			fault := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				if match(op) {
					return syscall.EIO
				}
				return nil
			})}
			s := open(t, small(), errorfs.Wrap(disk, &fault))
			commit(t, s, nth(1))
			view, err := s.View(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer view.Close()
			select {
			case <-s.Broken():
				t.Fatal("broken too early")
			default:
			}

			fault.On()
			if err := s.Commit(t.Context(), nth(2)); !errors.Is(err, store.ErrBroken) || !errors.Is(err, syscall.EIO) {
				t.Errorf("commit: %v, want ErrBroken and why", err)
			}
			fault.Off() // a disk that recovers changes nothing: what was not flushed may be gone
			receive(t, s.Broken())
			if err := s.Err(); !errors.Is(err, store.ErrBroken) {
				t.Errorf("Err: %v", err)
			}
			if err := s.Commit(t.Context(), nth(3)); !errors.Is(err, store.ErrBroken) {
				t.Errorf("commit to a broken store: %v", err)
			}
			if _, err := s.View(t.Context()); !errors.Is(err, store.ErrBroken) {
				t.Errorf("view of a broken store: %v", err)
			}
			if _, err := view.Conv(chat); !errors.Is(err, store.ErrBroken) {
				t.Errorf("read of an older view: %v", err)
			}
			if err := s.SetBucket(t.Context(), 1, store.BucketState{}); !errors.Is(err, store.ErrBroken) {
				t.Errorf("bucket of a broken store: %v", err)
			}
			if n := head(t, open(t, small(), disk.CrashClone(vfs.CrashCloneCfg{}))); n != 1 {
				t.Errorf("head after the crash is %d, want 1", n)
			}
		})
	}
}

// Seen to fail (by time) with a wait that does not look at flushes.broken.
func TestR14WaitingReaderLearnsOfTheFailedFlush(t *testing.T) {
	g := newGate()
	var fails atomic.Bool
	s := open(t, small(), errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		g.MaybeError(op)
		if isLogSync(op) && fails.Load() {
			return syscall.EIO
		}
		return nil
	})))
	g.shut.Store(true)
	defer g.release()
	fails.Store(true)
	results := make(chan error, 2)
	go func() { results <- s.Commit(context.Background(), nth(1)) }()
	receive(t, g.waiting)
	go func() {
		_, err := s.View(context.Background())
		results <- err
	}()
	g.release()
	for range 2 {
		if err := <-results; !errors.Is(err, store.ErrBroken) {
			t.Errorf("%v, want ErrBroken", err)
		}
	}
}

// Without logFS Pebble takes the whole test down with a panic.
func TestFullDiskAtANewLogBreaksTheStore(t *testing.T) {
	disk := vfs.NewCrashableMem()
	fault := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite) && strings.HasSuffix(op.Path, ".log") {
			return syscall.ENOSPC
		}
		return nil
	})}
	s := open(t, small(), errorfs.Wrap(disk, &fault))
	commit(t, s, nth(1))
	fault.On()
	var err error
	n := uint64(2)
	for ; err == nil && n < 100; n++ {
		b := nth(n)
		b.Messages[0].Text = strings.Repeat("x", 64<<10)
		err = s.Commit(t.Context(), b)
	}
	if !errors.Is(err, store.ErrBroken) {
		t.Fatalf("commit %d: %v, want ErrBroken", n, err)
	}
	receive(t, s.Broken())
	if _, err := s.View(t.Context()); !errors.Is(err, store.ErrBroken) {
		t.Errorf("view of a broken store: %v", err)
	}
	if got := head(t, open(t, small(), disk.CrashClone(vfs.CrashCloneCfg{}))); got != n-2 {
		t.Errorf("head after the crash is %d, want the %d that were committed", got, n-2)
	}
}

// TestCrashKeepsWhatWasAnswered pulls the plug at random moments under load: nothing that
// a commit or a view has answered is gone, no commit is there by half, and no head went
// back. Seen to fail with pebble.NoSync in apply.
func TestCrashKeepsWhatWasAnswered(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := open(t, small(), disk)
	var answered, seen atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b := nth(n)
			b.Messages[0].Text = strings.Repeat("x", int(n%8)<<10) // memtables turn over, too
			if err := s.Commit(context.Background(), b); err != nil {
				t.Error(err)
				return
			}
			answered.Store(n)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				seen.Store(readHead(t, s))
			}
		}
	})
	rng := rand.New(rand.NewPCG(1, 1))
	for round := range 8 {
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
		least := max(answered.Load(), seen.Load())
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
		after, err := pebblestore.Open(small(), pebblestore.Deps{FS: clone})
		if err != nil {
			t.Fatalf("round %d: open after the crash: %v", round, err)
		}
		n := head(t, after)
		if n < least {
			t.Errorf("round %d: head after the crash is %d, %d was answered", round, n, least)
		}
		commit(t, after, nth(n+1)) // life goes on from there
		if err := after.Close(); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
	}
	close(stop)
	wg.Wait()
}

func readHead(t *testing.T, s store.Store) uint64 {
	v, err := s.View(context.Background())
	if err != nil {
		t.Error(err)
		return 0
	}
	defer v.Close()
	h, err := v.Conv(chat)
	if err != nil {
		t.Error(err)
	}
	return h.Seq
}

// A head that is derived from rows must not go back when rows are finished, recalled or
// rewritten, nor with a restart. Seen to fail with hidden member rows deleted instead of
// written.
func TestR15DerivedHeadsDoNotGoBack(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, small(), fs)
	for n := uint64(1); n <= 3; n++ {
		commit(t, s, nth(n))
	}
	b := nth(4) // recalls the last message; the row that held the newest version stays behind
	target := *nth(3).Messages[0]
	target.Text, target.Recalled, target.ModSeq = "", true, 4
	b.Messages[0].Kind, b.Messages[0].Ord, b.Messages[0].OwnOrd = im.Kind_EVENT_RECALL, 3, 3
	b.Rewrites = []*store.Message{&target}
	b.Members[0].Conv = "p:alice:carol"
	b.Members[0].Hidden = true
	commit(t, s, b)
	commit(t, s, &store.Batch{DeliverDone: []store.RowRange{{Owner: "l", From: 1, To: 4}}})

	check := func(s store.Store) {
		t.Helper()
		v, err := s.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		conv, _ := v.Conv(chat)
		user, _ := v.User(alice)
		if conv.Seq != 4 || conv.Ord != 3 || conv.Own["alice"] != 3 || user.Version != 4 {
			t.Errorf("heads: %+v, %+v", conv, user)
		}
		var fence *store.FenceError
		if err := s.Commit(t.Context(), nth(4)); !errors.As(err, &fence) || len(fence.Convs) != 1 || len(fence.Users) != 1 {
			t.Errorf("a commit from the older heads: %v", err)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, small(), fs))
}

// A lazy batch costs no flush of its own: a crash before the next flush loses it whole,
// and the next commit's flush keeps it.
func TestLazyBatchRidesWithTheNext(t *testing.T) {
	disk := vfs.NewCrashableMem()
	var syncs atomic.Int64
	s := open(t, small(), errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isLogSync(op) {
			syncs.Add(1)
		}
		return nil
	})))
	commit(t, s, nth(1))
	before := syncs.Load()
	commit(t, s, &store.Batch{
		Cursors:     []store.DeviceRow{{User: alice, Device: store.Device{ID: "phone", Cursor: 1}}},
		Woken:       []store.WokenMark{{User: alice, Version: 1}},
		DeliverDone: []store.RowRange{{Owner: "l", From: 1, To: 1}},
	})
	if n := syncs.Load() - before; n != 0 {
		t.Errorf("a lazy batch took %d flushes", n)
	}
	cursor := func(s store.Store) (cursor, woken uint64, rows int) {
		v, err := s.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		devices, _ := v.Devices(alice)
		user, _ := v.User(alice)
		deliver, _ := v.DeliverRows(store.RowKey{}, store.Anytime(), 0)
		for _, d := range devices {
			cursor = d.Cursor
		}
		return cursor, user.Woken, len(deliver)
	}
	if c, w, n := cursor(s); c != 1 || w != 1 || n != 0 {
		t.Errorf("a lazy batch shows cursor %d, woken %d, %d rows", c, w, n)
	}
	if c, w, n := cursor(open(t, small(), disk.CrashClone(vfs.CrashCloneCfg{}))); c != 0 || w != 0 || n != 1 {
		t.Errorf("after a crash in front of the flush: cursor %d, woken %d, %d rows", c, w, n)
	}
	commit(t, s, nth(2))
	if c, w, n := cursor(open(t, small(), disk.CrashClone(vfs.CrashCloneCfg{}))); c != 1 || w != 1 || n != 1 {
		t.Errorf("after a crash behind the flush: cursor %d, woken %d, %d rows", c, w, n)
	}
}
