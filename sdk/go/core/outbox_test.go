package core

import (
	"fmt"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

func ackOf(seq uint64, id string) *im.SendAck {
	return &im.SendAck{Conv: ab, Seq: seq, Epoch: 1, Version: seq, LastSeq: seq, ClientMsgId: id}
}

// TestR10AttemptIsRaisedAndSavedBeforeEachWrite: the server trusts attempt 1 to be the
// first. Seen to fail: without c.put in write, the stored attempt stays 0.
func TestR10AttemptIsRaisedAndSavedBeforeEachWrite(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m", ab)
	for want := uint32(1); want <= 2; want++ {
		_, s := d.sendFrame()
		saved, _ := d.store.Load()
		if s.Attempt != want || saved.Outbox["m"].Attempt != want {
			t.Fatalf("attempt %d written, %d stored, want %d", s.Attempt, saved.Outbox["m"].Attempt, want)
		}
		d.pass(5 * time.Second)
	}
	d.sendFrame()
	d.restart()
	d.level(1, 0)
	f, s := d.sendFrame()
	if s.Attempt != 4 || s.ClientMsgId != "m" {
		t.Fatalf("after a restart: %+v", s)
	}
	d.reply(f, ackOf(1, "m"))
	if saved, _ := d.store.Load(); len(saved.Outbox) != 0 {
		t.Fatalf("outbox %v", saved.Outbox)
	}
}

// TestR13RefusedMessageHoldsUpThoseAfterIt: m1 of a pipeline is refused as overloaded.
// Seen to fail: with `before` taken as the last entry of the outbox (not the nearest
// earlier one), m1 names m3 and nothing ever gets in; without the rule that an entry leaves
// only behind a flying predecessor, m2 is written before m1.
func TestR13RefusedMessageHoldsUpThoseAfterIt(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	for i := range 3 {
		d.send(fmt.Sprint("m", i+1), ab)
	}
	d.send("other", "p:me:zoe")
	f1, s1 := d.sendFrame()
	f2, s2 := d.sendFrame()
	f3, s3 := d.sendFrame()
	fo, so := d.sendFrame()
	if s1.After != "" || s2.After != "m1" || s3.After != "m2" || so.After != "" {
		t.Fatalf("after: %q %q %q %q", s1.After, s2.After, s3.After, so.After)
	}
	d.refuse(f1, code.Overloaded, time.Second)
	d.refuse(f2, code.OutOfOrder, 0)
	d.refuse(f3, code.OutOfOrder, 0)
	d.reply(fo, &im.SendAck{Conv: "p:me:zoe", Seq: 1, Epoch: 1, Version: 1, LastSeq: 1})
	d.pass(900 * time.Millisecond)
	for _, f := range d.frames {
		if f.Cmd == im.Cmd_SEND {
			t.Fatal("written before the refused one may be repeated")
		}
	}
	d.frames = nil
	d.pass(600 * time.Millisecond)
	f1, s1 = d.sendFrame()
	d.silent() // one at a time until it is taken
	d.reply(f1, &im.SendAck{Conv: ab, Seq: 1, Epoch: 1, Version: 2, LastSeq: 1})
	f2, s2 = d.sendFrame()
	f3, s3 = d.sendFrame()
	if s1.ClientMsgId != "m1" || s1.After != "" || s1.Attempt != 2 || s2.After != "" || s3.After != "m2" {
		t.Fatalf("again: %+v %+v %+v", s1, s2, s3)
	}
	d.reply(f3, &im.SendAck{Conv: ab, Seq: 3, Epoch: 1, Version: 4, LastSeq: 3})
	d.reply(f2, &im.SendAck{Conv: ab, Seq: 2, Epoch: 1, Version: 3, LastSeq: 2})
	d.wantShown("other", "m1", "m3", "m2")
	d.wantCursor(4)
}

func TestR13PredecessorThatFailedForGood(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m1", ab)
	d.send("m2", ab)
	d.send("m3", ab)
	f1, _ := d.sendFrame()
	f2, _ := d.sendFrame()
	f3, _ := d.sendFrame()
	d.refuse(f3, code.OutOfOrder, 0)
	d.refuse(f2, code.Denied, 0)
	if got := find[Failed](d); len(got) != 1 || got[0].ClientMsgID != "m2" || got[0].Err.Code != code.Denied {
		t.Fatalf("failed %+v", got)
	}
	// m2 failed for good: m3 would name m1, and follows as soon as that is stored.
	d.silent()
	d.reply(f1, ackOf(1, "m1"))
	if _, s3 := d.sendFrame(); s3.ClientMsgId != "m3" || s3.After != "" {
		t.Fatalf("m3 after m1 was stored: %+v", s3)
	}
	// The user tries m2 once more, now behind m3.
	if err := d.core.Retry(d.now, "m2"); err != nil {
		t.Fatal(err)
	}
	if _, s2 := d.sendFrame(); s2.ClientMsgId != "m2" || s2.After != "m3" || s2.Attempt != 2 {
		t.Fatalf("m2 again: %+v", s2)
	}
}

// A pipeline to somebody who blocks fails one message after the other, each as soon as the
// one before it has: it took 5 s for each while every refusal doubled the pause (found by
// tests/sim).
func TestR13PipelineOfFailuresIsNotSlow(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	for i := range 8 {
		d.send(fmt.Sprint("m", i), ab)
	}
	began := d.now
	for len(find[Failed](d)) < 8 && d.now.Sub(began) < time.Minute {
		for len(d.frames) > 0 { // a server that knows no predecessor
			f, s := d.sendFrame()
			if s.After == "" {
				d.refuse(f, code.Blocked, 0)
			} else {
				d.refuse(f, code.OutOfOrder, 0)
			}
		}
		d.pass(time.Millisecond)
	}
	if took := d.now.Sub(began); took > time.Second {
		t.Errorf("it took %v until the last had failed", took)
	}
}

// A server that takes a few messages at a time is not fed the rest over and over. Seen to
// fail while each refusal had the whole pipeline written again: 19,600 writes of 40 messages
// in a minute (found by tests/sim).
func TestP18OverloadIsNotFed(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	const n = 32
	for i := range n {
		d.send(fmt.Sprint("m", i), ab)
	}
	stored, writes := 0, 0
	began := d.now
	for stored < n && d.now.Sub(began) < time.Minute {
		room := 4 // of a queue that is full but for these
		for len(d.frames) > 0 {
			if d.frames[0].Cmd != im.Cmd_SEND {
				d.frames = d.frames[1:]
				continue
			}
			f, s := d.sendFrame()
			writes++
			switch {
			case room == 0:
				d.refuse(f, code.Overloaded, 200*time.Millisecond)
			case s.ClientMsgId != fmt.Sprint("m", stored):
				room--
				d.refuse(f, code.OutOfOrder, 0)
			default:
				room--
				stored++
				d.reply(f, ackOf(uint64(stored), s.ClientMsgId))
			}
		}
		d.pass(10 * time.Millisecond)
	}
	if stored < n || writes > 3*n {
		t.Errorf("%d of %d stored with %d writes in %v", stored, n, writes, d.now.Sub(began))
	}
}

func TestR13LateRefusalOfAnEarlierWriteDoesNotCount(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m1", ab)
	f1, _ := d.sendFrame()
	d.pass(5 * time.Second)
	f2, _ := d.sendFrame()
	d.refuse(f1, code.Denied, 0)
	if len(find[Failed](d)) != 0 {
		t.Fatal("failed by the answer to an earlier write")
	}
	d.reply(f2, ackOf(1, "m1"))
	d.wantShown("m1")
	d.reply(f1, ackOf(1, "m1")) // whatever still arrives
	d.wantShown("m1")
}

func TestDeadlineThenRetryWithTheSameID(t *testing.T) {
	d := newDevice(t)
	d.send("m", ab) // offline
	d.pass(2 * time.Minute)
	if got := find[Failed](d); len(got) != 1 || got[0].Err.Code != code.Expired {
		t.Fatalf("failed %+v", got)
	}
	d.restart()
	d.level(1, 0)
	d.silent()
	if err := d.core.Send(d.now, Outgoing{ClientMsgID: "m", Conv: ab}); code.Of(err) != code.Conflict {
		t.Fatalf("the same id twice: %v", err)
	}
	if err := d.core.Retry(d.now, "m"); err != nil {
		t.Fatal(err)
	}
	f, _ := d.sendFrame()
	d.reply(f, ackOf(1, "m"))
	d.wantShown("m")
}

func TestWindow(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	for i := range 40 {
		d.send(fmt.Sprint("m", i), fmt.Sprint("p:me:u", i))
	}
	if len(d.frames) != 32 {
		t.Fatalf("%d sends in flight", len(d.frames))
	}
	f := d.frames[0]
	d.reply(f, &im.SendAck{Conv: "p:me:u0", Seq: 1})
	if len(d.frames) != 33 {
		t.Fatalf("%d written after one ack", len(d.frames))
	}
}

func TestPendingMeetsItsStoredSelf(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m", ab)
	d.sendFrame()
	d.restart() // the ack is lost
	m := msg(1, "m")
	m.Sender = "me"
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 1, Head: 1, Changes: []*im.Conversation{row(1, 1, m)}})
	d.silent()
	if got := find[Sent](d); len(got) != 1 || got[0].Message.Seq != 1 {
		t.Fatalf("sent %+v", got)
	}
	d.wantShown("m")
}

