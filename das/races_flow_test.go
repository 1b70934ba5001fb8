package das

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// The rules of races.md about what must never be lost, doubled or inverted, as far as das
// carries them. Each test says how it was seen to fail.

func (b *bed) submit(d *Das, items ...*tier.Submit) []*tier.Refused {
	b.Helper()
	for _, it := range items {
		b.ids++
		it.Id, it.Tenant = b.ids, tenant
	}
	rsp, err := d.Submit(b.Context(), &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: items})
	if err != nil {
		b.Fatal(err)
	}
	return rsp.Refused
}

// Seen red: with item.afterCommit answering false, the fan-outs are refused by the bound
// of one, or expire behind the slow commit.
func TestR04WhatFollowsACommitIsNeitherRefusedNorExpired(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Strict: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Queues.FanOut.Items = 1
		b.cfg.Queues.Receipt.Items = 1
		d := b.start(0)
		before.delay(5 * time.Second)
		var items []*tier.Submit
		for i := range 20 {
			f := fanOut("u", fmt.Sprintf("p:a%d:u", i), 1)
			f.TtlMs = 1
			items = append(items, f)
		}
		items = append(items, &tier.Submit{Woken: &tier.Woken{Uid: "u", Epoch: 1, Version: 1}, TtlMs: 1},
			&tier.Submit{Done: &tier.OutboxDone{Owner: "x", From: 1, To: 1}, TtlMs: 1})
		equal(t, "refused", len(b.submit(d, items[:10]...)), 0)
		time.Sleep(time.Second) // the first commit is under way
		equal(t, "refused", len(b.submit(d, items[10:]...)), 0)
		time.Sleep(time.Minute)
		a := b.logics["L1"].take().ok(t)
		equal(t, "settled", len(a.items), 21) // nobody waits for the finished row
	})
}

// Seen red: with appendShare answering 1, every append is taken.
func TestR04AppendsAreSlowedAsFanOutsFallBehind(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		b.cfg.Lag.Rows = 10
		b.cfg.Commit.Appends = 10
		b.cfg.Commit.Items = 1 // a fan-out row for each append
		d := b.start(0)
		for i := range 8 {
			b.write(d, send("p:a:b", "a", fmt.Sprint(i), "x")).ok(t)
		}
		equal(t, "nothing overdue", d.appendShare(), 1)
		time.Sleep(10 * time.Second) // nobody drives them
		synctest.Wait()
		equal(t, "8 of 10 rows overdue", d.appendShare() < 0.5, true)
		var burst []*tier.Submit
		for i := range 10 {
			burst = append(burst, send("p:a:c", "a", fmt.Sprint("burst", i), "x"))
		}
		refused := b.submit(d, burst...)
		equal(t, "some of 10 are refused, not all", len(refused) > 5 && len(refused) < 10, true)
		equal(t, "code", code.Code(refused[0].Code), code.Overloaded)
		equal(t, "retry later than usual", refused[0].RetryAfterMs > 200, true)
		time.Sleep(10 * time.Second)
		equal(t, "now all are refused", len(b.submit(d, send("p:a:b", "a", "late", "x"))), 1)

		row := b.scan(d, tier.Outbox_FANOUT)[0]
		b.write(d, &tier.Submit{Done: &tier.OutboxDone{
			Kind: tier.Outbox_FANOUT, Owner: row.Owner, From: 0, To: 1<<slotShift - 1,
		}}).ok(t)
		time.Sleep(2 * time.Second)
		equal(t, "driven: open again", len(b.submit(d, send("p:a:b", "a", "late", "x"))), 0)
	})
}

func (b *bed) scan(d *Das, kind tier.Outbox) []*tier.OutboxRow {
	b.Helper()
	rsp, err := d.Scan(b.Context(), &tier.ScanRequest{Kind: kind, Limit: 1000})
	if err != nil {
		b.Fatal(err)
	}
	return rsp.Rows
}

