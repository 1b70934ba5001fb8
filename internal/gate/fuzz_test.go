package gate_test

import (
	"testing"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/gate"
	"hongyan/internal/wire"
)

// FuzzReceive: whatever frames a client writes, before or after AUTH, nothing panics, and a
// connection that is closed has a close code.
func FuzzReceive(f *testing.F) {
	frame := func(cmd im.Cmd, m message) []byte {
		return wire.Append(nil, &wire.Frame{Cmd: cmd, Seq: 1, Body: encode(f, m)})
	}
	auth := frame(im.Cmd_AUTH, &im.Auth{Token: "alice/d1", Epoch: 1, Cursor: 2})
	f.Add(frame(im.Cmd_HELLO, &im.Hello{Device: "d", Suites: []string{"plain"}}), false)
	f.Add(auth, false)
	f.Add(append(auth, auth...), false)
	f.Add(frame(im.Cmd_PUSH_ACK, &im.PushAck{Epoch: 1, Cursor: 1 << 63}), true)
	f.Add(frame(im.Cmd_SYNC, &im.Sync{Cursor: 1<<64 - 1}), true)
	f.Add(frame(im.Cmd_PING, &im.Ping{EveryS: 1<<32 - 1}), true)
	f.Add(frame(im.Cmd_SEND, &im.Send{Text: "hi"}), true)
	f.Add([]byte{0xA7, 0x14, 0xff, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80}, true)
	f.Fuzz(func(t *testing.T, in []byte, loggedIn bool) {
		inWorld(t, setup{}, func(w *world) {
			var c *client
			if loggedIn {
				c = w.login("alice", nil)
				w.down(c.push(1, "a"))
			} else {
				c = w.open(gate.Info{})
			}
			for len(in) > 0 {
				frame, n, err := wire.Decode(in, c.conn.MaxBody())
				switch {
				case err != nil && n == 0:
					c.conn.Malformed(err)
					in = nil
				case err != nil:
					c.conn.Refuse(frame.Cmd, frame.Seq, err)
				default:
					c.conn.Receive(frame)
				}
				in = in[min(n, len(in)):]
			}
			w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_NOTICE)})
			if got := c.closeCode(); got != 0 && got < code.CloseShutdown {
				t.Errorf("closed with %d", got)
			}
		})
	})
}
