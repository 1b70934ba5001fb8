package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// coder is what every generated struct can do.
type coder interface {
	Marshal([]byte) ([]byte, error)
	Unmarshal([]byte) error
}

// newStruct is the generated struct of a body, nil if there is none.
func newStruct(msgType string) coder {
	for name, m := range map[string]coder{
		"Hello": &im.Hello{}, "HelloAck": &im.HelloAck{}, "Auth": &im.Auth{}, "AuthAck": &im.AuthAck{},
		"Ping": &im.Ping{}, "Pong": &im.Pong{}, "Send": &im.Send{}, "SendAck": &im.SendAck{},
		"Push": &im.Push{}, "PushAck": &im.PushAck{}, "Notice": &im.Notice{}, "Sync": &im.Sync{},
		"SyncRsp": &im.SyncRsp{}, "History": &im.History{}, "HistoryRsp": &im.HistoryRsp{},
		"Read": &im.Read{}, "ReadAck": &im.ReadAck{}, "Typing": &im.Typing{}, "Announcement": &im.Announcement{}, "Modify": &im.Modify{},
		"Conversations": &im.Conversations{}, "ConversationsRsp": &im.ConversationsRsp{},
		"Contacts": &im.Contacts{}, "ContactsRsp": &im.ContactsRsp{}, "Presence": &im.Presence{},
		"PresenceRsp": &im.PresenceRsp{}, "Call": &im.Call{}, "CallRsp": &im.CallRsp{}, "Kick": &im.Kick{},
		"GoAway": &im.GoAway{}, "Error": &im.Error{}, "Logout": &im.Logout{}, "Unread": &im.Unread{},
		"UnreadRsp": &im.UnreadRsp{}, "Settings": &im.Settings{}, "SettingsAck": &im.SettingsAck{},
		"Block": &im.Block{}, "BlockAck": &im.BlockAck{},
	} {
		if "hongyan.im."+name == msgType {
			return m
		}
	}
	return nil
}