// again is the same send once more.
func again(s *tier.Submit) *tier.Submit {
	a := *s.Append
	a.Attempt++
	return &tier.Submit{Append: &a}
}

// Seen red: without repushAll the retry's answer has no changes; without orderAgain it has
// no order.
func TestR05DuplicateDrivesTheFanOutAgain(t *testing.T) {
	t.Run("one-commit", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			m := send("p:a:b", "a", "m1", "x")
			b.write(d, m).ok(t)
			a := b.write(d, again(m)).ok(t)
			equal(t, "duplicate", a.items[0].Append.Duplicate, true)
			equal(t, "sender's version", a.items[0].Version, 1)
			equal(t, "rows to push", len(a.changes), 2)
			equal(t, "of b", texts(a.row("b").Messages), "1=x")
			equal(t, "no new delivery row", a.changes[0].Deliver, 0)
			equal(t, "epoch", a.changes[0].Epoch, 1)
			equal(t, "no new version", b.sync(d, "b", 0).Head, 1)
		})
	})
	t.Run("two-stage", func(t *testing.T) {
		inBed(t, shared(), func(t *testing.T, b *bed) {
			d0, d1 := b.start(0), b.start(1)
			m := send("p:a:b", "a", "m1", "x")
			b.write(d0, m).ok(t)
			a := b.writeAs("L2", d1, again(m)).ok(t)
			o := a.items[0].Append.Order
			if o == nil || len(o.Members) != 2 || len(o.Messages) != 1 {
				t.Fatalf("order of the retry: %+v", o)
			}
			equal(t, "to b", fmt.Sprint(o.Members[1].Uid, " ", o.Members[1].LastSeq, o.Members[1].LastOrd), "b 1 1")
			equal(t, "names no row", o.Row, 0)
		})
	})
}

// Seen red: without the look at last_seq and peer_read_seq every driving takes a version.
func TestR08FanOutDoneBeforeTakesNoVersion(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, fanOut("u", "p:a:u", 3)).ok(t)
		for i, d := range []*Das{d0, d1, d0} {
			a := b.write(d, fanOut("u", "p:a:u", uint64(i+1))).ok(t)
			equal(t, "version", a.items[0].Version, 1)
			equal(t, "row", a.items[0].Row.LastSeq, 3)
			equal(t, "to push", len(a.changes), 1)
			equal(t, "no delivery row", a.changes[0].Deliver, 0)
		}
		read := fanOut("u", "p:a:u", 0)
		read.Fanout.PeerReadSeq = 2
		equal(t, "peer read", b.write(d1, read).ok(t).items[0].Version, 2)
		equal(t, "again", b.write(d0, read).ok(t).items[0].Version, 2)
		equal(t, "delivery rows", b.rows(d0, tier.Outbox_DELIVER), "boot-L1/0:u=1 boot-L1/1:u=2")
	})
}

// The database of a log fails over to an older copy: the log goes back from 105 to 90, the
// rows of its members in other databases do not. What is stored then under 91 is told. Seen
// red: with last_seq compared alone, 91 is "already reached", hidden until the log passes 105.
func TestR18LogThatWentBackHidesNothing(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d := b.start(0)
		at := func(epoch, seq uint64) *tier.Submit {
			f := fanOut("u", "p:a:u", seq)
			f.Fanout.Epoch = epoch
			return f
		}
		b.write(d, at(1, 105)).ok(t)
		mark := read("u", "p:a:u", 105)
		mark.Read.Point = &tier.ReadPointReply{Epoch: 1, Seq: 105, Ord: 105, HeadSeq: 105, HeadOrd: 105}
		b.write(d, mark).ok(t)
		seen := fanOut("u", "p:a:u", 0)
		seen.Fanout.Epoch, seen.Fanout.PeerReadSeq = 1, 103
		b.write(d, seen).ok(t)

		a := b.write(d, at(2, 91)).ok(t)
		row := a.items[0].Row
		equal(t, "version", a.items[0].Version, 4)
		equal(t, "last", row.LastSeq, 91)
		equal(t, "91 is not read: the 91 that was is lost", row.ReadSeq, 90)
		equal(t, "unread", row.Unread, 1)
		equal(t, "nor has the peer read it", row.PeerReadSeq, 90)
		equal(t, "to push", len(a.changes), 1)

		for _, late := range []*tier.Submit{at(1, 100), at(1, 105), at(2, 91), seen} { // R08
			equal(t, "driven again", b.write(d, late).ok(t).items[0].Version, 4)
		}
		equal(t, "goes on", b.write(d, at(2, 92)).ok(t).items[0].Row.LastSeq, 92)
	})
}

