package das

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// fill sends one message in each of n conversations of a, oldest first.
func (b *bed) fill(d *Das, n int) {
	b.Helper()
	for i := range n {
		b.write(d, send(fmt.Sprintf("p:a:b%02d", i), "a", "m1", fmt.Sprint("to ", i))).ok(b)
	}
}

func (b *bed) syncFrom(d *Das, s *im.Sync) *im.SyncRsp {
	b.Helper()
	rsp, err := d.Sync(b.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "a", Sync: s})
	if err != nil {
		b.Fatal(err)
	}
	return rsp
}

func convs(list []*im.Conversation) string {
	var parts []string
	for _, c := range list {
		parts = append(parts, fmt.Sprintf("%s@%d", strings.TrimPrefix(c.Conv, "p:a:"), c.Version))
	}
	return strings.Join(parts, " ")
}

func TestSyncPages(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.fill(d, 5)
		b.write(d, send("p:a:b01", "b01", "m2", "answer")).ok(t)
		rsp := b.syncFrom(d, &im.Sync{Limit: 3})
		equal(t, "first page", convs(rsp.Changes), "b00@1 b02@3 b03@4")
		equal(t, "more", rsp.More, true)
		equal(t, "head", rsp.Head, 6)
		rsp = b.syncFrom(d, &im.Sync{Epoch: 1, Cursor: rsp.NextCursor, Limit: 3, Messages: 1})
		equal(t, "second page", convs(rsp.Changes), "b04@5 b01@6")
		equal(t, "newest message only", texts(rsp.Changes[1].Messages), "2=answer")
		equal(t, "no more", rsp.More, false)
		equal(t, "next cursor", rsp.NextCursor, 6)
		rsp = b.syncFrom(d, &im.Sync{Epoch: 1, Cursor: 6})
		equal(t, "level", len(rsp.Changes), 0)
		equal(t, "next cursor", rsp.NextCursor, 6)
		_, err := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "nobody"})
		equal(t, "a user without a log", err, nil)
	})
}

// Das's part of R18: a cursor of another epoch or beyond the head is told so. Seen red:
// without the comparison the client is told "level".
func TestR18CursorThatCannotBeIsReset(t *testing.T) {
	s := shared()
	inBed(t, s, func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, fanOut("a", "p:a:b", 1)).ok(t)
		for _, c := range []struct {
			name  string
			sync  *im.Sync
			reset bool
		}{
			{"from the start", &im.Sync{}, false},
			{"level", &im.Sync{Epoch: 1, Cursor: 1}, false},
			{"beyond the head", &im.Sync{Epoch: 1, Cursor: 2}, true},
			{"of another epoch", &im.Sync{Epoch: 2, Cursor: 1}, true},
			{"no epoch", &im.Sync{Cursor: 1}, true},
			{"epoch of nothing", &im.Sync{Epoch: 9, Cursor: 0}, false},
		} {
			rsp := b.syncFrom(d, c.sync)
			equal(t, c.name, rsp.MustReset, c.reset)
			equal(t, c.name+": epoch to go on with", rsp.Epoch, 1)
			equal(t, c.name+": nothing else with a reset", c.reset && (len(rsp.Changes) > 0 || rsp.NextCursor > 0), false)
		}
		if err := s.SetBucket(t.Context(), bucketOf(store.Key{Tenant: tenant, ID: "a"}), store.BucketState{Epoch: 2, Open: true}); err != nil {
			t.Fatal(err)
		}
		equal(t, "after a promotion", b.syncFrom(d, &im.Sync{Epoch: 1, Cursor: 1}).MustReset, true)
	})
}

