package das

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// The rules of races.md about heads and fences, as far as das carries them. Each test says
// how it was seen to fail.

var errLost = errors.New("connection lost")

// trap is a hook of the store: it delays commits, fails those it is armed for, and keeps
// what matters of every batch.
type trap struct {
	mu      sync.Mutex
	armed   int
	sleep   time.Duration
	batches []*store.Batch
}

// arm makes the next n commits fail.
func (x *trap) arm(n int) { x.mu.Lock(); x.armed = n; x.mu.Unlock() }

// delay makes every commit take so long.
func (x *trap) delay(d time.Duration) { x.mu.Lock(); x.sleep = d; x.mu.Unlock() }

func (x *trap) forget() { x.mu.Lock(); x.batches = nil; x.mu.Unlock() }

func (x *trap) seen() []*store.Batch {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.batches)
}

func (x *trap) hit(b *store.Batch) error {
	x.mu.Lock()
	sleep := x.sleep
	x.mu.Unlock()
	time.Sleep(sleep)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.batches = append(x.batches, &store.Batch{FanOut: cloneRows(b.FanOut), Deliver: cloneRows(b.Deliver)})
	if x.armed > 0 {
		x.armed--
		return errLost
	}
	return nil
}

func cloneRows[R interface{ Clone() R }](rows []R) (list []R) {
	for _, r := range rows {
		list = append(list, r.Clone())
	}
	return list
}

func fanOut(uid, convID string, lastSeq uint64) *tier.Submit {
	return &tier.Submit{Fanout: &tier.FanOut{Uid: uid, Conv: convID, LastSeq: lastSeq, LastOrd: lastSeq}}
}

// Seen red: with writer.forget not dropping users, D0 repeats with its stale version until
// it gives up (unavailable). With the UserMove's From taken from the store's row instead of
// memory, D0 would write version 2 again: the store refuses that batch.
func TestR01StaleOwnerCannotReuseAVersion(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, fanOut("u", "p:a:u", 1)).ok(t) // D0 now remembers version 1
		b.write(d1, fanOut("u", "p:b:u", 1)).ok(t)
		b.write(d1, fanOut("u", "p:c:u", 1)).ok(t)
		a := b.write(d0, fanOut("u", "p:d:u", 1)).ok(t) // the paused one wakes
		equal(t, "version", a.items[0].Version, 4)
		equal(t, "changes after 3", len(b.sync(d0, "u", 3).Changes), 1)
	})
}

// Seen red: with dropAll taken out the append after the hidden commit is fenced: it takes
// two commits. (That it does not end in a wrong seq is the fence, R01.)
func TestR02FailedCommitLeavesNoHoleAndNoBelief(t *testing.T) {
	var before, after trap
	s := memory.New(memory.Options{Exclusive: true, Strict: true, BeforeCommit: before.hit, AfterCommit: after.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, send("p:a:b", "a", "m1", "one")).ok(t)
		before.arm(1) // not written
		equal(t, "lost before", b.write(d, send("p:a:b", "a", "m2", "two")).codes(), "unknown_outcome")
		a := b.write(d, send("p:a:b", "a", "m3", "three")).ok(t)
		equal(t, "no hole", a.items[0].Append.Seq, 2)
		equal(t, "version", a.items[0].Version, 2)

		after.arm(1) // written, the answer is lost
		equal(t, "lost after", b.write(d, send("p:a:b", "a", "m4", "four")).codes(), "unknown_outcome")
		before.forget()
		a = b.write(d, send("p:a:b", "a", "m5", "five")).ok(t)
		equal(t, "after the hidden one", a.items[0].Append.Seq, 4)
		equal(t, "commits for it: none was fenced", len(before.seen()), 1)
		equal(t, "log", texts(b.history(d, "a", "p:a:b")), "1=one 2=three 3=four 4=five")
	})
}