// A failover that lost nothing: a read position that was confirmed before it is told after it.
// Seen red: with positions of an earlier epoch of the log dropped, the peer never learnt of it.
func TestR18ReadPositionOutlivesAFailover(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d := b.start(0)
		order := func(epoch, last, peerRead uint64) *tier.Submit {
			f := fanOut("u", "p:a:u", last)
			f.Fanout.Epoch, f.Fanout.PeerReadSeq = epoch, peerRead
			return f
		}
		b.write(d, order(1, 7, 0)).ok(t)
		b.write(d, order(2, 8, 0)).ok(t)
		equal(t, "told late", b.write(d, order(1, 0, 7)).ok(t).items[0].Row.PeerReadSeq, 7)
	})
}

// Orders say at which epoch of the log they were made, those found by a scan and those of a
// retry too.
func TestR18OrdersCarryTheEpochOfTheLog(t *testing.T) {
	s := shared()
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		order := func(id string) uint64 {
			return b.write(d, send("p:a:b", "a", id, "x")).ok(t).items[0].Append.Order.Members[0].Epoch
		}
		equal(t, "epoch", order("m1"), 1)
		bucket := bucketOf(store.Key{Tenant: tenant, ID: "p:a:b"})
		if err := s.SetBucket(t.Context(), bucket, store.BucketState{Epoch: 2, Open: true}); err != nil {
			t.Fatal(err)
		}
		equal(t, "later", order("m2"), 2)
		equal(t, "of a retry", order("m1"), 2)
		rsp, err := d.Scan(t.Context(), &tier.ScanRequest{Kind: tier.Outbox_FANOUT})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "found", rsp.Rows[0].Orders[0].Members[0].Epoch, 1)
		equal(t, "found", rsp.Rows[1].Orders[0].Members[1].Epoch, 2)
	})
}

// Das's part: a woken mark needs no device. Seen red: with the mark dropped for users that
// have no device row.
func TestR09WokenIsRaisedForWhomThereIsNothingToWake(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "a", "m2", "x")).ok(t)
		b.write(d, send("p:a:b", "a", "m3", "x")).ok(t)
		woken := func(v, epoch uint64) uint64 {
			b.write(d, &tier.Submit{Woken: &tier.Woken{Uid: "b", Epoch: epoch, Version: v}}).ok(t)
			return b.progress(d, "b").Woken
		}
		equal(t, "raised", woken(2, 1), 2)
		equal(t, "never lowered", woken(1, 1), 2)
		equal(t, "another epoch says nothing", woken(9, 7), 2)
	})
}

func (b *bed) progress(d *Das, uid string) *tier.UserProgress {
	b.Helper()
	p, err := d.Progress(b.Context(), &tier.ProgressRequest{Tenant: tenant, Uids: []string{uid}, Sessions: true, Devices: true})
	if err != nil {
		b.Fatal(err)
	}
	return p.Users[0]
}

