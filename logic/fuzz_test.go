package logic

import (
	"context"
	"testing"
	"time"

	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// FuzzCommand feeds any command word and body through the table of commands, as a client
// and as an internal system: every one is answered, none panics.
func FuzzCommand(f *testing.F) {
	w := newWorld(f, 1, 1)
	f.Cleanup(w.close)
	seed := func(cmd im.Cmd, body message) {
		b, err := body.Marshal(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint32(cmd), b, "alice", uint8(0))
	}
	seed(im.Cmd_AUTH, &im.Auth{Device: "a1", Epoch: 1, Cursor: 1 << 63, SyncLimit: 3, ModsKnown: []*im.ModsKnown{{Conv: "p:a:b", Seq: 1}}})
	seed(im.Cmd_SEND, &im.Send{ClientMsgId: "m1", Attempt: 1, To: "bob", Text: "hello", DisplayedSeq: 1 << 63})
	seed(im.Cmd_SEND, &im.Send{ClientMsgId: "m1", Attempt: 2, Conv: "p:alice:bob", Data: []byte{0}})
	seed(im.Cmd_SEND, &im.Send{Conv: "s:orders:alice", Text: "shipped"})
	seed(im.Cmd_RECALL, &im.Modify{ClientMsgId: "r1", Conv: "p:alice:bob", Seq: 1})
	seed(im.Cmd_EDIT, &im.Modify{ClientMsgId: "e1", Conv: "p:alice:bob", Seq: 1, Text: "hi"})
	seed(im.Cmd_BLOCK, &im.Block{Uid: "bob", On: true})
	seed(im.Cmd_READ, &im.Read{Conv: "p:alice:bob", Seq: 1})
	seed(im.Cmd_SETTINGS, &im.Settings{Conv: "p:alice:bob", Pinned: true, Fields: []string{"pinned"}})
	seed(im.Cmd_TYPING, &im.Typing{Conv: "p:alice:bob"})
	seed(im.Cmd_SYNC, &im.Sync{Epoch: 1, Cursor: 1})
	seed(im.Cmd_HISTORY, &im.History{Conv: "p:alice:bob", FromSeq: 1, ToSeq: 2})
	seed(im.Cmd_CONVERSATIONS, &im.Conversations{})
	seed(im.Cmd_CONTACTS, &im.Contacts{})
	seed(im.Cmd_UNREAD, &im.Unread{})
	seed(im.Cmd_PRESENCE, &im.Presence{Uids: []string{"bob"}})
	seed(im.Cmd_CALL, &im.Call{Name: "x"})
	seed(im.Cmd_LOGOUT, &im.Logout{})
	f.Fuzz(func(t *testing.T, cmd uint32, body []byte, uid string, flags uint8) {
		r := &request{
			up:     &tier.Uplink{Tenant: tenant, Uid: uid, Device: "a1", Conn: 1, Cmd: cmd, Body: body, Repeated: flags&1 != 0},
			system: flags&2 != 0, deadline: time.Now().Add(time.Minute), done: make(chan *tier.ExecuteReply, 1),
			gateway: "gw", boot: "gwboot",
		}
		l := w.logics[0]
		if l.command(cmd) == nil {
			l.packet(r, time.Now())
		} else {
			l.serve(context.Background(), r)
		}
		select {
		case <-r.done:
		case <-time.After(20 * time.Second):
			t.Fatalf("command %d of %q was not answered", cmd, uid)
		}
	})
}

// FuzzEvents feeds any event of a gateway, and any batch of other tiers, through their decoders.
func FuzzEvents(f *testing.F) {
	w := newWorld(f, 1, 1)
	f.Cleanup(w.close)
	l := w.logics[0]
	change := &tier.Change{Tenant: tenant, Uid: "bob", Epoch: 1, Owner: "boot0", Deliver: 1, Entries: 1,
		Row: &im.Conversation{Conv: "p:alice:bob", Version: 1, Messages: []*im.Message{{Conv: "p:alice:bob", Seq: 1, Text: "x"}}}}
	for kind, m := range []message{
		&tier.UplinkBatch{Items: []*tier.Uplink{{Event: tier.Uplink_CURSOR, Tenant: tenant, Uid: "bob", Epoch: 1, Cursor: 7}}},
		&tier.RenewBatch{Items: []*tier.Renewal{{Tenant: tenant, Uid: "bob", Device: "b1", Cursor: 1 << 63}}},
		&tier.SettledBatch{Items: []*tier.Settled{{Id: 1}}, Changes: []*tier.Change{change}},
		&tier.DeliverBatch{Changes: []*tier.Change{change}, Typing: []*tier.TypingTo{{Tenant: tenant, Uid: "bob"}}},
		&tier.FannedOutBatch{Items: []*tier.FannedOut{{Owner: "boot0", Row: 1}}},
	} {
		b, err := m.Marshal(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		ctx := context.Background()
		switch kind % 5 {
		case 0:
			if b := new(tier.UplinkBatch); b.Unmarshal(body) == nil {
				_, _ = l.Uplink(ctx, b)
			}
		case 1:
			if b := new(tier.RenewBatch); b.Unmarshal(body) == nil {
				_, _ = l.Renew(ctx, b)
			}
		case 2:
			if b := new(tier.SettledBatch); b.Unmarshal(body) == nil {
				_, _ = l.Settled(ctx, b)
			}
		case 3:
			if b := new(tier.DeliverBatch); b.Unmarshal(body) == nil {
				_, _ = l.Deliver(ctx, b)
			}
		case 4:
			if b := new(tier.FannedOutBatch); b.Unmarshal(body) == nil {
				_, _ = l.FannedOut(ctx, b)
			}
		}
	})
}
