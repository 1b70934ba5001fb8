package core

import (
	"testing"
	"time"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// FuzzReceive feeds whatever frames to a device that is logged in and has something in
// flight: no panic, the cursor never goes back but by RESET, timers come to an end.
func FuzzReceive(f *testing.F) {
	seed := func(cmd im.Cmd, flags wire.Flags, seq uint32, b body) {
		f.Add(uint16(cmd), byte(flags), uint16(0), seq, encode(b))
	}
	seed(im.Cmd_PUSH, 0, 0, &im.Push{Epoch: 1, Changes: []*im.Conversation{row(1, 3, msg(3, "a")), row(2, 4, event(4, 3, im.Kind_EVENT_RECALL, ""))}})
	seed(im.Cmd_SEND, wire.FlagResponse, 3, ackOf(1, "m"))
	seed(im.Cmd_HISTORY, wire.FlagResponse, 4, &im.HistoryRsp{Messages: []*im.Message{msg(^uint64(0), "x")}, ReadAtSeq: 9})
	seed(im.Cmd_SYNC, wire.FlagResponse, 5, &im.SyncRsp{MustReset: true, Epoch: 3, Head: 9})
	seed(im.Cmd_NOTICE, 0, 0, &im.Notice{Epoch: 1, Head: 99})
	seed(im.Cmd_KICK, 0, 0, &im.Kick{Code: 4402})
	f.Fuzz(func(t *testing.T, cmd uint16, flags byte, status uint16, seq uint32, body []byte) {
		d := newDevice(t)
		d.level(1, 0)
		d.send("m", ab)
		d.push(row(1, 5, msg(5, "five"))) // a gap to fetch
		frame := &wire.Frame{Cmd: im.Cmd(cmd), Flags: wire.Flags(flags), Status: 0, Seq: seq, Body: body}
		for range 2 {
			frame.Status = 0
			if status != 0 {
				frame.Status = 400
			}
			before := d.core.Cursor()
			d.core.Receive(d.now, frame)
			d.run()
			d.pass(time.Second)
			after := d.core.Cursor()
			if after.Epoch == before.Epoch && after.Version < before.Version && len(find[Reset](d)) == 0 {
				t.Fatalf("cursor %v -> %v", before, after)
			}
		}
		if saved, _ := d.store.Load(); saved.Validate() != nil {
			t.Fatal(saved.Validate())
		}
	})
}
