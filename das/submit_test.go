package das

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

func TestSubmitIsSettledByACallToItsLogic(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		refused := b.submit(d, send("p:a:b", "a", "m1", "x"), send("p:a:b", "b", "m2", "y"),
			&tier.Submit{}, send("p:a:b", "a", "", "no id"))
		equal(t, "refused", len(refused), 2)
		equal(t, "code", code.Code(refused[0].Code), code.BadRequest)
		a := b.logics["L1"].take().ok(t)
		equal(t, "settled", len(a.items), 2)
		equal(t, "changes", len(a.changes), 2)
		equal(t, "entries of their delivery row", a.changes[0].Entries, 2)
		_, err := d.Submit(t.Context(), &tier.SubmitBatch{Items: []*tier.Submit{}})
		equal(t, "nobody to answer", code.Of(err), code.BadRequest)
	})
}

// Law 4: what comes while a commit is under way goes with the next, together.
func TestZZ12GroupCommit(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		before.delay(10 * time.Millisecond)
		d := b.start(0)
		for i := range 100 {
			b.submit(d, send(fmt.Sprintf("p:a:b%d", i), "a", "m", "x"))
			synctest.Wait()
		}
		time.Sleep(time.Second)
		equal(t, "settled", len(b.logics["L1"].take().ok(t).items), 100)
		equal(t, "commits", len(before.seen()), 2)
	})
}

// A caller's commit with several homes: each has a row of its own, and the change of a
// member goes to his home if that is among the callers.
func TestDeliveryRowsBelongToTheHomes(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		m := send("p:a:b", "a", "m1", "x")
		m.Append.Homes = []*tier.Home{{Uid: "b", Boot: "boot-L2"}}
		b.submit(d, m)
		a := b.logics["L1"].take().ok(t)
		equal(t, "told to the caller", len(a.changes), 2)
		equal(t, "rows", b.rows(d, tier.Outbox_DELIVER), "boot-L1/0:a=1 boot-L2/0:b=1")
		equal(t, "owner of b's", a.changes[1].Owner, "boot-L2")
		equal(t, "entries", a.changes[1].Entries, 1)
	})
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		before.delay(time.Second)
		d := b.start(0)
		b.submit(d, send("p:x:y", "x", "m0", "x")) // under way
		time.Sleep(time.Millisecond)
		m := send("p:a:b", "a", "m1", "x")
		m.Append.Homes = []*tier.Home{{Uid: "b", Boot: "boot-L2"}}
		b.submit(d, m)
		reply := send("p:a:b", "b", "m2", "y")
		reply.Append.Homes = []*tier.Home{{Uid: "a", Boot: "boot-L1"}}
		reply.Id, reply.Tenant = 99, tenant
		if _, err := d.Submit(t.Context(), &tier.SubmitBatch{Logic: "L2", Boot: "boot-L2", Items: []*tier.Submit{reply}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		two := b.logics["L2"].take().ok(t)
		equal(t, "b's change is told at his home", two.changes[0].Uid, "b")
		equal(t, "with both messages", texts(two.changes[0].Row.Messages), "1=x 2=y")
	})
}

// Seen red: without the tries a single refused call loses the results.
func TestResultsAreTriedAgainAndThenDropped(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		l := b.logics["L1"]
		l.fail = 2
		b.submit(d, send("p:a:b", "a", "m1", "x"))
		time.Sleep(time.Second)
		equal(t, "third try", len(l.take().items), 1)
		l.fail = 3
		b.submit(d, send("p:a:b", "a", "m2", "x"))
		time.Sleep(time.Second)
		equal(t, "dropped", len(l.take().items), 0)
		equal(t, "counted", counter(t, d.metrics.results), 3)
		b.submit(d, send("p:a:b", "a", "m3", "x"))
		equal(t, "the next ones come", len(l.take().items), 1)
	})
}

// A Logic that takes long holds up neither commits nor another Logic.
func TestSlowLogicStopsNobodyElse(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.logics["L1"].slow = time.Minute
		b.submit(d, send("p:a:b", "a", "m1", "x"))
		time.Sleep(time.Second)
		for i := range 10 {
			b.writeAs("L2", d, send("p:c:d", "c", fmt.Sprint(i), "x")).ok(t)
			b.submit(d, send("p:a:b", "a", fmt.Sprint(i), "x"))
		}
		time.Sleep(5 * time.Minute)
		equal(t, "all come in the end", len(b.logics["L1"].take().items), 11)
	})
}

