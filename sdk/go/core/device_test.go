package core

import (
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// device drives a Core as the package comment says, with a clock that tests move.
type device struct {
	t      *testing.T
	cfg    Config
	now    time.Time
	store  *Memory
	core   *Core
	frames []wire.Frame // written and not yet looked at
	events []Event
	answer []Answer
	closed *Closing
	saves  []Change // in order, Before and After alike
	lag    bool     // the application is slow: After is kept back
	kept   []Output
}

func newDevice(t *testing.T, change ...func(*Config)) *device {
	cfg := Config{Device: "phone", FullHistory: true}
	for _, fn := range change {
		fn(&cfg)
	}
	d := &device{t: t, cfg: cfg, now: time.UnixMilli(1_700_000_000_000), store: &Memory{}}
	d.restart()
	return d
}

// restart is a crash: what was not saved is gone.
func (d *device) restart() {
	d.t.Helper()
	saved, err := d.store.Load()
	if err != nil {
		d.t.Fatal(err)
	}
	if d.core, err = New(d.cfg, saved); err != nil {
		d.t.Fatal(err)
	}
	d.kept, d.closed, d.frames = nil, nil, nil
}

func (d *device) run() {
	for out := d.core.Take(); !out.Empty(); out = d.core.Take() {
		if out.Before != nil {
			d.save(out.Before)
		}
		d.frames = append(d.frames, out.Frames...)
		d.answer = append(d.answer, out.Answers...)
		d.events = append(d.events, out.Events...)
		if out.Close != nil {
			d.closed = out.Close
		}
		if out.After != nil && d.lag {
			d.kept = append(d.kept, out)
		} else if out.After != nil {
			d.save(out.After)
			d.core.Stored(d.now, out.N)
		}
	}
}

func (d *device) save(c *Change) {
	d.saves = append(d.saves, *c)
	if err := d.store.Save(c); err != nil {
		d.t.Fatal(err)
	}
}

// pass lets time pass, calling Tick as Wake asks.
func (d *device) pass(by time.Duration) {
	d.t.Helper()
	end := d.now.Add(by)
	for steps := 0; ; steps++ {
		w := d.core.Wake()
		if w.IsZero() || w.After(end) {
			break
		}
		if steps > 10_000 {
			d.t.Fatalf("timers fire without an end at %s", d.now)
		}
		if w.After(d.now) {
			d.now = w
		}
		d.core.Tick(d.now)
		d.run()
	}
	d.now = end
}

func (d *device) receive(cmd im.Cmd, b body) {
	d.core.Receive(d.now, &wire.Frame{Cmd: cmd, Flags: wire.FlagOneWay, Body: encode(b)})
	d.run()
}

func (d *device) reply(req wire.Frame, b body) {
	d.core.Receive(d.now, &wire.Frame{Cmd: req.Cmd, Flags: wire.FlagResponse, Seq: req.Seq, Body: encode(b)})
	d.run()
}

func (d *device) refuse(req wire.Frame, c code.Code, after time.Duration) {
	b := encode(&im.Error{Code: uint32(c), Name: c.Name(), RetryAfterMs: uint32(after.Milliseconds())})
	d.core.Receive(d.now, &wire.Frame{Cmd: req.Cmd, Flags: wire.FlagResponse, Status: c, Seq: req.Seq, Body: b})
	d.run()
}

// sent takes the next written frame, which must be of this command; a PUSH_ACK or PING that
// is not asked for is passed over.
func (d *device) sent(cmd im.Cmd) wire.Frame {
	d.t.Helper()
	d.run()
	for len(d.frames) > 0 && d.frames[0].Cmd != cmd && (d.frames[0].Cmd == im.Cmd_PUSH_ACK || d.frames[0].Cmd == im.Cmd_PING) {
		d.frames = d.frames[1:]
	}
	if len(d.frames) == 0 {
		d.t.Fatalf("nothing was written, want %s", cmd)
	}
	f := d.frames[0]
	d.frames = d.frames[1:]
	if f.Cmd != cmd {
		d.t.Fatalf("%s was written, want %s", f.Cmd, cmd)
	}
	return f
}

func (d *device) silent() {
	d.t.Helper()
	d.run()
	if len(d.frames) > 0 {
		d.t.Fatalf("%s was written, want nothing", d.frames[0].Cmd)
	}
}

func (d *device) body(f wire.Frame, m Reply) {
	d.t.Helper()
	if err := m.Unmarshal(f.Body); err != nil {
		d.t.Fatal(err)
	}
}

// login runs HELLO and AUTH as uid me; the server answers AUTH with sync.
func (d *device) login(sync *im.SyncRsp) im.Auth {
	d.t.Helper()
	d.core.Connected(d.now, Link{Token: "t"})
	d.reply(d.sent(im.Cmd_HELLO), &im.HelloAck{})
	f := d.sent(im.Cmd_AUTH)
	var auth im.Auth
	d.body(f, &auth)
	d.reply(f, &im.AuthAck{Uid: "me", Sync: sync})
	return auth
}

// level logs in with nothing to catch up with.
func (d *device) level(epoch, version uint64) {
	d.t.Helper()
	d.login(&im.SyncRsp{Epoch: epoch, NextCursor: version, Head: version})
}

func (d *device) sendFrame() (wire.Frame, im.Send) {
	d.t.Helper()
	f := d.sent(im.Cmd_SEND)
	var s im.Send
	d.body(f, &s)
	return f, s
}

func (d *device) send(id, conv string) {
	d.t.Helper()
	if err := d.core.Send(d.now, Outgoing{ClientMsgID: id, Conv: conv, Text: id}); err != nil {
		d.t.Fatal(err)
	}
	d.run()
}

func (d *device) push(rows ...*im.Conversation) {
	d.receive(im.Cmd_PUSH, &im.Push{Epoch: 1, Changes: rows})
}

// shown are the messages the application got, in order: "conv/seq id".
func (d *device) shown() []string {
	var list []string
	for _, e := range d.events {
		switch e := e.(type) {
		case Received:
			list = append(list, e.Message.ClientMsgId)
		case Sent:
			list = append(list, e.ClientMsgID)
		}
	}
	return list
}

func find[E Event](d *device) (found []E) {
	for _, e := range d.events {
		if e, ok := e.(E); ok {
			found = append(found, e)
		}
	}
	return found
}

const ab = "p:me:you"

func msg(seq uint64, id string) *im.Message {
	return &im.Message{Conv: ab, Seq: seq, Sender: "you", ClientMsgId: id, Kind: im.Kind_TEXT, Text: id}
}

func row(version, last uint64, ms ...*im.Message) *im.Conversation {
	return &im.Conversation{Conv: ab, Version: version, LastSeq: last, Messages: ms}
}
