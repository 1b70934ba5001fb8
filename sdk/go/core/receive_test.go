package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

func (d *device) wantShown(want ...string) {
	d.t.Helper()
	if got := d.shown(); !slices.Equal(got, want) {
		d.t.Fatalf("shown %v, want %v", got, want)
	}
}

func (d *device) wantCursor(v uint64) {
	d.t.Helper()
	saved, _ := d.store.Load()
	if saved.Cursor.Version != v {
		d.t.Fatalf("the stored cursor is %d, want %d", saved.Cursor.Version, v)
	}
}

func TestLoginSavesTheCounterBeforeAuth(t *testing.T) {
	d := newDevice(t)
	for n := uint64(1); n <= 3; n++ {
		auth := d.login(&im.SyncRsp{Epoch: 1})
		if auth.ConnectionCounter != n || auth.Device != "phone" {
			t.Fatalf("AUTH %d: %+v", n, auth)
		}
		d.restart()
		if saved, _ := d.store.Load(); saved.Counter != n || saved.UID != "me" {
			t.Fatalf("stored after login %d: %+v", n, saved)
		}
	}
}

func TestReceivingRules(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.push(row(1, 1, msg(1, "a")), row(2, 2, msg(2, "b")))
	d.wantShown("a", "b")
	d.wantCursor(2)

	d.push(row(2, 2, msg(2, "b"))) // DD-17: a duplicate
	d.push(row(4, 4, msg(4, "d"))) // ahead of 3
	d.wantShown("a", "b")
	d.silent()
	d.push(row(3, 3, msg(3, "c"))) // came by itself
	d.wantShown("a", "b", "c", "d")
	d.pass(100 * time.Millisecond)
	d.silent()

	d.push(row(7, 7, msg(7, "g"))) // 5 and 6 do not come
	d.pass(60 * time.Millisecond)
	f := d.sent(im.Cmd_SYNC)
	var s im.Sync
	d.body(f, &s)
	if s.Cursor != 4 || s.Epoch != 1 {
		t.Fatalf("SYNC from %d/%d", s.Epoch, s.Cursor)
	}
	d.push(row(8, 8, msg(8, "h"))) // while SYNC is under way
	d.reply(f, &im.SyncRsp{Epoch: 1, NextCursor: 7, Head: 7, Changes: []*im.Conversation{row(7, 7, msg(5, "e"), msg(6, "f"), msg(7, "g"))}})
	d.wantShown("a", "b", "c", "d", "e", "f", "g", "h")
	d.wantCursor(8)
}

// TestR11AckMovesTheCursorOnlyWithItsGaps: b1 (ours) and b0 (theirs) were committed in one
// batch under one version 1; our ack moves the cursor to 1, so the push of b0 is "older".
// Seen to fail: with "older: dropped" instead of fill in take, b0 is fetched but the first
// half fails; with row.LastSeq left out in onSendAck the second half fails (nothing is
// fetched after the restart); with the cursor saved in a Change of its own, the check of
// the saves fails.
func TestR11AckMovesTheCursorOnlyWithItsGaps(t *testing.T) {
	t.Run("the older push fills the gap", func(t *testing.T) {
		d := r11(t)
		d.push(row(1, 2, msg(1, "b0")))
		d.wantShown("b1", "b0")
		d.pass(time.Second)
		d.sent(im.Cmd_PUSH_ACK)
		d.silent()
	})
	t.Run("a crash before the push: the gap is known and fetched", func(t *testing.T) {
		d := r11(t)
		d.restart()
		auth := d.login(&im.SyncRsp{Epoch: 1, NextCursor: 1, Head: 1})
		if auth.Cursor != 1 {
			t.Fatalf("AUTH from %d", auth.Cursor)
		}
		d.pass(300 * time.Millisecond)
		f := d.sent(im.Cmd_HISTORY)
		var h im.History
		d.body(f, &h)
		if h.Conv != ab || h.FromSeq != 1 || h.ToSeq != 1 {
			t.Fatalf("fetches %+v", h)
		}
		d.reply(f, &im.HistoryRsp{Messages: []*im.Message{msg(1, "b0")}, ReadAtSeq: 2})
		d.wantShown("b1", "b0")
	})
	t.Run("theirs came after ours in the same batch", func(t *testing.T) {
		d := newDevice(t)
		d.level(1, 0)
		d.send("b1", ab)
		f, _ := d.sendFrame()
		d.reply(f, &im.SendAck{Conv: ab, Seq: 1, Epoch: 1, Version: 1, LastSeq: 2, ClientMsgId: "b1"})
		d.pass(300 * time.Millisecond)
		d.sent(im.Cmd_HISTORY)
	})
	t.Run("cursor and ranges in one write", func(t *testing.T) {
		d := r11(t)
		for _, s := range d.saves {
			if s.Cursor != nil && s.Cursor.Version == 1 {
				if len(s.Convs) != 1 || s.Convs[0].Last != 2 || s.Convs[0].Held.Has(1) || !s.Convs[0].Held.Has(2) {
					t.Fatalf("the write that moves the cursor holds %+v", s.Convs)
				}
				return
			}
		}
		t.Fatal("the cursor was not saved")
	})
}