func TestHistory(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		for i := range 10 {
			b.write(d, send("p:a:b", "a", fmt.Sprint(i), fmt.Sprint(i+1))).ok(t)
		}
		b.write(d, recall("a", "r", 2)).ok(t) // 11
		for _, c := range []struct {
			name string
			ask  im.History
			want string
			more bool
		}{
			{"the end", im.History{Limit: 3}, "9=9 10=10 11=", true},
			{"before", im.History{BeforeSeq: 4, Limit: 10}, "1=1 2= 3=3", false},
			{"a range", im.History{FromSeq: 3, ToSeq: 5}, "3=3 4=4 5=5", false},
			{"a range cut short", im.History{FromSeq: 3, ToSeq: 9, Limit: 2}, "3=3 4=4", true},
			{"from", im.History{FromSeq: 10}, "10=10 11=", false},
			{"beyond the end", im.History{FromSeq: 50, ToSeq: 60}, "", false},
			{"to", im.History{ToSeq: 2}, "1=1 2=", false},
		} {
			c.ask.Conv = "p:a:b"
			rsp, err := d.History(t.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: "b", History: &c.ask})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, c.name, texts(rsp.Messages), c.want)
			equal(t, c.name+": more", rsp.More, c.more)
			equal(t, c.name+": read at", rsp.ReadAtSeq, 11)
		}
		rsp, err := d.History(t.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: "b", History: &im.History{
			Conv: "p:a:b", FromSeq: 9, ToSeq: 9, Mods: true, ModsKnown: 10,
		}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "later modifications", len(rsp.Modified) == 1 && rsp.Modified[0].Seq == 2 && rsp.Modified[0].Recalled, true)
	})
}

func TestConversationsAndUnread(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.fill(d, 5)
		b.write(d, send("s:news:a", "news", "n1", "sale"), send("p:a:b03", "b03", "m2", "one"), send("p:a:b03", "b03", "m3", "two")).ok(t)
		b.write(d, settings("a", &im.Settings{Conv: "p:a:b01", Hidden: true, Fields: []string{"hidden"}})).ok(t)
		b.write(d, settings("a", &im.Settings{Conv: "p:a:b02", Remark: "Bob", Pinned: true, Fields: []string{"remark"}})).ok(t)
		ask := func(c *im.Conversations, contacts bool) *im.ConversationsRsp {
			t.Helper()
			rsp, err := d.Conversations(t.Context(), &tier.ConversationsRequest{Tenant: tenant, Uid: "a", Conversations: c, Contacts: contacts})
			if err != nil {
				t.Fatal(err)
			}
			return rsp
		}
		rsp := ask(&im.Conversations{Limit: 3}, false)
		equal(t, "first", convs(rsp.Conversations), "b02@9 b03@7 s:news:a@6")
		equal(t, "remark, and only what was named", fmt.Sprint(rsp.Conversations[0].Remark, " ", rsp.Conversations[0].Pinned), "Bob false")
		equal(t, "last message", texts(rsp.Conversations[1].Messages), "3=two")
		equal(t, "more", rsp.More, true)
		rsp = ask(&im.Conversations{Limit: 3, BeforeVersion: rsp.NextBeforeVersion}, false)
		equal(t, "then", convs(rsp.Conversations), "b04@5 b00@1")
		equal(t, "no more", fmt.Sprint(rsp.More, rsp.NextBeforeVersion), "false 0")
		equal(t, "hidden too", convs(ask(&im.Conversations{Hidden: true, Limit: 2}, false).Conversations), "b02@9 b01@8")
		equal(t, "contacts", convs(ask(&im.Conversations{}, true).Conversations), "b02@9 b03@7 b04@5 b00@1")

		u, err := d.Unread(t.Context(), &tier.UnreadRequest{Tenant: tenant, Uid: "a"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "total", u.Total, 3)
		equal(t, "of", len(u.Conversations), 2)
		_, err = d.Unread(t.Context(), &tier.UnreadRequest{Tenant: tenant, Uid: "a", Conv: "p:a:zz"})
		equal(t, "no such row", code.Of(err), code.NotFound)
	})
}

