package core

import (
	"testing"

	"hongyan/idl/im"
)

// Where a device begins is where its first SYNC found the user, be that nothing at all: what
// comes while it is away afterwards is fetched whole. Seen to fail while a cursor of version 0
// counted as none: the second login began anew with the newest messages, and the others were
// never shown (found by tests/sim).
func TestFirstSyncOfAnEmptyUserCounts(t *testing.T) {
	d := newDevice(t, func(c *Config) { c.FullHistory = false })
	d.login(&im.SyncRsp{Epoch: 1})
	d.core.Disconnected(d.now)
	d.restart()
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 1, Head: 1, Changes: []*im.Conversation{{
		Conv: ab, Version: 1, LastSeq: 30, Messages: []*im.Message{{Seq: 30, Sender: "other"}},
	}}})
	d.pass(d.cfg.GapDelay + DefaultConfig().GapDelay)
	var h im.History
	d.body(d.sent(im.Cmd_HISTORY), &h)
	if h.FromSeq != 1 || h.ToSeq != 29 {
		t.Errorf("fetches %d..%d", h.FromSeq, h.ToSeq)
	}
}

// An entry below what a device keeps may still be on its screen: its own message, acked late.
// Seen to fail while a copy below the floor was dropped whole: the message stayed as it was
// before it was edited (R25, found by tests/sim).
func TestR25ModificationBelowTheFloorIsTold(t *testing.T) {
	d := newDevice(t, func(c *Config) { c.FullHistory = false })
	d.send("m", ab)
	d.login(&im.SyncRsp{Epoch: 1, NextCursor: 9, Head: 9, Changes: []*im.Conversation{{
		Conv: ab, Version: 9, LastSeq: 30, Messages: []*im.Message{{Seq: 30, Sender: "other"}},
	}}})
	f, _ := d.sendFrame()
	d.reply(f, &im.SendAck{Conv: ab, Seq: 3, ClientMsgId: "m", Duplicate: true})
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 1, Changes: []*im.Conversation{{
		Conv: ab, Version: 9, LastSeq: 30, Messages: []*im.Message{{Seq: 3, Sender: "me", ClientMsgId: "m", Text: "better", ModSeq: 7}},
	}}})
	if got := find[Modified](d); len(got) != 1 || got[0].Seq != 3 || got[0].Text != "better" {
		t.Errorf("told %+v", got)
	}
}