// TestGapAnsweredInParts: the server's answers have a size, so a range may come cut short, at
// its upper or its lower end. What it did not bring stays a gap. Seen to fail: with everything
// from the oldest returned entry up counted as held, 5 to 10 were never asked for.
func TestGapAnsweredInParts(t *testing.T) {
	for name, part := range map[string][2][2]uint64{
		"the oldest first": {{1, 4}, {5, 10}},
		"the newest first": {{7, 10}, {1, 6}},
	} {
		first, rest := part[0], part[1]
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.level(1, 0)
			d.push(row(1, 11, msg(11, "k")))
			d.pass(300 * time.Millisecond)
			var list []*im.Message
			for s := first[0]; s <= first[1]; s++ {
				list = append(list, msg(s, fmt.Sprint("m", s)))
			}
			d.reply(d.sent(im.Cmd_HISTORY), &im.HistoryRsp{Messages: list, ReadAtSeq: 11, More: true})
			f := d.sent(im.Cmd_HISTORY)
			var h im.History
			d.body(f, &h)
			if h.FromSeq != rest[0] || h.ToSeq != rest[1] {
				t.Fatalf("asks for %d..%d", h.FromSeq, h.ToSeq)
			}
		})
	}
}

func r11(t *testing.T) *device {
	d := newDevice(t)
	d.level(1, 0)
	d.send("b1", ab)
	f, _ := d.sendFrame()
	d.reply(f, &im.SendAck{Conv: ab, Seq: 2, Epoch: 1, Version: 1, LastSeq: 2, ClientMsgId: "b1"})
	d.wantCursor(1)
	return d
}

// TestR12EachChangeHasItsOwnVersion: a frame carries consecutive versions. If a server put
// several changes under one, their messages are not lost: the second is an older change.
// Seen to fail: applying only the first change of a frame whose versions do not ascend, or
// dropping older ones.
func TestR12EachChangeHasItsOwnVersion(t *testing.T) {
	other := "p:me:zoe"
	d := newDevice(t)
	d.level(1, 0)
	second := &im.Conversation{Conv: other, Version: 2, LastSeq: 1, Messages: []*im.Message{{Seq: 1, Sender: "zoe", ClientMsgId: "z"}}}
	d.push(row(1, 1, msg(1, "a")), second)
	d.wantShown("a", "z")
	d.wantCursor(2)

	third := &im.Conversation{Conv: other, Version: 3, LastSeq: 2, Messages: []*im.Message{{Seq: 2, Sender: "zoe", ClientMsgId: "z2"}}}
	d.push(row(3, 2, msg(2, "b")), third)
	d.wantShown("a", "z", "b", "z2")
	d.wantCursor(3)
}

