package logic

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

func TestSendIsAckedAndPushed(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		seq := alice.send("bob", "m1", "hello")
		frames := alice.frames()
		d := one(t, frames, im.Cmd_SEND)
		ack := decode(t, d, &im.SendAck{})
		equal(t, "request", d.Seq, seq)
		equal(t, "conv", ack.Conv, "p:alice:bob")
		equal(t, "seq", ack.Seq, 1)
		equal(t, "version", ack.Version, 1)
		equal(t, "last seq", ack.LastSeq, 1)
		equal(t, "echoes to the sending device", len(pushes(t, frames)), 0)
		got := pushes(t, bob.frames())
		if len(got) != 1 || got[0].Version != 1 || got[0].Unread != 1 || got[0].Messages[0].Text != "hello" {
			t.Fatalf("bob was pushed %+v", got)
		}
		for _, boot := range w.gateway.boots {
			equal(t, "boot of the gateway", boot, "gwboot")
		}
	})
}

// MF-08: all devices of both sides see the same.
func TestMF08OtherDevicesOfTheSenderArePushed(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		phone, laptop := w.client("alice", "a1", 1), w.client("alice", "a2", 2)
		phone.login(0)
		laptop.login(0)
		phone.send("bob", "m1", "hello")
		equal(t, "pushes to the phone", len(pushes(t, phone.frames())), 0)
		got := pushes(t, laptop.frames())
		if len(got) != 1 || got[0].Messages[0].ClientMsgId != "m1" {
			t.Fatalf("the laptop was pushed %+v", got)
		}
	})
}

// A SEND that is committed late is answered to the connection it came on. The device has
// another by then, which gets no answer, so it is pushed the change.
// Seen to fail: with the sending device skipped whatever its connection, the new connection
// hears of it at its next renewal only (found by tests/sim).
func TestP30LaterConnectionOfTheSendingDeviceIsPushed(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		before, after := w.client("alice", "a1", 1), w.client("alice", "a1", 2)
		before.login(0)
		w.das[0].delay = time.Second
		before.send("bob", "m1", "hello")
		synctest.Wait()
		w.das[0].delay = 0
		after.login(0)
		pass(2 * time.Second)
		if got := pushes(t, after.frames()); len(got) != 1 || got[0].Version != 1 {
			t.Fatalf("the new connection was pushed %+v", got)
		}
		ack := decode(t, one(t, before.frames(), im.Cmd_SEND), &im.SendAck{})
		equal(t, "version in the answer", ack.Version, 1)
	})
}

// ZZ-16: a user's messages keep their order.
func TestZZ16MessagesOfAUserKeepTheirOrder(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		for i := range 100 {
			alice.send("bob", "m"+strconv.Itoa(i), strconv.Itoa(i))
		}
		synctest.Wait()
		for i, m := range w.store.conv(tenant, "p:alice:bob").messages {
			equal(t, "text of seq "+strconv.Itoa(i+1), m.Text, strconv.Itoa(i))
		}
		for i, text := range texts(pushes(t, bob.frames())) {
			equal(t, "pushed text", text, strconv.Itoa(i))
		}
	})
}