func TestAckAheadOfTheCursor(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.send("m", ab)
	f, _ := d.sendFrame()
	d.reply(f, &im.SendAck{Conv: ab, Seq: 2, Epoch: 1, Version: 2, LastSeq: 2})
	d.wantShown("m") // at once
	d.wantCursor(0)
	d.push(row(1, 1, msg(1, "theirs")))
	d.wantShown("m", "theirs")
	d.wantCursor(2)
	d.pass(time.Second)
	d.sent(im.Cmd_PUSH_ACK)
	d.silent()
}

func TestBodyOverTheLimitFailsHere(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	big := Outgoing{ClientMsgID: "big", Conv: ab, Data: make([]byte, 300<<10)}
	if err := d.core.Send(d.now, big); err != nil {
		t.Fatal(err)
	}
	d.send("small", ab)
	if got := find[Failed](d); len(got) != 1 || got[0].Err.Code != code.TooLarge {
		t.Fatalf("failed %+v", got)
	}
	if _, s := d.sendFrame(); s.ClientMsgId != "small" || s.After != "" {
		t.Fatalf("then %+v", s)
	}
}

func TestBadOutgoing(t *testing.T) {
	d := newDevice(t)
	for name, o := range map[string]Outgoing{
		"no id":           {Conv: ab},
		"nowhere":         {ClientMsgID: "m"},
		"conv and to":     {ClientMsgID: "m", Conv: ab, To: "you"},
		"recall, no seq":  {ClientMsgID: "m", Conv: ab, Cmd: im.Cmd_RECALL},
		"another command": {ClientMsgID: "m", Conv: ab, Cmd: im.Cmd_READ},
	} {
		if err := d.core.Send(d.now, o); code.Of(err) != code.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The ack of a message that said what was displayed tells how far the user has read: no push
// follows (P12). Seen to fail with the two fields of SEND_ACK left out of the row.
func TestP12AckMovesTheReadPosition(t *testing.T) {
	d := newDevice(t)
	d.level(1, 0)
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 1, Changes: []*im.Conversation{{
		Conv: ab, Version: 1, LastSeq: 1, Unread: 1, Messages: []*im.Message{{Seq: 1, Sender: "other"}},
	}}})
	d.send("m", ab)
	f, _ := d.sendFrame()
	ack := ackOf(2, "m")
	ack.ReadSeq = 1
	d.reply(f, ack)
	if got := find[Read](d); len(got) != 1 || got[0].Seq != 1 || got[0].ByPeer {
		t.Errorf("read %+v", got)
	}
}