func TestPushAckIsGatheredAndOnlyOfWhatIsStored(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	cursor := func(f wire.Frame) uint64 {
		var a im.PushAck
		d.body(f, &a)
		return a.Cursor
	}
	v := uint64(0)
	next := func(n int) {
		for range n {
			v++
			d.push(row(v, v, msg(v, "m")))
		}
	}
	next(3)
	d.silent()
	d.pass(200 * time.Millisecond)
	if got := cursor(d.sent(im.Cmd_PUSH_ACK)); got != 3 {
		t.Fatalf("acked %d", got)
	}
	d.pass(time.Second)
	d.silent()
	next(50)
	if got := cursor(d.sent(im.Cmd_PUSH_ACK)); got != 53 {
		t.Fatalf("acked %d after 50 changes", got)
	}
	d.lag = true // the application does not get on
	next(60)
	d.pass(time.Second)
	d.silent()
	d.lag = false
	for _, out := range d.kept {
		d.save(out.After)
		d.core.Stored(d.now, out.N)
	}
	d.run()
	if got := cursor(d.sent(im.Cmd_PUSH_ACK)); got < 54 {
		t.Fatalf("acked %d", got)
	}
}

func TestFirstSyncBeginsWithTheNewestMessages(t *testing.T) {
	d := newDevice(t, func(c *Config) { c.FullHistory = false })
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 40, Head: 90, More: true, Changes: []*im.Conversation{row(40, 30, msg(29, "y"), msg(30, "z"))}})
	f := d.sent(im.Cmd_SYNC)
	old := &im.Conversation{Conv: "p:me:old", Version: 90, LastSeq: 5}
	d.reply(f, &im.SyncRsp{Epoch: 1, NextCursor: 90, Head: 90, Changes: []*im.Conversation{old}})
	d.pass(time.Second)
	d.sent(im.Cmd_PUSH_ACK)
	d.silent() // nothing older is fetched
	// A conversation that begins now is held from its first entry.
	d.push(&im.Conversation{Conv: "p:me:new", Version: 91, LastSeq: 2, Messages: []*im.Message{{Seq: 2, Sender: "new", ClientMsgId: "n2"}}})
	d.pass(time.Second)
	d.sent(im.Cmd_HISTORY)
	d.wantShown("y", "z", "n2")
}

func TestALongGapIsFetchedInPieces(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.push(row(1, 1, msg(1, "first")))
	d.push(row(2, 500, msg(500, "last")))
	var got int
	for range 5 {
		d.pass(250 * time.Millisecond)
		for _, f := range d.frames {
			if f.Cmd != im.Cmd_HISTORY {
				continue
			}
			var h im.History
			d.body(f, &h)
			var rsp im.HistoryRsp
			for s := h.FromSeq; s <= h.ToSeq; s++ {
				if s != 77 { // does not exist for this user
					rsp.Messages = append(rsp.Messages, msg(s, "m"))
				}
			}
			if n := h.ToSeq - h.FromSeq + 1; n > 200 {
				t.Fatalf("asks for %d at once", n)
			}
			got += len(rsp.Messages)
			rsp.ReadAtSeq = 500
			d.frames = nil
			d.reply(f, &rsp)
		}
	}
	if got != 497 || len(d.shown()) != 499 {
		t.Fatalf("%d fetched, %d shown", got, len(d.shown()))
	}
	if !d.core.Level() {
		t.Fatal("still wants something")
	}
}

