package logic

import (
	"testing"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// The device that sent is told by its ack what displayed_seq did to its row: nobody pushes it
// (P12). Seen to fail without the two fields: its read position stayed behind those of the
// user's other devices for ever (found by tests/sim).
func TestP12AckTellsTheReadPositionThatItMoved(t *testing.T) {
	c := &call{conv: "p:alice:bob", request: &request{up: &tier.Uplink{Tenant: tenant, Uid: "alice", Device: "a1"}}}
	s := &tier.Settled{
		Epoch: 1, Version: 7, LastSeq: 5, Append: &tier.Appended{Seq: 5},
		Row: &im.Conversation{Conv: c.conv, Version: 7, LastSeq: 5, ReadSeq: 4, Unread: 1},
	}
	if ack := sendAck(c, s, true).(*im.SendAck); ack.ReadSeq != 4 || ack.Unread != 1 || ack.Version != 7 {
		t.Errorf("ack %+v", ack)
	}
	if ack := sendAck(&call{conv: c.conv}, s, false).(*im.SendAck); ack.ReadSeq != 0 || ack.Version != 0 {
		t.Errorf("without the version the push tells it: %+v", ack)
	}
}
