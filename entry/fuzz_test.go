package entry_test

import (
	"errors"
	"io"
	"testing"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// FuzzInput writes arbitrary bytes into a connection, in pieces: nothing panics, what comes
// back are frames, and a connection that the server closes is told a close code last.
func FuzzInput(f *testing.F) {
	frame := func(cmd im.Cmd, codec wire.Codec, body []byte) []byte {
		return wire.Append(nil, &wire.Frame{Cmd: cmd, Seq: 1, Codec: codec, Body: body})
	}
	auth := frame(im.Cmd_AUTH, wire.CodecProto, encode(f, &im.Auth{Token: "alice/d1"}))
	f.Add(auth, uint16(3), false)
	f.Add(append(auth, frame(im.Cmd_SEND, wire.CodecJSON, []byte(`{"text":"hi"}`))...), uint16(100), false)
	f.Add(frame(im.Cmd_HELLO, wire.CodecJSON, []byte(`{"device":"d"}`)), uint16(7), false)
	f.Add(frame(im.Cmd_SYNC, wire.CodecProto, encode(f, &im.Sync{Cursor: 1 << 63})), uint16(7), true)
	f.Add([]byte{0xA7, 0x1F, 0xff, 0xff, 0xff}, uint16(1), true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(5), false)
	f.Add([]byte("\xa7\x140\x01"), uint16(39), false) // makes JSON of the PING behind it
	json, err := wire.NewJSON()
	if err != nil {
		f.Fatal(err)
	}
	s, _, _ := serve(f, nil)
	f.Fuzz(func(t *testing.T, in []byte, piece uint16, login bool) {
		c := dial(t, s)
		defer c.conn.Close()
		if login {
			c.login("alice")
		}
		for rest := in; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			if _, err := c.conn.Write(rest[:n]); err != nil {
				break // closed meanwhile
			}
			rest = rest[n:]
		}
		_, _ = c.conn.Write(frame(im.Cmd_PING, wire.CodecProto, nil)) // answered unless it ends a half frame
		if tcp, ok := c.conn.(interface{ CloseWrite() error }); ok {
			_ = tcp.CloseWrite()
		}
		for {
			got, err := c.read()
			if err != nil {
				if !errors.Is(err, io.EOF) && code.Of(err) != code.Internal {
					t.Errorf("what the server wrote is no frame: %v", err)
				}
				return
			}
			if got.Cmd != im.Cmd_ERROR {
				continue
			}
			if got.Codec == wire.CodecJSON {
				if got.Body, err = json.ToProto(wire.BodyType(&got), got.Body); err != nil {
					t.Fatal(err)
				}
			}
			var e im.Error
			err = e.Unmarshal(got.Body)
			refused := code.Code(e.Code) == code.Unsupported // a frame was, and the connection goes on
			if err != nil || !refused && code.Code(e.Code) < code.CloseShutdown || e.Name == "" {
				t.Errorf("closed with %+v, %v", e, err)
			}
		}
	})
}