func TestReset(t *testing.T) {
	d := newDevice(t)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 9, Head: 9, Changes: []*im.Conversation{
		{Conv: "p:me:gone", Version: 8, LastSeq: 1, Messages: []*im.Message{{Seq: 1, Sender: "gone", ClientMsgId: "g"}}},
		row(9, 4, msg(1, "a"), msg(2, "b"), msg(3, "lost"), msg(4, "lost too")),
	}})
	// A failover to an older copy: 3 is another's now, 4 and one conversation are gone.
	d.restart()
	d.login(&im.SyncRsp{MustReset: true, Epoch: 2, Head: 7})
	f := d.sent(im.Cmd_SYNC)
	var s im.Sync
	if d.body(f, &s); s.Epoch != 2 || s.Cursor != 0 {
		t.Fatalf("SYNC from %d/%d", s.Epoch, s.Cursor)
	}
	d.reply(f, &im.SyncRsp{Epoch: 2, NextCursor: 7, Head: 7, Changes: []*im.Conversation{row(7, 3, msg(3, "new"))}})
	if got := find[Removed](d); len(got) != 2 || got[0] != (Removed{ab, 3}) || got[1] != (Removed{"p:me:gone", 0}) {
		t.Fatalf("removed %+v", got)
	}
	if got := find[Replaced](d); len(got) != 1 || got[0].Message.ClientMsgId != "new" {
		t.Fatalf("replaced %+v", got)
	}
	if len(find[Reset](d)) != 1 {
		t.Fatal("no Reset event")
	}
	d.pass(300 * time.Millisecond)
	var h im.History
	for _, f := range d.frames {
		if f.Cmd == im.Cmd_HISTORY {
			d.body(f, &h)
		}
	}
	if h.FromSeq != 1 || h.ToSeq != 3 {
		t.Fatalf("compares %+v", h)
	}
}

// TestComparisonAfterResetAnsweredInParts: an answer that was cut short compares only what it
// brought. Seen to fail: the comparison counted as done, and 3 kept a body that the server
// does not have.
func TestComparisonAfterResetAnsweredInParts(t *testing.T) {
	edited := func(seq uint64, id string, mod uint64) *im.Message {
		m := msg(seq, id)
		m.ModSeq = mod
		return m
	}
	d := newDevice(t)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 9, Head: 9, Changes: []*im.Conversation{
		row(9, 4, msg(1, "a"), msg(2, "b"), edited(3, "c", 4)),
	}})
	d.restart()
	d.login(&im.SyncRsp{MustReset: true, Epoch: 2, Head: 7}) // an older copy: the edit is lost
	d.reply(d.sent(im.Cmd_SYNC), &im.SyncRsp{Epoch: 2, NextCursor: 7, Head: 7, Changes: []*im.Conversation{row(7, 3)}})
	d.pass(300 * time.Millisecond)
	d.reply(d.sent(im.Cmd_HISTORY), &im.HistoryRsp{Messages: []*im.Message{msg(1, "a"), msg(2, "b")}, ReadAtSeq: 3, More: true})
	f := d.sent(im.Cmd_HISTORY)
	var h im.History
	if d.body(f, &h); h.FromSeq != 3 || h.ToSeq != 3 {
		t.Fatalf("goes on with %d..%d", h.FromSeq, h.ToSeq)
	}
	d.reply(f, &im.HistoryRsp{Messages: []*im.Message{msg(3, "c")}, ReadAtSeq: 3})
	if got := find[Replaced](d); len(got) != 1 || got[0].Message.Seq != 3 {
		t.Fatalf("replaced %+v", got)
	}
	if !d.core.Level() {
		t.Fatal("still wants something")
	}
}

// TestRowThatMovesWhileTheListIsTakenAnew: after RESET the list comes in pages. Between two of them
// a row moves to its end, and the push of it is the change that follows the cursor, so that no page
// names it. Seen to fail: the conversation was taken for one that the server does not have.
func TestRowThatMovesWhileTheListIsTakenAnew(t *testing.T) {
	d := newDevice(t)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 2, Head: 2, Changes: []*im.Conversation{
		{Conv: "p:me:first", Version: 1, LastSeq: 1, Messages: []*im.Message{{Seq: 1, Sender: "first", ClientMsgId: "f"}}},
		row(2, 1, msg(1, "a")),
	}})
	d.restart()
	d.login(&im.SyncRsp{MustReset: true, Epoch: 2, Head: 2})
	d.reply(d.sent(im.Cmd_SYNC), &im.SyncRsp{Epoch: 2, NextCursor: 1, Head: 2, More: true, Changes: []*im.Conversation{
		{Conv: "p:me:first", Version: 1, LastSeq: 1},
	}})
	f := d.sent(im.Cmd_SYNC)
	// The row was at version 2, has version 3 now, and what had version 2 is not there any more.
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 2, Changes: []*im.Conversation{{Conv: "p:me:new", Version: 2, LastSeq: 1}}})
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 2, Changes: []*im.Conversation{row(3, 3, msg(3, "c"))}})
	d.reply(f, &im.SyncRsp{Epoch: 2, NextCursor: 2, Head: 2, Changes: []*im.Conversation{{Conv: "p:me:new", Version: 2, LastSeq: 1}}})
	if got := find[Removed](d); len(got) != 0 {
		t.Fatalf("removed %+v", got)
	}
	if l := d.core.logs[ab]; l == nil || l.Last != 3 || l.Verify != uncompared {
		t.Fatalf("holds %+v", l)
	}
}