func TestScanPagesAndPushes(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.fill(d, 5)
		time.Sleep(10 * time.Second)
		b.fill(d, 6) // one new message, the others are duplicates without rows
		var owners []string
		after := ""
		for page := 0; ; page++ {
			rsp, err := d.Scan(t.Context(), &tier.ScanRequest{Kind: tier.Outbox_DELIVER, MinAgeMs: 5000, Limit: 2, After: after})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rsp.Rows {
				owners = append(owners, r.Owner)
				equal(t, "age", r.AgeMs, 10_000)
				equal(t, "due", len(r.Due), 2)
			}
			if after = rsp.Next; after == "" {
				break
			}
		}
		equal(t, "rows older than 5 s", len(owners), 5)
		_, err := d.Scan(t.Context(), &tier.ScanRequest{After: "nonsense"})
		equal(t, "after", code.Of(err), code.BadRequest)
		_, err = d.Scan(t.Context(), &tier.ScanRequest{Kind: 9})
		equal(t, "kind", code.Of(err), code.BadRequest)
		_, err = d.Scan(t.Context(), &tier.ScanRequest{MinAgeMs: -1})
		equal(t, "age", code.Of(err), code.BadRequest)

		for i := range 3 {
			b.write(d, &tier.Submit{Record: &tier.PushRecord{Uid: "a", Device: "phone", Conv: "p:a:b", Title: fmt.Sprint(i), AtMs: int64(i)}}).ok(t)
		}
		p, err := d.Pushes(t.Context(), &tier.PushesRequest{Tenant: tenant, Uid: "a", Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "newest first", p.Pushes[0].Title+p.Pushes[1].Title, "21")
	})
}

// The clock of the database was an hour ahead and is set right, or the copy that took over
// lags: rows that it dated are overdue at once, not in an hour. Seen to fail with the age alone.
func TestRowsOfTheFutureAreOverdue(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		now := time.Now().UnixMilli()
		row := func(n uint64, at int64) store.DeliverRow {
			return store.DeliverRow{RowKey: store.RowKey{Owner: "gone", N: n}, CreatedMS: at}
		}
		if err := b.store.Commit(t.Context(), &store.Batch{Deliver: []store.DeliverRow{
			row(1, now+time.Hour.Milliseconds()), row(2, now+store.ClockSlack), row(3, now),
		}}); err != nil {
			t.Fatal(err)
		}
		rsp, err := d.Scan(t.Context(), &tier.ScanRequest{Kind: tier.Outbox_DELIVER, MinAgeMs: 5000})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "overdue rows", len(rsp.Rows), 1)
		equal(t, "its number", rsp.Rows[0].N, 1)
	})
}

// Nobody reads another's, and nonsense has an answer.
func TestBadReads(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, send("p:a:b", "a", "m", "x")).ok(t)
		history := func(tenant, uid string, h *im.History) error {
			_, err := d.History(t.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: uid, History: h})
			return err
		}
		many := make([]*im.ModsKnown, 501)
		_, mods := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "a", Sync: &im.Sync{ModsKnown: many}})
		_, foreign := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "c", Sync: &im.Sync{ModsKnown: []*im.ModsKnown{{Conv: "p:a:b"}}}})
		_, uid := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: ""})
		_, users := d.Progress(t.Context(), &tier.ProgressRequest{Tenant: tenant, Uids: make([]string, 1001)})
		_, point := d.ReadPoint(t.Context(), &tier.ReadPointRequest{Tenant: tenant, Uid: "c", Conv: "p:a:b", Seq: 1})
		_, find := d.Find(t.Context(), &tier.FindRequest{Tenant: tenant})
		for _, c := range []struct {
			name string
			err  error
			want code.Code
		}{
			{"another's history", history(tenant, "c", &im.History{Conv: "p:a:b"}), code.NotFound},
			{"of another tenant", history("other", "a", &im.History{Conv: "p:a:b"}), code.NotFound},
			{"no log", history(tenant, "a", &im.History{Conv: "p:a:z"}), code.NotFound},
			{"no conversation", history(tenant, "a", &im.History{Conv: "nonsense"}), code.BadRequest},
			{"nothing asked", history(tenant, "a", nil), code.BadRequest},
			{"backwards", history(tenant, "a", &im.History{Conv: "p:a:b", FromSeq: 2, ToSeq: 1}), code.BadRequest},
			{"too many modifications", mods, code.TooLarge},
			{"another's modifications", foreign, code.NotFound},
			{"no uid", uid, code.BadRequest},
			{"too many users", users, code.TooLarge},
			{"another's read point", point, code.NotFound},
			{"find nothing", find, code.BadRequest},
		} {
			equal(t, c.name, code.Of(c.err), c.want)
		}
	})
}