// Seen red: with trim called at every load instead of between batches, a second state of
// the same user is loaded while the first is in the batch; the store refuses the batch as
// invalid (two moves of one user).
func TestR02HeadsOfABatchAreNotEvicted(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		b.cfg.Cache = CacheConfig{Conversations: 1, Users: 1, Members: 1}
		d := b.start(0)
		for round := range 3 {
			var items []*tier.Submit
			for i := range 20 {
				peer := fmt.Sprintf("p:a:b%d", i%5)
				items = append(items, send(peer, "a", fmt.Sprintf("m%d-%d", round, i), "x"))
			}
			b.write(d, items...).ok(t)
		}
		s := b.sync(d, "a", 0)
		equal(t, "head: five rows moved in each of three commits", s.Head, 15)
		equal(t, "rows", len(s.Changes), 5)
	})
}

// Seen red: without the look at the batch's own entries in plan.earlier, the strict store
// panics: an entry repeats a key that its writer ruled out.
func TestR03DuplicateWithinOneBatch(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "one"), send("p:a:b", "a", "m1", "one"), send("p:a:b", "a", "m1", "other"))
		equal(t, "codes", a.codes(), "ok ok conflict")
		equal(t, "same place", a.items[1].Append.Seq, a.items[0].Append.Seq)
		equal(t, "first is new", a.items[0].Append.Duplicate, false)
		equal(t, "second is not", a.items[1].Append.Duplicate, true)
		equal(t, "log", texts(b.history(d, "a", "p:a:b")), "1=one")
	})
}

// Seen red: with fenced items given up at once, the third append is not stored.
func TestR03StaleSeqIsNotADuplicate(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, send("p:a:b", "a", "m1", "one")).ok(t)
		b.write(d1, send("p:a:b", "b", "m2", "two")).ok(t)
		a := b.write(d0, send("p:a:b", "a", "m3", "three")).ok(t) // believes seq 2 is free
		equal(t, "seq", a.items[0].Append.Seq, 3)
		equal(t, "duplicate", a.items[0].Append.Duplicate, false)
	})
}

// The store finds a duplicate that nobody looked for: the key of D0's first attempt was
// committed by D1 in between. Seen red: with writer.forget keeping conversations, the
// repeats vouch again and again.
func TestR03DuplicateNamedByTheStore(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, send("p:a:b", "a", "m0", "zero")).ok(t)
		b.write(d1, send("p:a:b", "a", "m1", "one")).ok(t)
		a := b.write(d0, send("p:a:b", "a", "m1", "one")).ok(t)
		equal(t, "seq", a.items[0].Append.Seq, 2)
		equal(t, "duplicate", a.items[0].Append.Duplicate, true)
	})
}

// Only the keys of the fence are read again; the others of the batch go through. Seen red:
// with split returning all items as hit, the untouched append is repeated too (2 repeats).
func TestFenceRepeatsOnlyItsOwnItems(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		b.cfg.Writers.Conversations = 1
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, send("p:a:b", "a", "m1", "x"), send("p:c:d", "c", "m1", "x")).ok(t)
		b.write(d1, send("p:a:b", "a", "m2", "x")).ok(t)
		a := b.write(d0, send("p:a:b", "a", "m3", "x"), send("p:c:d", "c", "m2", "x")).ok(t)
		equal(t, "fenced", a.items[0].Append.Seq, 3)
		equal(t, "untouched", a.items[1].Append.Seq, 2)
		equal(t, "repeats", counter(t, d0.metrics.repeats), 1)
	})
}

// A key that others keep moving ends as unavailable, and does not hold up the rest. Seen
// red: without giveUp the test never ends.
func TestContendedKeyIsGivenUp(t *testing.T) {
	s := &contended{Store: shared(), key: store.Key{Tenant: tenant, ID: "p:a:b"}}
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Writers.Conversations = 1
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x"), send("p:c:d", "c", "m1", "x"))
		equal(t, "codes", a.codes(), "unavailable ok")
	})
}

type contended struct {
	store.Store
	key store.Key
}

func (s *contended) Commit(ctx context.Context, b *store.Batch) error {
	for _, c := range b.Convs {
		if c.Key == s.key {
			return &store.FenceError{Convs: []store.Key{s.key}}
		}
	}
	return s.Store.Commit(ctx, b)
}