// TestR25ComparisonReadBeforeAModification: after RESET the newest entries are compared; while
// the answer is on its way an edit is pushed. The answer does not know it, and does not deny it.
// Seen to fail: the edited entry was reported as replaced by its former body.
func TestR25ComparisonReadBeforeAModification(t *testing.T) {
	d := newDevice(t)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 9, Head: 9, Changes: []*im.Conversation{row(9, 2, msg(1, "a"), msg(2, "b"))}})
	d.restart()
	d.login(&im.SyncRsp{MustReset: true, Epoch: 2, Head: 9})
	d.reply(d.sent(im.Cmd_SYNC), &im.SyncRsp{Epoch: 2, NextCursor: 9, Head: 9, Changes: []*im.Conversation{row(9, 2)}})
	d.pass(300 * time.Millisecond)
	slow := d.sent(im.Cmd_HISTORY)
	d.frames = nil
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 2, Changes: []*im.Conversation{row(10, 3, event(3, 1, im.Kind_EVENT_EDIT, "better"))}})
	d.reply(slow, &im.HistoryRsp{Messages: []*im.Message{msg(1, "a"), msg(2, "b")}, ReadAtSeq: 2})
	if got := find[Replaced](d); len(got) != 0 {
		t.Fatalf("replaced %+v", got)
	}
	d.pass(5 * time.Second) // it compares again
	now := msg(1, "a")
	now.ModSeq, now.Text = 3, "better"
	d.reply(d.sent(im.Cmd_HISTORY), &im.HistoryRsp{
		Messages: []*im.Message{now, msg(2, "b"), event(3, 1, im.Kind_EVENT_EDIT, "better")}, ReadAtSeq: 3,
	})
	if got := find[Replaced](d); len(got) != 0 || !d.core.Level() {
		t.Fatalf("replaced %+v, level %v", got, d.core.Level())
	}
}

// TestModificationUnderALostNumber: a failover lost edit 3 of entry 1, and another one was given
// its number. Seen to fail: the device took it for the one it knew, and kept the lost text.
func TestModificationUnderALostNumber(t *testing.T) {
	d := newDevice(t)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 9, Head: 9, Changes: []*im.Conversation{
		row(9, 3, msg(1, "a"), msg(2, "b"), event(3, 1, im.Kind_EVENT_EDIT, "lost")),
	}})
	d.restart()
	d.login(&im.SyncRsp{MustReset: true, Epoch: 2, Head: 7})
	d.reply(d.sent(im.Cmd_SYNC), &im.SyncRsp{Epoch: 2, NextCursor: 7, Head: 7, Changes: []*im.Conversation{row(7, 2)}})
	d.restart()
	d.login(&im.SyncRsp{Epoch: 2, NextCursor: 7, Head: 7})
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 2, Changes: []*im.Conversation{row(8, 3, event(3, 1, im.Kind_EVENT_EDIT, "other"))}})
	if got := find[Modified](d); len(got) == 0 || got[len(got)-1].Text != "other" {
		t.Fatalf("modified %+v", got)
	}
}