// ZZ-22: a flood of one business leaves the others' places free. Seen red: with one share
// for all and the system queue first, the append waits for all records.
func TestZZ22FloodOfOneQueueDelaysNoOther(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		before.delay(10 * time.Millisecond)
		d := b.start(0)
		var records []*tier.Submit
		for i := range 6000 {
			records = append(records, &tier.Submit{Record: &tier.PushRecord{Uid: fmt.Sprint("u", i), Device: "d", AtMs: int64(i)}})
		}
		refused := b.submit(d, records...)
		equal(t, "refused beyond the bound", len(refused), 6000-b.cfg.Queues.System.Items)
		equal(t, "code", code.Code(refused[0].Code), code.Overloaded)
		equal(t, "hint", refused[0].RetryAfterMs, 200)
		began := time.Now()
		b.writeAs("L2", d, send("p:a:b", "a", "m1", "x")).ok(t)
		if took := time.Since(began); took > 25*time.Millisecond {
			t.Fatalf("the append took %v, two commits are 20 ms", took)
		}
		time.Sleep(10 * time.Second)
		equal(t, "records", len(b.logics["L1"].take().ok(t).items), b.cfg.Queues.System.Items)
	})
}

func TestAppendsInFlightAreBounded(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Commit.Appends = 10
		before.delay(time.Second)
		d := b.start(0)
		for i := range 12 {
			refused := b.submit(d, send("p:a:b", "a", fmt.Sprint(i), "x"))
			equal(t, fmt.Sprint("refused ", i), len(refused) == 1, i >= 10)
		}
		time.Sleep(10 * time.Second)
		b.logics["L1"].take().ok(t)
		equal(t, "in flight", d.appends.Load(), 0)
		equal(t, "taken again", len(b.submit(d, send("p:a:b", "a", "m", "x"))), 0)
		equal(t, "by bytes", len(b.submit(d, send("p:a:b", "a", "big", strings.Repeat("x", 256<<10)))), 0)
		equal(t, "too large", code.Code(b.submit(d, send("p:a:b", "a", "big", strings.Repeat("x", 256<<10+1)))[0].Code), code.TooLarge)
	})
}

// Cursors and finished rows ride on other commits, or go alone when their time is up.
func TestLazyItemsAreGathered(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		mark := func(n uint64) *tier.Submit {
			return &tier.Submit{Cursor: &tier.CursorMark{Uid: "u", Device: "phone", Epoch: 1, Cursor: n}}
		}
		b.write(d, fanOutOneCommit(b, d)...)
		before.forget()
		for i := range 10 {
			b.submit(d, mark(uint64(i)))
			time.Sleep(100 * time.Millisecond)
		}
		equal(t, "commits so far", len(before.seen()), 0)
		time.Sleep(2 * time.Second)
		equal(t, "commits after the delay", len(before.seen()), 1)
		equal(t, "cursor, not beyond the head", b.progress(d, "u").Cursor, 2)
		b.submit(d, mark(1))
		b.write(d, send("p:a:u", "a", "m9", "x")).ok(t)
		equal(t, "rides along", len(before.seen()), 2)
		equal(t, "nobody is told", len(b.logics["L1"].take().items), 0)
		equal(t, "never back", b.progress(d, "u").Devices[0].Cursor, 9)
		b.submit(d, &tier.Submit{Cursor: &tier.CursorMark{Uid: "u", Device: "phone", Epoch: 5, Cursor: 100}})
		time.Sleep(3 * time.Second)
		equal(t, "of another epoch", b.progress(d, "u").Devices[0].Cursor, 9)
	})
}

// fanOutOneCommit gives user u two versions.
func fanOutOneCommit(b *bed, d *Das) []*tier.Submit {
	b.write(d, send("p:a:u", "a", "m1", "x")).ok(b)
	return []*tier.Submit{send("p:a:u", "a", "m2", "x")}
}

// A stopping das settles what it had accepted, and takes nothing more. Seen red: with
// run returning at the first sight of draining, the accepted appends are never settled.
func TestStopDrainsWhatWasAccepted(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Commit.Items = 1
		before.delay(10 * time.Millisecond)
		d, stop := b.startStoppable(0)
		for i := range 20 {
			b.submit(d, send("p:a:b", "a", fmt.Sprint(i), "x"))
		}
		b.submit(d, &tier.Submit{Cursor: &tier.CursorMark{Uid: "b", Device: "d", Epoch: 1, Cursor: 1}})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		equal(t, "settled", len(b.logics["L1"].take().ok(t).items), 20)
		equal(t, "the lazy one too", b.progress(d, "b").Cursor, 1)
		_, err := d.Write(t.Context(), &tier.SubmitBatch{Boot: "x", Items: []*tier.Submit{send("p:a:b", "a", "late", "x")}})
		equal(t, "closed", code.Of(err), code.Unavailable)
	})
	s = memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Commit.Items = 1
		before.delay(time.Second)
		d, stop := b.startStoppable(0)
		for i := range 20 {
			b.submit(d, send("p:a:b", "a", fmt.Sprint(i), "x"))
		}
		began := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		equal(t, "not for ever", time.Since(began) <= b.cfg.DrainTime+time.Second, true)
	})
}

