package sim

import (
	"fmt"
	"slices"
	"time"

	"hongyan/idl/im"
	"hongyan/internal/conv"
	"hongyan/sdk/go/core"
)

// people are who uses the cluster, and how much.
type people struct {
	users      int // with devices
	quiet      int // without any: who write to them must not wait for an ack
	devices    int // at most, of one user
	sends      int
	notices    int     // of business systems
	crash      float64 // of a device, between two steps
	full       bool    // devices fetch conversations to their beginning
	smallPages bool    // of SYNC
}

// action is one thing a user does on a device.
type action struct {
	at time.Time
	do func(d *device, now time.Time)
}

// later does something at once, but not from within an event.
func (d *device) later(now time.Time, do func(now time.Time)) {
	d.schedule(action{now, func(_ *device, now time.Time) { do(now) }})
}

func (d *device) schedule(a action) {
	i, _ := slices.BinarySearchFunc(d.plan, a, func(x, y action) int {
		if x.at.After(y.at) {
			return 1
		}
		return -1
	})
	d.plan = slices.Insert(d.plan, i, a)
}

// plan draws what everybody does between start and end.
func (w *world) plan(start time.Time, length time.Duration) {
	rng := newRand(w.cluster.seed, "plan")
	p := w.cluster.profile.people
	at := func() time.Time { return start.Add(scaled(rng.Float64(), length)) }
	for _, d := range w.devices {
		come := start.Add(scaled(rng.Float64(), 2*time.Second))
		if rng.Float64() < 0.15 { // installed late
			come = at()
		}
		d.schedule(action{come, goOnline})
		for range rng.IntN(3) {
			gone := at()
			d.schedule(action{gone, goOffline(rng.Float64() < 0.3)})
			d.schedule(action{gone.Add(scaled(rng.ExpFloat64(), 12*time.Second)), goOnline})
		}
		d.schedule(action{start.Add(length), goOnline})
	}
	for left := p.sends; left > 0; {
		n := 1
		switch r := rng.Float64(); {
		case r < 0.1:
			n = 20 + rng.IntN(20)
		case r < 0.4:
			n = 2 + rng.IntN(7)
		}
		n = min(n, left)
		left -= n
		d := w.devices[rng.IntN(len(w.devices))]
		d.schedule(action{at(), burst(n)})
	}
	for range p.sends / 3 {
		d := w.devices[rng.IntN(len(w.devices))]
		d.schedule(action{at(), doings[rng.IntN(len(doings))]})
	}
}

// doings other than sending; what comes more often stands more often.
var doings = []func(*device, time.Time){
	read, read, read, read, recall, edit, recall, edit, block, unblock, unblock, pin, remark, history1, typing, unread,
}

func goOnline(d *device, now time.Time) {
	if !d.wants {
		d.wants, d.retry, d.tries = true, now, 0
	}
}

func goOffline(silently bool) func(*device, time.Time) {
	return func(d *device, now time.Time) {
		d.wants = false
		if d.cur == nil {
			return
		}
		d.hangUp(silently)
		d.core.Disconnected(now)
	}
}

// peers are whom the device's user may write to.
func (d *device) peer() string {
	list := d.world.users[d.tenant]
	for {
		if uid := list[d.rng.IntN(len(list))]; uid != d.uid {
			return uid
		}
	}
}

// burst sends n messages to one peer, or now and then to several.
func burst(n int) func(*device, time.Time) {
	return func(d *device, now time.Time) {
		peer := d.peer()
		for i := range n {
			if d.rng.Float64() < 0.1 {
				peer = d.peer()
			}
			d.send(now, peer, i)
		}
	}
}

func (d *device) send(now time.Time, peer string, i int) {
	name, err := conv.Private(d.uid, peer)
	if err != nil {
		panic(err)
	}
	d.sent++
	id := fmt.Sprintf("%s-%d", d.id, d.sent)
	s := &sent{
		id: id, tenant: d.tenant, uid: d.uid, device: d.id, conv: name, cmd: im.Cmd_SEND,
		text: fmt.Sprintf("%s|%s says %d", d.tenant, d.id, d.sent),
	}
	o := core.Outgoing{ClientMsgID: id, Text: s.text, Kind: im.Kind_TEXT}
	if d.rng.Float64() < 0.5 {
		o.To = peer
	} else {
		o.Conv = name
	}
	if i == 0 && d.rng.Float64() < 0.3 {
		o.Displayed = d.app.screen(name).last
		d.world.cluster.history.reading(d, name, o.Displayed)
	}
	d.put(now, s, o)
}