// The retry overtakes the first attempt and commits; then the first arrives and says that
// it needs no look-up. The strict store panics where das vouches wrongly. Seen red: with
// recent.covers answering true (after the restart and the eviction), with recent.has
// looking at the ring only (behind 100 others), with mayRepeat answering false (retry), with
// dates of an earlier life believed (the clock ahead).
func TestR10LateFirstAttemptIsNotStoredTwice(t *testing.T) {
	late := func(t *testing.T, b *bed, d *Das) {
		a := b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
		equal(t, "duplicate", a.items[0].Append.Duplicate, true)
		equal(t, "seq", a.items[0].Append.Seq, 1)
	}
	retry := func(t *testing.T, b *bed, d *Das) {
		b.write(d, again(send("p:a:b", "a", "m1", "x"))).ok(t)
	}
	count := 0
	others := func(t *testing.T, b *bed, d *Das, n int) {
		for range n {
			count++
			b.write(d, send("p:a:b", "b", fmt.Sprint("other", count), "x")).ok(t)
		}
	}
	t.Run("at once", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			retry(t, b, d)
			late(t, b, d)
		})
	})
	t.Run("behind 100 others", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			retry(t, b, d)
			others(t, b, d, 100)
			late(t, b, d)
		})
	})
	t.Run("behind 100 others, after four minutes and more of them", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			others(t, b, d, 1)
			b.write(d, again(send("p:a:b", "a", "m1", "x"))).ok(t)
			for range 2 {
				others(t, b, d, 70)
				time.Sleep(2 * time.Minute)
			}
			a := b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
			equal(t, "seq", a.items[0].Append.Seq, 2)
		})
	})
	t.Run("a retry long after", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
			for range 3 { // forgotten meanwhile
				others(t, b, d, 100)
				time.Sleep(10 * time.Minute)
			}
			a := b.write(d, again(send("p:a:b", "a", "m1", "x"))).ok(t)
			equal(t, "seq", a.items[0].Append.Seq, 1)
		})
	})
	t.Run("after a restart", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d, stop := b.startStoppable(0)
			retry(t, b, d)
			others(t, b, d, 100)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			d = b.start(0)
			late(t, b, d)
			for i := range 5 { // while it is read back
				b.write(d, send("p:a:b", "b", fmt.Sprint("more", i), "x")).ok(t)
				late(t, b, d)
			}
		})
	})
	t.Run("after a restart, the clock an hour ahead", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d, stop := b.startStoppable(0)
			retry(t, b, d)
			others(t, b, d, 100)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // by the wall clock only: the first attempt is seconds old
			d = b.start(0)
			others(t, b, d, 10)
			late(t, b, d)
		})
	})
	t.Run("after an eviction", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			b.cfg.Cache.Conversations = 1
			d := b.start(0)
			retry(t, b, d)
			b.write(d, send("p:c:d", "c", "m1", "x")).ok(t)
			b.write(d, send("p:c:d", "c", "m2", "x")).ok(t)
			late(t, b, d)
		})
	})
}

func TestR10LateFirstAttemptElsewhere(t *testing.T) {
	t.Run("through another das", func(t *testing.T) {
		inBed(t, shared(), func(t *testing.T, b *bed) {
			d0, d1 := b.start(0), b.start(1)
			b.write(d0, send("p:a:b", "b", "m0", "x")).ok(t)
			b.write(d1, again(send("p:a:b", "a", "m1", "x"))).ok(t)
			a := b.write(d0, send("p:a:b", "a", "m1", "x")).ok(t)
			equal(t, "seq", a.items[0].Append.Seq, 2)
		})
	})
	t.Run("repeated by a tier", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			b.write(d, send("p:a:b", "a", "m1", "x")).ok(t)
			for range 3 {
				m := send("p:a:b", "a", "m1", "x")
				m.Repeated = true
				equal(t, "duplicate", b.write(d, m).ok(t).items[0].Append.Duplicate, true)
			}
		})
	})
}