// One conversation that cannot be read spoils nothing for the others of its batch. Seen
// red: with unreadableLimit 0 both are answered unavailable.
func TestUnreadableKeySpoilsNoOther(t *testing.T) {
	s := &unreadable{Store: exclusive(), bad: "p:a:b"}
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x"), send("p:c:d", "c", "m1", "x"))
		equal(t, "codes", a.codes(), "unavailable ok")
		s.bad = ""
		equal(t, "later", b.write(d, send("p:a:b", "a", "m1", "x")).codes(), "ok")
	})
}

type unreadable struct {
	store.Store
	bad string
}

func (s *unreadable) View(ctx context.Context) (store.View, error) {
	v, err := s.Store.View(ctx)
	return unreadableView{v, s.bad}, err
}

type unreadableView struct {
	store.View
	bad string
}

func (v unreadableView) Conv(k store.Key) (store.ConvHead, error) {
	if k.ID == v.bad {
		return store.ConvHead{}, errors.New("checksum mismatch")
	}
	return v.View.Conv(k)
}

// Seen red: with numbers starting at 1 in every life, the second life writes row 1 again,
// which its owner has long finished and may delete by range.
func TestR06RowsAreWrittenOnceAndHaveOneOwner(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, Strict: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		d, stop := b.startStoppable(0)
		b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
		b.writeAs("L2", d, send("p:c:d", "c", "m1", "x")).ok(t)
		for _, r := range b.scan(d, tier.Outbox_DELIVER) {
			b.write(d, &tier.Submit{Done: &tier.OutboxDone{Kind: r.Kind, Owner: r.Owner, From: r.N, To: r.N, Shard: r.Shard}}).ok(t)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // a restart takes at least that long
		d = b.start(0)
		b.write(d, send("p:a:b", "a", "m2", "x")).ok(t)
		seen := make(map[store.RowKey]bool)
		for _, x := range before.seen() {
			for _, r := range x.Deliver {
				if seen[r.RowKey] {
					t.Fatalf("row %v was written twice", r.RowKey)
				}
				seen[r.RowKey] = true
			}
		}
		equal(t, "rows", len(seen), 3)
	})
}

// A clock that went back must not lead to rows over open ones. Seen red: with startOwner
// doing nothing the second life numbers below the first, into its rows.
func TestR06RowsStartAboveOpenOnesWhenTheClockWentBack(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d, stop := b.startStoppable(0)
		d.outbox.first += 1 << 40 // as if the clock had been ahead
		a := b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
		first := a.changes[0].Deliver
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		d = b.start(0)
		a = b.write(d, send("p:a:b", "a", "m2", "x")).ok(t)
		equal(t, "next", a.changes[0].Deliver, first+lifeGap)
	})
}

// The clock went back, and an earlier life's rows above the highest that is left were finished
// and deleted; the word that they are comes once more. Seen red: with lifeGap 1 it deletes a
// row that nobody has finished.
func TestR07LateWordOfAnEarlierLifeHitsNoRowOfThisOne(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d, stop := b.startStoppable(0)
		d.outbox.first += 1 << 40 // as if the clock had been ahead
		open := b.write(d, fanOut("u", "p:a:u", 1)).ok(t).changes[0]
		over := b.write(d, fanOut("v", "p:a:v", 1)).ok(t).changes[0]
		finished := func() *tier.Submit {
			return &tier.Submit{Done: &tier.OutboxDone{
				Kind: tier.Outbox_DELIVER, Owner: over.Owner, From: over.Deliver, To: over.Deliver, Shard: over.Shard,
			}}
		}
		b.write(d, finished()).ok(t)
		equal(t, "open", open.Deliver, over.Deliver-1)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		d = b.start(0)
		b.write(d, fanOut("w", "p:a:w", 1)).ok(t)
		b.write(d, finished()).ok(t)
		equal(t, "rows", b.rows(d, tier.Outbox_DELIVER), "boot-L1/0:u=1 boot-L1/0:w=1")
	})
}

// Seen red: with discard(false) for unknown outcomes the next row gets the same number.
func TestR07NumberOfALostInsertIsNotUsedAgain(t *testing.T) {
	var after trap
	s := memory.New(memory.Options{Exclusive: true, Strict: true, AfterCommit: after.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
		first := a.changes[0].Deliver
		after.arm(1)
		equal(t, "lost", b.write(d, send("p:a:b", "a", "m2", "x")).codes(), "unknown_outcome")
		a = b.write(d, send("p:a:b", "a", "m3", "x")).ok(t)
		equal(t, "next row", a.changes[0].Deliver, first+2)
	})
}