func TestSendRefusesWhatIsWrong(t *testing.T) {
	good := func(change func(*im.Send)) *im.Send {
		s := &im.Send{ClientMsgId: "m1", Attempt: 1, To: "bob", Text: "hello"}
		change(s)
		return s
	}
	for _, c := range []struct {
		name  string
		send  *im.Send
		code  code.Code
		about string // what the message must name
	}{
		{"no id", good(func(s *im.Send) { s.ClientMsgId = "" }), code.BadRequest, "client_msg_id"},
		{"long id", good(func(s *im.Send) { s.ClientMsgId = strings.Repeat("x", 65) }), code.BadRequest, "client_msg_id"},
		{"blank in id", good(func(s *im.Send) { s.ClientMsgId = "a b" }), code.BadRequest, "client_msg_id"},
		{"after itself", good(func(s *im.Send) { s.After = "m1" }), code.BadRequest, "after"},
		{"bad after", good(func(s *im.Send) { s.After = "\x00" }), code.BadRequest, "after"},
		{"nowhere", good(func(s *im.Send) { s.To = "" }), code.BadRequest, "conv or to"},
		{"to oneself", good(func(s *im.Send) { s.To = "alice" }), code.BadRequest, "itself"},
		{"bad uid", good(func(s *im.Send) { s.To = "bob:carol" }), code.BadRequest, "uid"},
		{"bad conv", good(func(s *im.Send) { s.To, s.Conv = "", "bob" }), code.BadRequest, "conv"},
		{"conv is not to", good(func(s *im.Send) { s.Conv = "p:alice:carol" }), code.BadRequest, "conv"},
		{"other people's conv", good(func(s *im.Send) { s.To, s.Conv = "", "p:bob:carol" }), code.Denied, "member"},
		{"channel", good(func(s *im.Send) { s.To, s.Conv = "", "s:orders:alice" }), code.Denied, "platform"},
		{"other's channel", good(func(s *im.Send) { s.To, s.Conv = "", "s:orders:bob" }), code.Denied, "member"},
		{"empty", good(func(s *im.Send) { s.Text = "" }), code.BadRequest, "text"},
		{"not UTF-8", good(func(s *im.Send) { s.Text = "\xff" }), code.BadRequest, "UTF-8"},
		{"huge text", good(func(s *im.Send) { s.Text = strings.Repeat("x", 32<<10+1) }), code.TooLarge, "text"},
		{"huge data", good(func(s *im.Send) { s.Data = make([]byte, 128<<10+1) }), code.TooLarge, "data"},
		{"event", good(func(s *im.Send) { s.Kind = im.Kind_EVENT_RECALL }), code.BadRequest, "kind"},
		{"system kind", good(func(s *im.Send) { s.Kind = im.Kind_SYSTEM }), code.BadRequest, "kind"},
		{"unknown kind", good(func(s *im.Send) { s.Kind = 33 }), code.BadRequest, "kind"},
		{"negative kind", good(func(s *im.Send) { s.Kind = -1 }), code.BadRequest, "kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, 1, func(w *world) {
				alice := w.client("alice", "a1", 1)
				alice.login(0)
				alice.request(im.Cmd_SEND, c.send)
				e := errorOf(t, alice.frames(), im.Cmd_SEND)
				equal(t, "code", e.Name, c.code.Name())
				if !strings.Contains(e.Message, c.about) {
					t.Errorf("message %q does not name %q", e.Message, c.about)
				}
				equal(t, "stored", len(w.store.convs), 0)
			})
		})
	}
}

func TestBlockedSenderIsToldSo(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		bob.request(im.Cmd_BLOCK, &im.Block{Uid: "alice", On: true})
		block := decode(t, one(t, bob.frames(), im.Cmd_BLOCK), &im.BlockAck{})
		equal(t, "conv", block.Conv, "p:alice:bob")
		alice.send("bob", "m1", "hello")
		equal(t, "code", errorOf(t, alice.frames(), im.Cmd_SEND).Name, "blocked")
	})
}

// R04: SEND commits, but its outcome comes after the client's deadline: the client hears
// "unknown", and the message is fanned out all the same.
// Seen to fail: with the orders of settled writes that nobody waits for any more left
// alone, Bob is pushed nothing before Scan finds the row.
func TestR04FanOutHasNoDeadline(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.store.twoStage = true
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		w.das[0].delay = time.Second
		body, _ := (&im.Send{ClientMsgId: "m1", Attempt: 1, To: "bob", Text: "hello"}).Marshal(nil)
		alice.up(&tier.Uplink{Cmd: uint32(im.Cmd_SEND), Seq: 7, Body: body, TtlMs: 200})
		pass(900 * time.Millisecond)
		equal(t, "code", errorOf(t, alice.frames(), im.Cmd_SEND).Name, "unknown_outcome")
		pass(2 * time.Second)
		if got := texts(pushes(t, bob.frames())); len(got) != 1 {
			t.Errorf("bob was pushed %q", got)
		}
		for _, b := range w.das[0].calls {
			for _, it := range b.Items {
				if it.Fanout != nil {
					equal(t, "deadline of a fan-out", it.TtlMs, 0)
				}
			}
		}
	})
}