// Reads of a business wait for a place, so many; more are refused. Seen red: without the
// bound on waiting the fourth waits too.
func TestReadsAreBounded(t *testing.T) {
	s := &slowViews{Store: exclusive()}
	inBed(t, s, func(t *testing.T, b *bed) {
		b.cfg.Reads.Session, b.cfg.Reads.Waiting = 1, 2
		d := b.start(0)
		codes := make(chan code.Code, 4)
		for range 4 {
			go func() {
				_, err := d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "a"})
				codes <- code.Of(err)
			}()
		}
		equal(t, "the fourth, at once", <-codes, code.Overloaded)
		_, err := d.Unread(t.Context(), &tier.UnreadRequest{Tenant: tenant, Uid: "a"})
		equal(t, "another lane", err, nil)
		for range 3 {
			equal(t, "the others", <-codes, code.OK)
		}
		go func() { _, _ = d.Sync(t.Context(), &tier.SyncRequest{Tenant: tenant, Uid: "a"}) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		time.Sleep(time.Microsecond)
		_, err = d.Sync(ctx, &tier.SyncRequest{Tenant: tenant, Uid: "a"})
		equal(t, "no longer than its caller", code.Of(err), code.Expired)
		time.Sleep(10 * time.Second)
	})
}

type slowViews struct{ store.Store }

func (s *slowViews) View(ctx context.Context) (store.View, error) {
	time.Sleep(time.Second)
	return s.Store.View(ctx)
}

// An answer has a size: what does not fit is asked for again. Seen red: without the budget
// each answer holds everything.
func TestAnswersAreBounded(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		b.cfg.MaxAnswer = 13_000
		d := b.start(0)
		body := strings.Repeat("x", 3000)
		for i := range 12 {
			b.write(d, send(fmt.Sprintf("p:a:b%02d", i%3), "a", fmt.Sprint(i), body)).ok(t)
		}
		seen, cursor := 0, uint64(0)
		for pages := 1; ; pages++ {
			rsp := b.syncFrom(d, &im.Sync{Epoch: 1, Cursor: cursor})
			seen += len(rsp.Changes)
			for _, c := range rsp.Changes {
				equal(t, "the newest are there", c.Messages[len(c.Messages)-1].Seq, 4)
			}
			if cursor = rsp.NextCursor; !rsp.More {
				equal(t, "pages", pages, 3)
				break
			}
		}
		equal(t, "conversations", seen, 3)
		rsp, err := d.History(t.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: "a", History: &im.History{Conv: "p:a:b00"}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "newest", fmt.Sprint(len(rsp.Messages), rsp.Messages[0].Seq, rsp.More), "4 1 false")
		b.write(d, send("p:a:b00", "a", "big", strings.Repeat("x", 20_000))).ok(t)
		rsp, err = d.History(t.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: "a", History: &im.History{Conv: "p:a:b00"}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "one at least", fmt.Sprint(len(rsp.Messages), rsp.Messages[0].Seq, rsp.More), "1 5 true")
		list, err := d.Conversations(t.Context(), &tier.ConversationsRequest{Tenant: tenant, Uid: "a"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "first page", fmt.Sprint(len(list.Conversations), list.More), "1 true")
		list, err = d.Conversations(t.Context(), &tier.ConversationsRequest{Tenant: tenant, Uid: "a",
			Conversations: &im.Conversations{BeforeVersion: list.NextBeforeVersion}})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "second page", fmt.Sprint(len(list.Conversations), list.More), "2 false")
	})
}