// Every command has a body that the contracts define, so none is forgotten in the table.
func TestEveryCommandHasItsBodies(t *testing.T) {
	j := newJSON(t)
	for name, number := range im.Cmd_value {
		cmd := im.Cmd(number)
		if cmd == im.Cmd_NONE {
			continue
		}
		if wire.RequestType(cmd) == "" {
			t.Errorf("%s has no body", name)
		}
		for _, msgType := range []string{wire.RequestType(cmd), wire.ResponseType(cmd)} {
			if msgType == "" {
				continue
			}
			if _, err := j.ToProto(msgType, []byte("{}")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if wire.RequestType(999) != "" || wire.ResponseType(999) != "" {
		t.Error("an unknown command has a body")
	}
}

func TestJSON(t *testing.T) {
	j := newJSON(t)
	t.Run("names of the .proto are understood", func(t *testing.T) {
		a, err := j.ToProto("hongyan.im.Send", []byte(`{"client_msg_id":"x","displayed_seq":7}`))
		b, _ := j.ToProto("hongyan.im.Send", []byte(`{"clientMsgId":"x","displayedSeq":"7"}`))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%x, %x, %v", a, b, err)
		}
	})
	t.Run("unknown fields of a newer peer are left out", func(t *testing.T) {
		got, err := j.FromProto("hongyan.im.Read", []byte("\x10\x05\xfa\x7f\x01x"))
		if err != nil || string(got) != `{"seq":"5"}` {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("empty is empty", func(t *testing.T) {
		if got, err := j.ToProto("hongyan.im.Ping", nil); err != nil || len(got) != 0 {
			t.Errorf("%x, %v", got, err)
		}
	})
	t.Run("other contracts", func(t *testing.T) {
		if _, err := j.ToProto("hongyan.platform.SendSystemRequest", []byte(`{"channel":"orders","to":["bob"]}`)); err != nil {
			t.Error(err)
		}
	})
	t.Run("unknown message", func(t *testing.T) {
		if _, err := j.ToProto("hongyan.im.Nothing", nil); code.Of(err) != code.Unsupported {
			t.Error(err)
		}
	})
	t.Run("protobuf that is none", func(t *testing.T) {
		for _, body := range []string{"\x08", "\x0a\x02\xff\xfe"} {
			if got, err := j.FromProto("hongyan.im.Read", []byte(body)); err == nil {
				t.Errorf("%x became %s", body, got)
			}
		}
	})
	t.Run("frames that have no text", func(t *testing.T) {
		for _, f := range []wire.Frame{
			{Cmd: 999}, {},
			{Cmd: im.Cmd_LOGOUT, Flags: wire.FlagResponse, Body: []byte("x")},
		} {
			if got, err := j.EncodeText(&f); err == nil {
				t.Errorf("%+v became %s", f, got)
			}
		}
	})
	t.Run("empty body where none is expected", func(t *testing.T) {
		for _, body := range []string{``, `,"body":{}`, `,"body":{ }`, `,"body":null`} {
			if _, err := j.DecodeText([]byte(`{"cmd":"LOGOUT","response":true`+body+`}`), 100); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDecodeAndAppendAllocateNothing(t *testing.T) {
	f := wire.Frame{Cmd: im.Cmd_SEND, Seq: 7, Body: []byte("a body")}
	raw := wire.Append(nil, &f)
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { wire.Decode(raw, 100) }); n != 0 {
		t.Errorf("Decode: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { wire.Decode(raw[:20], 100) }); n != 0 {
		t.Errorf("Decode of a part: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { wire.Append(dst, &f) }); n != 0 {
		t.Errorf("Append: %v allocations", n)
	}
}

// Decode never reads beyond the frame, keeps to the limit, and what it took apart goes
// together again.
func FuzzDecode(f *testing.F) {
	for _, v := range load[vector](f, "frames.json") {
		f.Add(fromHex(f, v.Frame))
	}
	for _, v := range load[vector](f, "bad.json") {
		f.Add(fromHex(f, v.Frame))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1024
		frame, n, err := wire.Decode(b, limit)
		switch {
		case errors.Is(err, wire.ErrShort):
			if n != 0 || len(b) >= wire.HeaderLen+limit+44 {
				t.Errorf("%d bytes are short, %d taken", len(b), n)
			}
		case err == nil:
			if n < wire.HeaderLen || n > len(b) || len(frame.Body) > limit || cap(frame.Body) != len(frame.Body) {
				t.Fatalf("%d of %d bytes, body %d", n, len(b), len(frame.Body))
			}
			again, m, err := wire.Decode(wire.Append(nil, &frame), limit)
			if err != nil || m != wire.HeaderLen+len(frame.Body) || !bytes.Equal(again.Body, frame.Body) ||
				again.Cmd != frame.Cmd || again.Seq != frame.Seq || again.Status != frame.Status {
				t.Errorf("%+v became %+v, %v", frame, again, err)
			}
		default:
			if c := code.Of(err); c != code.CloseProtocolError && c != code.CloseTooLarge && c != code.Unsupported {
				t.Errorf("error %v", err)
			}
		}
	})
}

// What DecodeText takes, EncodeText gives back, and DecodeText takes again.
func FuzzDecodeText(f *testing.F) {
	j := newJSON(f)
	for _, v := range load[vector](f, "frames.json") {
		f.Add(v.Text)
	}
	for _, v := range load[vector](f, "bad_text.json") {
		f.Add(v.Text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		frame, err := j.DecodeText([]byte(s), 4096)
		if err != nil {
			if c := code.Of(err); c != code.BadRequest && c != code.CloseTooLarge && c != code.Unsupported {
				t.Errorf("error %v", err)
			}
			return
		}
		text, err := j.EncodeText(&frame)
		if err != nil {
			t.Fatalf("%q has no text again: %v", s, err)
		}
		again, err := j.DecodeText(text, 1<<20)
		if err != nil || !bytes.Equal(again.Body, frame.Body) || again.Cmd != frame.Cmd || again.Flags != frame.Flags {
			t.Errorf("%q became %q, %v", s, text, err)
		}
	})
}

// What ToProto makes of JSON, the generated struct can read and FromProto turns back.
func FuzzToProto(f *testing.F) {
	j := newJSON(f)
	for _, v := range load[vector](f, "frames.json") {
		f.Add(strings.TrimPrefix(v.Type, "hongyan.im."), []byte(v.Body))
	}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		m := newStruct("hongyan.im." + name)
		pb, err := j.ToProto("hongyan.im."+name, body)
		if err != nil {
			if c := code.Of(err); c != code.BadRequest && c != code.Unsupported {
				t.Errorf("error %v", err)
			}
			return
		}
		if m != nil {
			if err := m.Unmarshal(pb); err != nil {
				t.Errorf("struct of %q: %v", body, err)
			}
		}
		text, err := j.FromProto("hongyan.im."+name, pb)
		if err != nil {
			t.Fatal(err)
		}
		again, err := j.ToProto("hongyan.im."+name, text)
		if err != nil || !bytes.Equal(again, pb) {
			t.Errorf("%q became %q, %v", body, text, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := wire.Append(nil, &wire.Frame{Cmd: im.Cmd_SEND, Seq: 7, Body: make([]byte, 200)})
	b.ReportAllocs()
	for b.Loop() {
		wire.Decode(raw, 4096)
	}
}

func BenchmarkText(b *testing.B) {
	j := newJSON(b)
	const send = `{"cmd":"SEND","seq":4,"body":{"clientMsgId":"0199e0a0-0000-7000-8000-000000000001","attempt":1,"to":"bob","text":"hello, Bob"}}`
	f, err := j.DecodeText([]byte(send), 4096)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			j.DecodeText([]byte(send), 4096)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			j.EncodeText(&f)
		}
	})
}