// R04: a full queue of das does not drop a fan-out; new messages are refused instead.
// Seen to fail: without the retries of fanOut.failed the first message waits for the
// repeats of its row's owner; without those too it never comes. Without admit the later
// SEND is accepted.
func TestR04FullQueueDelaysFanOutAndSlowsSends(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.store.twoStage = true
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		var full atomic.Bool
		full.Store(true)
		w.das[0].refuse = func(it *tier.Submit) *tier.Refused {
			if full.Load() && it.Fanout != nil {
				return &tier.Refused{Code: uint32(code.Overloaded), RetryAfterMs: 100}
			}
			return nil
		}
		alice.send("bob", "m0", "at once")
		one(t, alice.frames(), im.Cmd_SEND)
		pass(time.Second)
		full.Store(false)
		pass(time.Second)
		equal(t, "pushed", strings.Join(texts(pushes(t, bob.frames())), ","), "at once")
		alice.frames()
		full.Store(true)
		alice.send("bob", "m1", "hello")
		one(t, alice.frames(), im.Cmd_SEND)
		pass(12 * time.Second) // past MaxFanOutAge
		equal(t, "pushed while full", len(pushes(t, bob.frames())), 0)
		alice.send("bob", "m2", "more")
		e := errorOf(t, alice.frames(), im.Cmd_SEND)
		equal(t, "code", e.Name, "overloaded")
		equal(t, "comes back", e.RetryAfterMs > 0, true)
		full.Store(false)
		pass(20 * time.Second)
		equal(t, "pushed", strings.Join(texts(pushes(t, bob.frames())), ","), "hello")
		alice.send("bob", "m3", "on we go")
		one(t, alice.frames(), im.Cmd_SEND)
		equal(t, "pushed", strings.Join(texts(pushes(t, bob.frames())), ","), "on we go")
	})
}

// R11: Alice and Bob write in one batch, so her row has one version for both messages. Her
// ack must not move her cursor past a message that she was not pushed.
// Seen to fail: with explain always naming the device as the one to skip, Alice's device
// gets version 1 in its ack and never hears of Bob's message.
func TestR11AckDoesNotHideMessagesOfOthers(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob, carol := w.client("alice", "a1", 1), w.client("bob", "b1", 2), w.client("carol", "c1", 3)
		alice.login(0)
		bob.login(0)
		carol.login(0)
		w.das[0].lag = 10 * time.Millisecond
		carol.send("dave", "m0", "keeps das busy")
		synctest.Wait()
		alice.send("bob", "m1", "from alice")
		bob.send("alice", "m2", "from bob")
		pass(time.Second)
		frames := alice.frames()
		ack := decode(t, one(t, frames, im.Cmd_SEND), &im.SendAck{})
		got := pushes(t, frames)
		if ack.Version != 0 || len(got) != 1 || got[0].Version != 1 || got[0].LastSeq != 2 || len(got[0].Messages) != 2 {
			t.Fatalf("alice was answered %+v and pushed %+v", ack, got)
		}
	})
}

// R11: Bob reads in the batch in which Alice sends: her row has one version for her own
// message and for how far he has read. Found by tests/sim.
// Seen to fail: with explain comparing the number of messages only, Alice never learns
// that her first message was read.
func TestR11AckDoesNotHideWhatOthersHaveRead(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob, carol := w.client("alice", "a1", 1), w.client("bob", "b1", 2), w.client("carol", "c1", 3)
		for _, c := range []*client{alice, bob, carol} {
			c.login(0)
		}
		alice.send("bob", "m1", "one")
		alice.frames()
		w.das[0].lag = 10 * time.Millisecond
		carol.send("dave", "m0", "keeps das busy")
		synctest.Wait()
		alice.send("bob", "m2", "two")
		bob.request(im.Cmd_READ, &im.Read{Conv: "p:alice:bob", Seq: 1})
		pass(time.Second)
		frames := alice.frames()
		ack := decode(t, one(t, frames, im.Cmd_SEND), &im.SendAck{})
		got := pushes(t, frames)
		if ack.Version != 0 || len(got) != 1 || got[0].PeerReadSeq != 1 || got[0].LastSeq != 2 {
			t.Fatalf("alice was answered %+v and pushed %+v", ack, got)
		}
	})
}

