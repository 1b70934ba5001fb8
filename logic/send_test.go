package logic

import (
	"testing"

	"hongyan/idl/im"
)

func TestSendIsAckedAndPushed(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		seq := alice.send("bob", "m1", "hello")
		d := one(t, alice.frames(), im.Cmd_SEND)
		ack := decode(t, d, &im.SendAck{})
		equal(t, "request", d.Seq, seq)
		equal(t, "conv", ack.Conv, "p:alice:bob")
		equal(t, "seq", ack.Seq, 1)
		equal(t, "version", ack.Version, 1)
		equal(t, "last seq", ack.LastSeq, 1)
		got := pushes(t, bob.frames())
		if len(got) != 1 || got[0].Version != 1 || got[0].Unread != 1 || got[0].Messages[0].Text != "hello" {
			t.Fatalf("bob was pushed %+v", got)
		}
	})
}