// What is remembered spares the look-up of a first attempt. Seen red: without the memory
// every append after a restart is looked up.
func TestR10FirstAttemptsAreNotLookedUp(t *testing.T) {
	s := &countingStore{Store: exclusive()}
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		for i := range 200 {
			b.write(d, send("p:a:b", "a", fmt.Sprint(i), "x")).ok(t)
		}
		equal(t, "look-ups in a log that was seen from its start", s.lookUps, 0)
		d, stop := b.startStoppable(0) // it remembers nothing
		time.Sleep(10 * time.Minute)
		for i := range 200 {
			b.write(d, send("p:a:b", "a", fmt.Sprint("second", i), "x")).ok(t)
		}
		equal(t, "look-ups of a conversation loaded late", s.lookUps, 1)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

type countingStore struct {
	store.Store
	lookUps int
}

func (s *countingStore) View(ctx context.Context) (store.View, error) {
	v, err := s.Store.View(ctx)
	return countingView{v, s}, err
}

type countingView struct {
	store.View
	s *countingStore
}

func (v countingView) ByClientID(conv store.Key, sender, id string) (*store.Message, error) {
	v.s.lookUps++
	return v.View.ByClientID(conv, sender, id)
}

// Seen red: without the check in plan.decide the second append is stored after its life.
func TestR10ExpiredSendIsRefused(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, Strict: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		before.delay(3 * time.Second)
		d := b.start(0)
		first, second := send("p:a:b", "a", "m1", "x"), send("p:a:b", "a", "m2", "x")
		first.TtlMs, second.TtlMs = 1500, 1500
		b.submit(d, first)
		time.Sleep(time.Second)
		b.submit(d, second)
		time.Sleep(10 * time.Second)
		equal(t, "codes", b.logics["L1"].take().codes(), "ok expired")
		equal(t, "log", texts(b.history(d, "a", "p:a:b")), "1=x")
	})
}

// b1 from one device and b0 from the peer share a version: the ack says up to where. Seen
// red: with last_seq of the ack taken from the entry, the first ack says 1.
func TestR11AckCarriesLastSeqAtItsVersion(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "b", "m2", "y")).ok(t)
		for _, s := range a.items {
			equal(t, "version", s.Version, 1)
			equal(t, "last_seq", s.LastSeq, 2)
		}
		equal(t, "pushed", texts(a.row("a").Messages), "1=x 2=y")
		equal(t, "last_seq", a.row("a").LastSeq, 2)
	})
}

// Seen red: with the version counted per user and batch instead of per row, all rows of a
// get version 1.
func TestR12EachRowHasItsOwnVersion(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:c", "a", "m1", "x"), send("p:a:b", "b", "m2", "x"),
			send("p:a:d", "d", "m1", "x")).ok(t)
		var versions []uint64
		for _, c := range a.changes {
			if c.Uid == "a" {
				versions = append(versions, c.Row.Version)
			}
		}
		equal(t, "versions of a, in order", fmt.Sprint(versions), "[1 2 3]")
		equal(t, "the shared one", a.items[0].Version, a.items[2].LastSeq-1)
	})
}

// Seen red: without plan.follows m2 is stored before m1; with the answer of the first try
// kept on the item, the second part stores m2 though m1 was blocked.
func TestR13PredecessorIsCheckedAtEveryTry(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		next := func(id, after string) *tier.Submit {
			s := send("p:a:b", "a", id, id)
			s.Append.After = after
			return s
		}
		equal(t, "not stored", b.write(d0, next("m2", "m1")).codes(), "out_of_order")
		equal(t, "in one batch", b.write(d0, next("m1", ""), next("m2", "m1"), next("m3", "m2")).codes(), "ok ok ok")
		equal(t, "stored, another das", b.write(d1, next("m4", "m3")).codes(), "ok")
		equal(t, "long ago", b.write(d1, next("m5", "m1")).codes(), "ok")
		equal(t, "the peer's does not count", b.write(d0, send("p:a:b", "b", "n1", "x"), next("m6", "n1")).codes(), "ok out_of_order")

		b.write(d1, block("p:a:b", "b", "b1", true)).ok(t) // D0 does not know
		equal(t, "at the repeat m6 is blocked", b.write(d0, next("m6", "m5"), next("m7", "m6")).codes(), "blocked out_of_order")
	})
}