// Several messages of one device in one version need no push: its acks say it all, in order.
func TestPipelinedMessagesOfOneDeviceNeedNoEcho(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, carol := w.client("alice", "a1", 1), w.client("carol", "c1", 3)
		alice.login(0)
		carol.login(0)
		w.das[0].lag = 10 * time.Millisecond
		carol.send("dave", "m0", "keeps das busy")
		synctest.Wait()
		alice.send("bob", "m1", "one")
		alice.send("bob", "m2", "two")
		pass(time.Second)
		frames := alice.frames()
		equal(t, "frames", len(frames), 2)
		for i, d := range frames {
			ack := decode(t, d, &im.SendAck{})
			equal(t, "seq", ack.Seq, uint64(i+1))
			equal(t, "version", ack.Version, 1)
			equal(t, "last seq", ack.LastSeq, 2)
		}
	})
}

// R29: a retry of a committed message meets a limit that has become tighter.
// Seen to fail: with deny answering at once, the retry is told too_large.
func TestR29DenialLooksForAnEarlierCommitFirst(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		alice.frames()
		w.logics[0].cfg.MaxText = 3
		for _, c := range []struct {
			name, id, text string
			attempt        uint32
			repeated       bool
			code           code.Code
			finds          int
		}{
			{"retry", "m1", "hello", 2, false, code.OK, 1},
			{"unknown attempt", "m1", "hello", 0, false, code.OK, 1},
			{"repeated by a tier", "m1", "hello", 1, true, code.OK, 1},
			{"other body", "m1", "hullo", 2, false, code.Conflict, 1},
			{"never committed", "m2", "hello", 2, false, code.TooLarge, 1},
			{"first attempt", "m3", "hello", 1, false, code.TooLarge, 0},
		} {
			w.das[0].finds = 0
			body, _ := (&im.Send{ClientMsgId: c.id, Attempt: c.attempt, To: "bob", Text: c.text}).Marshal(nil)
			alice.up(&tier.Uplink{Cmd: uint32(im.Cmd_SEND), Seq: 1, Body: body, Repeated: c.repeated})
			d := one(t, alice.frames(), im.Cmd_SEND)
			equal(t, c.name, code.Code(d.Status).Name(), c.code.Name())
			equal(t, c.name+": look-ups", w.das[0].finds, c.finds)
			if c.code == code.OK {
				ack := decode(t, d, &im.SendAck{})
				equal(t, c.name+": duplicate", ack.Duplicate && ack.Seq == 1, true)
			}
		}
	})
}

// A call to das that fails may have been taken: what it carried is repeated at the next
// instance of the walk, and marked so.
func TestZZ17FailedSubmitIsRepeatedElsewhere(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(d *fakeDas, hook func() bool)
	}{
		{"refused connection", func(d *fakeDas, hook func() bool) { d.down = hook }},
		{"lost reply", func(d *fakeDas, hook func() bool) { d.cut, d.delay = hook, 10*time.Millisecond }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 1, 2, func(w *world) {
				alice := w.client("alice", "a1", 1)
				alice.login(0)
				c.set(w.das[0], func() bool { return true })
				for i := range 20 {
					alice.send("bob"+strconv.Itoa(i), "m1", "hello")
				}
				pass(time.Second)
				for _, d := range alice.frames() {
					decode(t, d, &im.SendAck{})
				}
				equal(t, "conversations", len(w.store.convs), 20)
				repeated := 0
				for _, b := range w.das[1].calls {
					for _, it := range b.Items {
						if it.Append != nil && it.Repeated {
							repeated++
						}
					}
				}
				if repeated == 0 || repeated == 20 {
					t.Errorf("%d of 20 were repeated at the other das", repeated)
				}
			})
		})
	}
}

func TestUnsettledSendIsUnknown(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].mute = func(it *tier.Submit) bool { return it.Append != nil }
		alice.send("bob", "m1", "hello")
		pass(11 * time.Second)
		e := errorOf(t, alice.frames(), im.Cmd_SEND)
		equal(t, "code", e.Name, "unknown_outcome")
		equal(t, "retryable", e.Retryable, true)
		equal(t, "in flight", w.logics[0].writes.count.Load(), 0)
	})
}

