package logic

import (
	"testing"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// Two tenants name their users, and so their conversations, alike: what was encoded for one
// is not sent to the other (T). Red while messages were compared by conversation and seq
// alone; found by tests/sim.
func TestP16EncoderKeepsTenantsApart(t *testing.T) {
	e := &encoder{}
	for _, tenant := range []string{"acme", "bolt", "acme"} {
		m := &im.Message{Conv: "p:a:b", Seq: 1, Sender: "a", Text: "of " + tenant}
		change := &tier.Change{Tenant: tenant, Row: &im.Conversation{Conv: "p:a:b", Version: 1, Messages: []*im.Message{m}}}
		var got im.Conversation
		if err := got.Unmarshal(e.change(change)); err != nil {
			t.Fatal(err)
		}
		if got.Messages[0].Text != m.Text {
			t.Errorf("tenant %s is sent %q", tenant, got.Messages[0].Text)
		}
	}
}

// A push costs the memory of what goes out, whatever the number of devices and members.
func TestEncoderAllocatesOncePerRow(t *testing.T) {
	m := &im.Message{Conv: "p:a:b", Seq: 1, Sender: "a", Text: "hello"}
	rows := []*tier.Change{
		{Tenant: "acme", Uid: "a", Row: &im.Conversation{Conv: "p:a:b", Version: 1, Messages: []*im.Message{m}}},
		{Tenant: "acme", Uid: "b", Row: &im.Conversation{Conv: "p:a:b", Version: 9, Messages: []*im.Message{m}}},
	}
	e := &encoder{}
	e.change(rows[0])
	got := testing.AllocsPerRun(100, func() {
		for _, c := range rows {
			for range 3 { // devices
				e.change(c)
			}
		}
	})
	if got > 2*2 { // a row, and its copy without messages
		t.Errorf("%v allocations for two rows", got)
	}
}