// Seen red: with orderRead left out there is no fan-out row for the peer; with the reader's
// own row not moved, no delivery row.
func TestR22ReadWritesItsRowsInItsTransaction(t *testing.T) {
	t.Run("two-stage", func(t *testing.T) {
		var before trap
		inBed(t, memory.New(memory.Options{Strict: true, BeforeCommit: before.hit}), func(t *testing.T, b *bed) {
			d := b.start(0)
			b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "a", "m2", "y")).ok(t)
			b.write(d, fanOut("b", "p:a:b", 2)).ok(t)
			before.forget()
			a := b.write(d, read("b", "p:a:b", 1)).ok(t)
			equal(t, "commits", len(before.seen()), 1)
			equal(t, "delivery row for b", before.seen()[0].Deliver[0].Entries[0].Version, 2)
			equal(t, "fan-out row for a", fmt.Sprint(before.seen()[0].FanOut[0].Entries[0].Members[0]), "{a 0 1 false}")
			equal(t, "told as an order", a.items[0].Append.Order.Members[0].PeerReadSeq, 1)
			equal(t, "own row", a.items[0].Row.Unread, 1)
			order := a.items[0].Append.Order.Members[0]
			a = b.write(d, &tier.Submit{Fanout: order}).ok(t)
			equal(t, "a's row knows", a.items[0].Row.PeerReadSeq, 1)
		})
	})
	t.Run("one-commit", func(t *testing.T) {
		inBed(t, exclusive(), func(t *testing.T, b *bed) {
			d := b.start(0)
			b.write(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "a", "m2", "y")).ok(t)
			a := b.write(d, read("b", "p:a:b", 1)).ok(t)
			equal(t, "b's row", a.row("b").ReadSeq, 1)
			equal(t, "a's row", a.row("a").PeerReadSeq, 1)
			equal(t, "rows", b.rows(d, tier.Outbox_DELIVER), "boot-L1/0:a=1,b=1 boot-L1/0:b=2,a=2")
		})
	})
}

func read(uid, convID string, seq uint64) *tier.Submit {
	return &tier.Submit{Read: &tier.ReadMark{Uid: uid, Conv: convID, Seq: seq}}
}

func modify(kind im.Kind, convID, by, id string, target uint64, text string) *tier.Submit {
	s := send(convID, by, id, text)
	s.Append.Kind, s.Append.TargetSeq = kind, target
	return s
}

func recall(by, id string, target uint64) *tier.Submit {
	return modify(im.Kind_EVENT_RECALL, "p:a:b", by, id, target, "")
}

func edit(by, id string, target uint64, text string) *tier.Submit {
	return modify(im.Kind_EVENT_EDIT, "p:a:b", by, id, target, text)
}

// Seen red: without the check of Recalled the edit brings the body back; without the
// rewrite history still shows it; with the superseded edit left alone its body survives the
// recall; with the target read from a stale belief and no repeat, D0's edit is taken.
func TestR25RecallAndEditRewriteTheirTarget(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, send("p:a:b", "a", "m1", "one"), send("p:a:b", "b", "m2", "two"), send("p:a:b", "a", "m3", "three")).ok(t)
		equal(t, "not the author", b.write(d0, recall("b", "x1", 1)).codes(), "denied")
		equal(t, "no such entry", b.write(d0, recall("a", "x2", 9)).codes(), "not_found")
		b.write(d0, edit("a", "e1", 1, "uno")).ok(t) // 4
		equal(t, "an event", b.write(d0, recall("a", "x3", 4)).codes(), "not_found")
		b.write(d0, edit("a", "e2", 1, "un")).ok(t) // 5
		equal(t, "log", texts(b.history(d0, "a", "p:a:b")), "1=un 2=two 3=three 4= 5=un")
		b.write(d1, recall("a", "r1", 1)).ok(t) // 6
		equal(t, "edit after recall, stale das", b.write(d0, edit("a", "e3", 1, "zombie")).codes(), "recalled")
		equal(t, "log", texts(b.history(d0, "a", "p:a:b")), "1= 2=two 3=three 4= 5= 6=")

		b.write(d0, edit("a", "e4", 3, "tres"), recall("a", "r2", 3), edit("a", "e5", 3, "late")).items[2].Code = 0
		rsp, err := d0.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "b", Sync: &im.Sync{
			ModsKnown: []*im.ModsKnown{{Conv: "p:a:b", Seq: 5}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "modified since 5", len(rsp.Modified), 2)
		for i, want := range []string{"1 6 true", "3 8 true"} {
			m := rsp.Modified[i]
			equal(t, "modified", fmt.Sprint(m.Seq, m.ModSeq, m.Recalled), want)
			equal(t, "body", m.Text, "")
		}
	})
}