func TestNoDasAtAllIsUnavailable(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].down = func() bool { return true }
		alice.send("bob", "m1", "one")
		synctest.Wait()
		alice.send("bob", "m2", "two")
		d := one(t, alice.frames(), im.Cmd_SEND)
		equal(t, "code of the second", code.Code(d.Status).Name(), "unavailable")
		pass(11 * time.Second)
		equal(t, "code of the first", errorOf(t, alice.frames(), im.Cmd_SEND).Name, "unknown_outcome")
		equal(t, "in flight", w.logics[0].writes.count.Load(), 0)
	})
}

func TestRecallAndEdit(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		alice.send("bob", "m1", "hullo")
		alice.frames()
		bob.frames()
		alice.request(im.Cmd_EDIT, &im.Modify{ClientMsgId: "e1", Conv: "p:alice:bob", Seq: 1, Text: "hello", Attempt: 1})
		ack := decode(t, one(t, alice.frames(), im.Cmd_EDIT), &im.SendAck{})
		equal(t, "seq", ack.Seq, 2)
		equal(t, "version", ack.Version, 2)
		alice.request(im.Cmd_RECALL, &im.Modify{ClientMsgId: "r1", Conv: "p:alice:bob", Seq: 1, Attempt: 1})
		decode(t, one(t, alice.frames(), im.Cmd_RECALL), &im.SendAck{})
		got := pushes(t, bob.frames())
		if len(got) != 2 || got[0].Messages[0].Kind != im.Kind_EVENT_EDIT || got[1].Messages[0].Kind != im.Kind_EVENT_RECALL || got[1].Messages[0].TargetSeq != 1 {
			t.Fatalf("bob was pushed %+v", got)
		}
		for _, c := range []struct {
			cmd   im.Cmd
			body  *im.Modify
			about string
		}{
			{im.Cmd_RECALL, &im.Modify{ClientMsgId: "x", Conv: "p:alice:bob"}, "seq"},
			{im.Cmd_RECALL, &im.Modify{Conv: "p:alice:bob", Seq: 1}, "client_msg_id"},
			{im.Cmd_RECALL, &im.Modify{ClientMsgId: "x", Conv: "p:alice:bob", Seq: 1, Text: "x"}, "text"},
			{im.Cmd_EDIT, &im.Modify{ClientMsgId: "x", Conv: "p:alice:bob", Seq: 1}, "text"},
			{im.Cmd_EDIT, &im.Modify{ClientMsgId: "x", Conv: "p:bob:carol", Seq: 1, Text: "x"}, "member"},
		} {
			alice.request(c.cmd, c.body)
			if e := errorOf(t, alice.frames(), c.cmd); !strings.Contains(e.Message, c.about) {
				t.Errorf("%s %+v: %q does not name %s", c.cmd, c.body, e.Message, c.about)
			}
		}
	})
}