func TestAnotherEntryAtTheSamePlaceIsReplacedThenSynced(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.push(row(1, 1, msg(1, "a")))
	d.push(row(1, 1, msg(1, "b")))
	if got := find[Replaced](d); len(got) != 1 || got[0].Message.ClientMsgId != "b" {
		t.Fatalf("replaced %+v", got)
	}
	d.sent(im.Cmd_SYNC)
}

// TestLostAckIsWrittenAgain: a PUSH_ACK may be refused (rate limit) or lost with what carried
// it. The gateway repeats itself: that is the sign. Seen to fail with the repetition passed over
// as old: the gateway held every push back behind its NOTICE, and after three repetitions closed
// the connection of a device that had everything (found by tests/sim).
func TestLostAckIsWrittenAgain(t *testing.T) {
	for name, repeat := range map[string]func(*device){
		"NOTICE": func(d *device) { d.receive(im.Cmd_NOTICE, &im.Notice{Epoch: 1, Head: 2}) },
		"PUSH":   func(d *device) { d.push(row(1, 1, msg(1, "a")), row(2, 2, msg(2, "b"))) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.level(1, 0)
			d.push(row(1, 1, msg(1, "a")), row(2, 2, msg(2, "b")), row(3, 3, msg(3, "c")))
			repeat(d) // before the acknowledgement was due: one will do
			d.pass(time.Second)
			d.sent(im.Cmd_PUSH_ACK)
			d.silent()
			repeat(d)
			d.pass(time.Second)
			var ack im.PushAck
			d.body(d.sent(im.Cmd_PUSH_ACK), &ack)
			if ack.Epoch != 1 || ack.Cursor != 3 {
				t.Fatalf("acknowledged %+v", &ack)
			}
			d.silent()
		})
	}
}

func TestNoticeAsksForSyncUnlessLevel(t *testing.T) {
	d := newDevice(t)
	d.level(1, 5)
	d.receive(im.Cmd_NOTICE, &im.Notice{Epoch: 1, Head: 5})
	d.silent()
	d.receive(im.Cmd_NOTICE, &im.Notice{Epoch: 1, Head: 6})
	d.sent(im.Cmd_SYNC)
	d.receive(im.Cmd_NOTICE, &im.Notice{What: im.Notice_QUERY, Unread: 3})
	if got := find[Noticed](d); len(got) != 1 || got[0].Unread != 3 {
		t.Fatalf("noticed %+v", got)
	}
}

// TestMF11DeadLinkIsNoticedWhileWriting: the other end may be gone without a word while the
// user types. Seen to fail with the PING counted from the last write only: every retry of the
// message put it off, and the device stayed on the dead link for ever (found by tests/sim).
func TestMF11DeadLinkIsNoticedWhileWriting(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m1", ab)
	f, _ := d.sendFrame()
	d.pass(5 * time.Second)
	d.sendFrame()
	d.reply(d.sent(im.Cmd_PING), &im.Pong{}) // alive: it is the message that is slow
	d.pass(4 * time.Second)
	if d.closed != nil {
		t.Fatalf("closed although the gateway answers: %+v", d.closed)
	}
	d.reply(f, ackOf(1, "m1"))
	d.frames = nil
	for range 4 { // the link dies
		d.send(fmt.Sprint("m", d.now.Unix()), ab)
		d.pass(4 * time.Second)
	}
	if d.closed == nil || Final(d.closed.Code) {
		t.Fatalf("closed %+v", d.closed)
	}
}

// TestMF11HeartbeatOnlyAfterSilence: a client pings only if it wrote nothing for T.
func TestMF11HeartbeatOnlyAfterSilence(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	for range 10 {
		d.pass(20 * time.Second)
		d.core.SendTyping(d.now, ab, false)
		d.sent(im.Cmd_TYPING)
	}
	d.silent()
	d.pass(25 * time.Second)
	f := d.sent(im.Cmd_PING)
	d.now = d.now.Add(100 * time.Millisecond)
	d.reply(f, &im.Pong{ServerMs: d.now.UnixMilli() + 10_000})
	if off := d.core.ServerTime(d.now).Sub(d.now); off != 10_050*time.Millisecond {
		t.Fatalf("clock offset %s", off)
	}
	d.pass(25 * time.Second)
	d.sent(im.Cmd_PING)
	d.pass(10 * time.Second)
	if d.closed == nil {
		t.Fatal("an unanswered PING does not end the connection")
	}
}