func TestWriteWaitsNoLongerThanItsCaller(t *testing.T) {
	var before trap
	s := memory.New(memory.Options{Exclusive: true, BeforeCommit: before.hit})
	inBed(t, s, func(t *testing.T, b *bed) {
		before.delay(time.Minute)
		d := b.start(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Write(ctx, &tier.SubmitBatch{Boot: "x", Items: []*tier.Submit{{Tenant: tenant, Append: send("p:a:b", "a", "m", "x").Append}}})
		equal(t, "code", code.Of(err), code.Expired)
		time.Sleep(2 * time.Minute)
		rsp, err := d.Write(t.Context(), &tier.SubmitBatch{Boot: "x"})
		equal(t, "nothing to write", err == nil && len(rsp.Items) == 0, true)
		before.delay(0)
		equal(t, "refused ones are answered too", b.write(d, send("p:a:b", "a", "", "x"), send("p:a:b", "a", "m", "x")).codes(), "bad_request ok")
	})
}

func TestBadWrites(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		item *tier.Submit
		want code.Code
	}{
		"two writes":            {&tier.Submit{Append: send("p:a:b", "a", "m", "x").Append, Woken: &tier.Woken{Uid: "u"}}, code.BadRequest},
		"no such conversation":  {send("x:a:b", "a", "m", "x"), code.BadRequest},
		"empty conversation":    {send("", "a", "m", "x"), code.BadRequest},
		"wrong order":           {send("p:b:a", "a", "m", "x"), code.BadRequest},
		"stranger":              {send("p:a:b", "c", "m", "x"), code.Denied},
		"user in a channel":     {send("s:news:b", "b", "m", "x"), code.Denied},
		"long client_msg_id":    {send("p:a:b", "a", long, "x"), code.BadRequest},
		"zero byte":             {send("p:a:b", "a", "m\x00", "x"), code.BadRequest},
		"after itself":          {&tier.Submit{Append: &tier.Append{Conv: "p:a:b", Sender: "a", ClientMsgId: "m", After: "m"}}, code.BadRequest},
		"unknown kind":          {modify(68, "p:a:b", "a", "m", 0, ""), code.BadRequest},
		"negative kind":         {modify(-1, "p:a:b", "a", "m", 0, ""), code.BadRequest},
		"recall of nothing":     {recall("a", "m", 0), code.BadRequest},
		"fan-out to a stranger": {fanOut("c", "p:a:b", 1), code.NotFound},
		"fan-out to nothing":    {fanOut("c", "", 1), code.BadRequest},
		"read of seq 0":         {read("a", "p:a:b", 0), code.BadRequest},
		"no fields":             {settings("a", &im.Settings{Conv: "p:a:b"}), code.BadRequest},
		"unknown field":         {settings("a", &im.Settings{Conv: "p:a:z", Fields: []string{"color"}}), code.BadRequest},
		"no settings":           {settings("a", nil), code.BadRequest},
		"not his":               {settings("c", &im.Settings{Conv: "p:a:z", Fields: []string{"muted"}}), code.NotFound},
		"no row yet":            {settings("a", &im.Settings{Conv: "p:a:y", Fields: []string{"muted"}}), code.NotFound},
		"long remark":           {settings("a", &im.Settings{Conv: "p:a:z", Remark: long, Fields: []string{"remark"}}), code.TooLarge},
		"login without device":  {&tier.Submit{Login: &tier.Login{Uid: "a", Class: "web"}}, code.BadRequest},
		"range backwards":       {&tier.Submit{Done: &tier.OutboxDone{Owner: "o", From: 2, To: 1}}, code.BadRequest},
		"range beyond":          {&tier.Submit{Done: &tier.OutboxDone{Owner: "o", From: 2, To: 1 << 60}}, code.BadRequest},
		"unknown shard":         {&tier.Submit{Done: &tier.OutboxDone{Owner: "o", From: 1, To: 2, Shard: 1 << 20}}, code.BadRequest},
		"unknown outbox":        {&tier.Submit{Done: &tier.OutboxDone{Kind: 7, Owner: "o", From: 1, To: 2}}, code.BadRequest},
		"record of nobody":      {&tier.Submit{Record: &tier.PushRecord{Device: "d"}}, code.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			inBed(t, exclusive(), func(t *testing.T, b *bed) {
				d := b.start(0)
				b.write(d, send("p:a:z", "a", "m", "x")).ok(t)
				equal(t, "code", b.write(d, c.item).codes(), c.want.Name())
			})
		})
	}
}