// put hands something to the outbox.
func (d *device) put(now time.Time, s *sent, o core.Outgoing) {
	if err := d.core.Send(now, o); err != nil {
		d.world.stats.count("refused by the outbox")
		return
	}
	d.world.stats.count("sent")
	d.world.cluster.history.sending(s)
}

// known is a conversation the device shows, "" for none.
func (d *device) known() string {
	var names []string
	for name, s := range d.app.convs {
		if s.last > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[d.rng.IntN(len(names))]
}

func read(d *device, now time.Time) {
	name := d.known()
	if name == "" {
		return
	}
	last := d.app.screen(name).last
	seq := last
	if d.rng.Float64() < 0.3 {
		seq = 1 + uint64(d.rng.IntN(int(last)))
	}
	if d.rng.Float64() < 0.05 {
		seq += 1000 // clamped
	}
	d.world.stats.count("reads")
	d.world.cluster.history.reading(d, name, seq)
	d.core.MarkRead(now, name, seq)
}

// own is a message of this user that can be changed, 0 for none.
func (d *device) own(name string) uint64 {
	var seqs []uint64
	for seq, e := range d.app.screen(name).entries {
		if e.sender == d.uid && e.kind < im.Kind_EVENT_RECALL {
			seqs = append(seqs, seq)
		}
	}
	if len(seqs) == 0 {
		return 0
	}
	slices.Sort(seqs)
	return seqs[d.rng.IntN(len(seqs))]
}

func recall(d *device, now time.Time) { d.modify(now, im.Cmd_RECALL) }
func edit(d *device, now time.Time)   { d.modify(now, im.Cmd_EDIT) }

func (d *device) modify(now time.Time, cmd im.Cmd) {
	name := d.known()
	if name == "" {
		return
	}
	seq := d.own(name)
	if seq == 0 {
		return
	}
	d.sent++
	id := fmt.Sprintf("%s-%d", d.id, d.sent)
	s := &sent{id: id, tenant: d.tenant, uid: d.uid, device: d.id, conv: name, cmd: cmd, target: seq}
	if cmd == im.Cmd_EDIT {
		s.text = fmt.Sprintf("%s|%s says better %d", d.tenant, d.id, d.sent)
	}
	d.world.stats.count("modifications")
	d.put(now, s, core.Outgoing{ClientMsgID: id, Cmd: cmd, Conv: name, Target: seq, Text: s.text})
}

func block(d *device, now time.Time)   { d.setBlock(now, true) }
func unblock(d *device, now time.Time) { d.setBlock(now, false) }

func (d *device) setBlock(now time.Time, on bool) {
	d.sent++
	d.world.stats.count("blocks")
	body := &im.Block{Uid: d.peer(), On: on, ClientMsgId: fmt.Sprintf("%s-%d", d.id, d.sent)}
	d.call(now, im.Cmd_BLOCK, body, &im.BlockAck{}, d.answered)
}

// answered judges the answer to a call.
func (d *device) answered(a core.Answer) {
	if a.Err != nil {
		d.world.stats.count("call " + a.Err.Code.Name())
		d.app.suspect(a.Err)
	}
}

func pin(d *device, now time.Time) {
	if name := d.known(); name != "" {
		d.setting(now, &im.Settings{Conv: name, Pinned: d.rng.Float64() < 0.5, Hidden: d.rng.Float64() < 0.1, Fields: []string{"pinned", "hidden", "remark"}})
	}
}

func remark(d *device, now time.Time) {
	if name := d.known(); name != "" {
		d.setting(now, &im.Settings{Conv: name, Muted: d.rng.Float64() < 0.5, Fields: []string{"remark", "muted"}})
	}
}

// setting changes settings, a new remark among them: two changes in one commit would
// otherwise add up to nothing, which looks like a version for nothing (R08).
func (d *device) setting(now time.Time, s *im.Settings) {
	d.sent++
	s.Remark = fmt.Sprintf("remark %s %d", d.id, d.sent)
	d.world.stats.count("settings")
	d.call(now, im.Cmd_SETTINGS, s, &im.SettingsAck{}, d.answered)
}

func history1(d *device, now time.Time) {
	if name := d.known(); name != "" {
		d.call(now, im.Cmd_HISTORY, &im.History{Conv: name, Limit: 20}, &im.HistoryRsp{}, d.answered)
	}
}

func typing(d *device, now time.Time) {
	if name := d.known(); name != "" {
		d.core.SendTyping(now, name, false)
	}
}

func unread(d *device, now time.Time) {
	d.call(now, im.Cmd_UNREAD, &im.Unread{}, &im.UnreadRsp{}, d.answered)
}