// Two das with one slot, begun in the same millisecond: the rows of both stay, the one that
// came second goes on elsewhere. Seen red: with rows that replace each other, u's is gone.
func TestR07OneSlotTwiceReplacesNoRow(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d, twin := b.start(0), b.start(0)
		for _, x := range []*Das{d, twin} { // both have looked for earlier rows
			x.outbox.start(tier.Outbox_DELIVER, "boot-L1", 0)
		}
		u := b.write(d, fanOut("u", "p:a:u", 1)).ok(t).changes[0]
		v := b.write(twin, fanOut("v", "p:a:v", 1)).ok(t).changes[0]
		again := b.write(twin, fanOut("v", "p:a:v", 2)).ok(t).changes[0]
		equal(t, "the second's", v.Deliver, u.Deliver+1+lifeGap)
		equal(t, "dense", again.Deliver, v.Deliver+1)
		equal(t, "rows", b.rows(d, tier.Outbox_DELIVER), "boot-L1/0:u=1 boot-L1/0:v=1 boot-L1/0:v=2")
	})
}

// A range deletes rows of its owner and of the das that numbered them, and nothing else.
// Seen red: with the shard left out of the stored number, D1's row goes with D0's.
func TestR07RangeDeleteCoversOnlyOwnRows(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		x := b.write(d0, fanOut("u", "p:a:u", 1)).ok(t).changes[0]
		b.write(d1, fanOut("v", "p:a:v", 1)).ok(t)
		b.writeAs("L2", d0, fanOut("w", "p:a:w", 1)).ok(t)
		equal(t, "rows", b.rows(d0, tier.Outbox_DELIVER), "boot-L1/0:u=1 boot-L1/1:v=1 boot-L2/0:w=1")
		b.write(d0, &tier.Submit{Done: &tier.OutboxDone{
			Kind: tier.Outbox_DELIVER, Owner: x.Owner, From: x.Deliver, To: x.Deliver + 1000, Shard: x.Shard,
		}}).ok(t)
		equal(t, "rows left", b.rows(d0, tier.Outbox_DELIVER), "boot-L1/1:v=1 boot-L2/0:w=1")
	})
}

// rows lists the open outbox rows: owner/shard:uid=version, or owner/shard:uid@seq.
func (b *bed) rows(d *Das, kind tier.Outbox) string {
	b.Helper()
	rsp, err := d.Scan(b.Context(), &tier.ScanRequest{Kind: kind})
	if err != nil {
		b.Fatal(err)
	}
	var list []string
	for _, r := range rsp.Rows {
		var who []string
		for _, x := range r.Due {
			who = append(who, fmt.Sprintf("%s=%d", x.Uid, x.Version))
		}
		for _, o := range r.Orders {
			for _, m := range o.Members {
				who = append(who, fmt.Sprintf("%s@%d/%d", m.Uid, m.LastSeq, m.PeerReadSeq))
			}
		}
		list = append(list, fmt.Sprintf("%s/%d:%s", r.Owner, r.Shard, strings.Join(who, ",")))
	}
	return strings.Join(list, " ")
}

// Seen red: with ErrBroken treated like any unknown outcome, Run does not end and the
// append is answered.
func TestR14BrokenStoreEndsRunAndNothingIsAnswered(t *testing.T) {
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: func(*store.Batch) error { return store.ErrBroken }})
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.make(0)
		ended := make(chan error, 1)
		go func() { ended <- d.Run(t.Context()) }()
		_, err := d.Submit(t.Context(), &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: []*tier.Submit{
			{Id: 1, Tenant: tenant, Append: send("p:a:b", "a", "m1", "x").Append},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, store.ErrBroken) {
			t.Fatalf("run ended with %v", err)
		}
		equal(t, "answers", len(b.logics["L1"].take().items), 0)
		_, err = d.Submit(t.Context(), &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1"})
		equal(t, "afterwards", code.Of(err), code.Unavailable)
	})
}