// A message recalled in the batch that brings it is told, and stored, without its body.
// Seen red: with apply not taking the rewrite over, the push shows the body.
func TestR25RecallInTheSameBatch(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		a := b.write(d, send("p:a:b", "a", "m1", "oops"), edit("a", "e1", 1, "oops!"), recall("a", "r1", 1), edit("a", "e2", 1, "no"))
		equal(t, "codes", a.codes(), "ok ok ok recalled")
		equal(t, "pushed", texts(a.row("b").Messages), "1= 2= 3=")
		equal(t, "log", texts(b.history(d, "b", "p:a:b")), "1= 2= 3=")
		equal(t, "counted once", a.row("b").Unread, 1)
	})
}

// Seen red: with flags left out of the head row D0 goes on sending; with the recipients'
// Blocked taken from Logic it would not be set.
func TestR28FlagsMoveTheHead(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, send("p:a:b", "a", "m1", "x")).ok(t)
		a := b.write(d1, block("p:a:b", "b", "b1", true)).ok(t)
		equal(t, "b's row", a.items[0].Append.Order.Members[1].Blocked, true)
		equal(t, "a's row", a.items[0].Append.Order.Members[0].Blocked, false)
		equal(t, "D0 still believes", b.write(d0, send("p:a:b", "a", "m2", "x")).codes(), "blocked")
		equal(t, "an edit is content too", b.write(d0, edit("a", "e1", 1, "spam")).codes(), "blocked")
		equal(t, "a recall is not", b.write(d0, recall("a", "r1", 1)).codes(), "ok")
		equal(t, "b may still write", b.write(d0, send("p:a:b", "b", "m3", "x")).codes(), "ok")
		b.write(d0, block("p:a:b", "b", "b2", false)).ok(t)
		equal(t, "unblocked", b.write(d1, send("p:a:b", "a", "m2", "x")).codes(), "ok")
		equal(t, "channels cannot be blocked", b.write(d0, block("s:news:b", "b", "b3", true)).codes(), "denied")
	})
}

// Seen red: with plan.rule called before plan.earlier the retry is told "blocked".
func TestR29CommittedMessageIsNotDenied(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		m := send("p:a:b", "a", "m1", "x")
		b.write(d0, m).ok(t)
		b.write(d0, block("p:a:b", "b", "b1", true)).ok(t)
		b.write(d0, recall("a", "r1", 1)).ok(t)
		for _, d := range []*Das{d0, d1} {
			a := b.write(d, again(m)).ok(t)
			equal(t, "duplicate", a.items[0].Append.Duplicate, true)
			equal(t, "as it is now", a.items[0].Append.Message.Recalled, true)
			equal(t, "the recall too", b.write(d, again(recall("a", "r1", 1))).codes(), "ok")
			other := again(m)
			other.Append.Text = "y"
			equal(t, "another body", b.write(d, other).codes(), "conflict")
		}
		f, err := d1.Find(t.Context(), &tier.FindRequest{Tenant: tenant, Conv: "p:a:b", Sender: "a", ClientMsgId: "m1"})
		if err != nil || f.Message == nil || f.Message.Seq != 1 {
			t.Fatalf("find: %v, %v", f, err)
		}
	})
}