// TestAnswerNobodyWaitsForStillTellsItsVersion: no push brings to a connection what an answer
// tells it, so the answer counts however late: the request was written again meanwhile, given
// up, or answered before by another Logic. Seen to fail with such answers passed over: the
// device was behind until the next renewal, 20 s (found by tests/sim).
func TestAnswerNobodyWaitsForStillTellsItsVersion(t *testing.T) {
	begin := func(t *testing.T) *device {
		d := newDevice(t)
		d.level(1, 0)
		d.push(row(1, 1, msg(1, "a")))
		return d
	}
	readAck := func(version uint64) *im.ReadAck {
		return &im.ReadAck{Conv: ab, ReadSeq: 1, Epoch: 1, Version: version, LastSeq: 1}
	}
	t.Run("READ, written again", func(t *testing.T) {
		d := begin(t)
		d.core.MarkRead(d.now, ab, 1)
		first := d.sent(im.Cmd_READ)
		d.pass(d.cfg.withDefaults().RequestTimeout)
		again := d.sent(im.Cmd_READ)
		d.reply(first, readAck(2))
		d.wantCursor(2)
		d.reply(again, &im.ReadAck{Conv: ab, ReadSeq: 1})
		d.wantCursor(2)
	})
	t.Run("READ, answered twice", func(t *testing.T) {
		d := begin(t)
		d.core.MarkRead(d.now, ab, 1)
		f := d.sent(im.Cmd_READ)
		d.reply(f, &im.ReadAck{Conv: ab, ReadSeq: 1})
		d.reply(f, readAck(2))
		d.wantCursor(2)
	})
	t.Run("SEND, refused before", func(t *testing.T) {
		d := begin(t)
		d.send("b", ab)
		f, _ := d.sendFrame()
		d.refuse(f, code.Overloaded, time.Minute)
		d.reply(f, &im.SendAck{Conv: ab, Seq: 2, Epoch: 1, Version: 2, LastSeq: 2, ClientMsgId: "b"})
		d.wantShown("a", "b")
		d.wantCursor(2)
	})
	settings := func(d *device) (uint64, wire.Frame) {
		id, err := d.core.Call(d.now, im.Cmd_SETTINGS, &im.Settings{Conv: ab, Pinned: true}, &im.SettingsAck{}, d.now.Add(time.Second))
		if err != nil {
			d.t.Fatal(err)
		}
		return id, d.sent(im.Cmd_SETTINGS)
	}
	pinned := &im.SettingsAck{Epoch: 1, Version: 2, Conversation: &im.Conversation{Conv: ab, Version: 2, LastSeq: 1, Pinned: true}}
	t.Run("SETTINGS, cancelled", func(t *testing.T) {
		d := begin(t)
		id, f := settings(d)
		d.core.Cancel(id)
		d.reply(f, pinned)
		d.wantCursor(2)
	})
	t.Run("SETTINGS, expired and answered twice", func(t *testing.T) {
		d := begin(t)
		_, f := settings(d)
		d.pass(2 * time.Second)
		d.reply(f, &im.SettingsAck{})
		d.reply(f, pinned)
		d.wantCursor(2)
		if rows := find[Row](d); !rows[len(rows)-1].Conversation.Pinned {
			t.Fatalf("told %+v", rows)
		}
	})
	t.Run("a refusal, or an answer to nothing", func(t *testing.T) {
		d := begin(t)
		d.core.MarkRead(d.now, ab, 1)
		f := d.sent(im.Cmd_READ)
		d.reply(f, &im.ReadAck{Conv: ab, ReadSeq: 1})
		d.refuse(f, code.Overloaded, 0)
		f.Seq += 100
		d.reply(f, readAck(2))
		d.wantCursor(1)
	})
}