func TestExecuteSendsForUsersAndChannels(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		bob := w.client("bob", "b1", 2)
		bob.login(0)
		execute := func(uid string, system bool, cmd im.Cmd, body message) *tier.ExecuteReply {
			b, _ := body.Marshal(nil)
			reply, err := w.logics[0].Execute(context.Background(), &tier.ExecuteRequest{
				Tenant: tenant, Uid: uid, Cmd: uint32(cmd), Body: b, System: system,
			})
			if err != nil {
				t.Fatal(err)
			}
			return reply
		}
		reply := execute("alice", false, im.Cmd_SEND, &im.Send{To: "bob", Text: "hello"})
		ack := &im.SendAck{}
		if reply.Code != 0 || ack.Unmarshal(reply.Body) != nil || ack.Seq != 1 || len(ack.ClientMsgId) != 36 {
			t.Fatalf("answered %+v %+v", reply, ack)
		}
		reply = execute("orders", true, im.Cmd_SEND, &im.Send{Conv: "s:orders:bob", ClientMsgId: "n1", Text: "shipped"})
		equal(t, "notice", reply.Code, 0)
		// A system that speaks for a user says what he would say.
		reply = execute("alice", true, im.Cmd_SEND, &im.Send{To: "bob", ClientMsgId: "n2", Text: "for alice"})
		equal(t, "on behalf", reply.Code, 0)
		got := pushes(t, bob.frames())
		if len(got) != 3 || got[2].Messages[0].Kind != im.Kind_TEXT || got[0].Messages[0].Sender != "alice" || got[1].Messages[0].Sender != "orders" || got[1].Messages[0].Kind != im.Kind_SYSTEM {
			t.Fatalf("bob was pushed %+v", got)
		}
		for name, r := range map[string]struct {
			reply *tier.ExecuteReply
			code  code.Code
		}{
			"a user writes to a channel": {execute("bob", false, im.Cmd_SEND, &im.Send{Conv: "s:orders:bob", Text: "x"}), code.Denied},
			"no user":                    {execute("", false, im.Cmd_SEND, &im.Send{To: "bob", Text: "x"}), code.BadRequest},
			"login":                      {execute("bob", false, im.Cmd_AUTH, &im.Auth{}), code.Unsupported},
			"unknown command":            {execute("bob", false, 999, &im.Auth{}), code.Unsupported},
			"business command":           {execute("bob", false, im.Cmd_CALL, &im.Call{Name: "order.list"}), code.Unsupported},
			"system, as somebody else":   {execute("carol", true, im.Cmd_SEND, &im.Send{Conv: "p:alice:bob", Text: "x"}), code.Denied},
		} {
			equal(t, name, code.Code(r.reply.Code).Name(), r.code.Name())
			equal(t, name+": says why", r.reply.Message != "", true)
		}
		w.das[0].mute = func(it *tier.Submit) bool { return it.Append != nil }
		body, _ := (&im.Send{To: "bob", Text: "slow"}).Marshal(nil)
		start := time.Now()
		late, err := w.logics[0].Execute(context.Background(), &tier.ExecuteRequest{
			Tenant: tenant, Uid: "alice", Cmd: uint32(im.Cmd_SEND), Body: body, TimeoutMs: 300,
		})
		if err != nil || code.Code(late.Code) != code.UnknownOutcome || time.Since(start) > 400*time.Millisecond {
			t.Errorf("after %s: %+v, %v", time.Since(start), late, err)
		}
	})
}

// A das tells results to an address. What it owes to an earlier life of this instance, which
// counted its writes too, is about other messages.
// Seen to fail: with every life numbering its writes from 1.
func TestResultsForAnEarlierLifeSettleNothing(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].mute = func(it *tier.Submit) bool { return it.Append != nil }
		alice.send("bob", "m1", "hello")
		synctest.Wait()
		old := &tier.SettledBatch{Das: "das0"}
		for id := range uint64(100) {
			old.Items = append(old.Items, &tier.Settled{Id: id, Append: &tier.Appended{Conv: "p:carol:dave", Seq: 7}})
		}
		if _, err := w.logics[0].Settled(context.Background(), old); err != nil {
			t.Fatal(err)
		}
		equal(t, "answers", len(alice.frames()), 0)
	})
}

// R10: a SEND that waited behind a das that hung is not handed over after its sender was told
// that its outcome is unknown: he may have repeated it, and das remember only minutes.
// Seen to fail: with sendWrites sending whatever was queued.
func TestR10WritesThatNobodyWaitsForAreNotSent(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		w.das[0].lag = 5 * time.Minute
		alice.send("bob", "m1", "under way")
		synctest.Wait()
		alice.send("bob", "m2", "waits")
		pass(10 * time.Minute)
		w.das[0].Lock()
		defer w.das[0].Unlock()
		if w.das[0].conv(tenant, "p:alice:bob").keys["alice m2"] != nil {
			t.Error("m2 was sent long after its time")
		}
	})
}

// BLOCK_ACK has no version: the device that blocked is pushed its row like the others, or it
// would lack that version until its next renewal.
// Seen to fail: without untold.
func TestBlockingDeviceIsPushedItsRow(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.request(im.Cmd_BLOCK, &im.Block{Uid: "bob", On: true})
		frames := alice.frames()
		one(t, frames, im.Cmd_BLOCK)
		if got := pushes(t, frames); len(got) != 1 || got[0].Version != 1 {
			t.Errorf("pushed %+v", got)
		}
	})
}