// Seen red: with two user writers on an exclusive store, makeWriters' test below fails and
// versions reach the Logic out of order.
func TestR15OneCommitterAssignsHeadsInCommitOrder(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		b.cfg.Writers = WritersConfig{Conversations: 3, Users: 3}
		d := b.start(0)
		equal(t, "writers of an exclusive store", len(d.writers()), 1)
		for i := range 100 {
			item := send(fmt.Sprintf("p:a:b%d", i%7), "a", fmt.Sprint(i), "x")
			item.Id, item.Tenant = uint64(i), tenant
			if _, err := d.Submit(t.Context(), &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: []*tier.Submit{item}}); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		last := uint64(0)
		for _, c := range b.logics["L1"].take().changes {
			if c.Uid != "a" {
				continue
			}
			if c.Row.Version != last+1 {
				t.Fatalf("version %d after %d", c.Row.Version, last)
			}
			last = c.Row.Version
		}
		equal(t, "head", b.sync(d, "a", 0).Head, last)
	})
}

// Seen red: with confirmConv, confirmUser and confirmBucket answering nil, the stale D0
// tells an old version and denies what D1 has allowed.
func TestR16StaleMemoryServesNoAnswer(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		// D0 remembers user u at version 1 and conversation p:a:b with b blocking a.
		b.write(d0, fanOut("u", "p:a:u", 5)).ok(t)
		b.write(d0, send("p:a:b", "a", "m1", "x"), block("p:a:b", "b", "b1", true)).ok(t)
		b.write(d1, fanOut("u", "p:b:u", 5), fanOut("u", "p:a:u", 6)).ok(t)
		b.write(d1, block("p:a:b", "b", "b2", false)).ok(t)

		a := b.write(d0, fanOut("u", "p:a:u", 5)).ok(t) // nothing to do: which version is told?
		equal(t, "current version", a.items[0].Version, 3)
		equal(t, "current last_seq", a.items[0].LastSeq, 6)
		a = b.write(d0, settings("u", &im.Settings{Conv: "p:a:u", Fields: []string{"muted"}})).ok(t)
		equal(t, "settings unchanged, version", a.items[0].Version, 3)
		equal(t, "no denial from memory", b.write(d0, send("p:a:b", "a", "m2", "x")).codes(), "ok")

		b.write(d1, send("p:a:b", "a", "m3", "x")).ok(t)
		next := send("p:a:b", "a", "m4", "x")
		next.Append.After = "m3" // D0 has not seen it
		equal(t, "predecessor is looked up", b.write(d0, next).codes(), "ok")

		p, err := d0.Progress(t.Context(), &tier.ProgressRequest{Tenant: tenant, Uids: []string{"u"}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "head", p.Users[0].Head, 3)
	})
}

// A closed bucket takes nothing and answers nothing; opened at a higher epoch, everything
// remembered of it is read anew. Seen red: with dropBucket keeping the epoch, writes stay
// unavailable after the bucket is open again.
func TestR17ClosedBucketTakesNothing(t *testing.T) {
	s := shared()
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, fanOut("u", "p:a:u", 1)).ok(t)
		bucket := bucketOf(store.Key{Tenant: tenant, ID: "u"})
		set := func(state store.BucketState) {
			if err := s.SetBucket(t.Context(), bucket, state); err != nil {
				t.Fatal(err)
			}
		}
		set(store.BucketState{Epoch: 1, Open: false})
		equal(t, "closed", b.write(d, fanOut("u", "p:a:u", 2)).codes(), "unavailable")
		_, err := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "u"})
		equal(t, "read of a closed bucket", code.Of(err), code.Unavailable)
		set(store.BucketState{Epoch: 2, Open: true})
		a := b.write(d, fanOut("u", "p:a:u", 2)).ok(t)
		equal(t, "epoch", a.items[0].Epoch, 2)
		equal(t, "version", a.items[0].Version, 2)
	})
}

func block(convID, by, id string, on bool) *tier.Submit {
	s := send(convID, by, id, "")
	s.Append.Kind = im.Kind_EVENT_UNBLOCK
	if on {
		s.Append.Kind = im.Kind_EVENT_BLOCK
	}
	return s
}

func settings(uid string, s *im.Settings) *tier.Submit {
	return &tier.Submit{Settings: &tier.SettingsMark{Uid: uid, Settings: s}}
}
