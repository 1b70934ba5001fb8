package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
	"hongyan/sdk/go/core"
)

// device is one installation of a user: the real state machine of the SDK, driven by one
// goroutine over simulated links, and the application above it, which notes what it shows.
type device struct {
	world    *world
	tenant   string
	uid      string
	id       string // unique in the simulation
	platform string
	pace     time.Duration // a slow reader takes so long for each frame
	rng      *rand.Rand    // of the user's doings
	luck     *rand.Rand    // of crashes and reconnects
	pokes    chan struct{} // capacity 1
	plan     []action      // ascending

	disk  *core.Memory // survives restarts
	app   *app         // survives restarts
	core  *core.Core
	wants bool      // to be online
	retry time.Time // of the next dial
	tries int
	out   bool // replaced or banned: stays out
	cur   *link
	old   []*link // turned away from, still carrying
	dials int
	sent  int
	calls map[uint64]func(core.Answer)
}

func (d *device) poke() {
	select {
	case d.pokes <- struct{}{}:
	default:
	}
}

// run lives until ctx ends.
func (d *device) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		next := d.step(time.Now())
		timer.Reset(max(0, time.Until(next)))
		select {
		case <-timer.C:
		case <-d.pokes:
		case <-ctx.Done():
		}
	}
	d.hangUp(false)
}

// step does what is due and tells when something will be.
func (d *device) step(now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	d.old = slices.DeleteFunc(d.old, func(l *link) bool {
		l.carry(now)
		sooner(l.next())
		return l.idle()
	})
	if d.cur != nil {
		d.cur.checkNoticed(now)
		frames, ended := d.cur.carry(now)
		for i := range frames {
			d.trace("<-", &frames[i])
			d.core.Receive(now, &frames[i])
		}
		d.perform(now)
		if ended && d.cur != nil {
			d.lost(now, 0)
		}
	}
	for len(d.plan) > 0 && !d.plan[0].at.After(now) {
		a := d.plan[0]
		d.plan = d.plan[1:]
		a.do(d, now)
		d.perform(now)
	}
	if d.wants && !d.out && d.cur == nil && !d.retry.After(now) {
		d.connect(now)
	}
	if wake := d.core.Wake(); !wake.IsZero() && !wake.After(now) {
		d.core.Tick(now)
	}
	d.perform(now)
	sooner(d.core.Wake())
	if d.cur != nil {
		sooner(d.cur.next())
	} else if d.wants && !d.out {
		sooner(d.retry)
	}
	if len(d.plan) > 0 {
		sooner(d.plan[0].at)
	}
	return next
}

// perform does what the core asks for, in the order of its contract.
func (d *device) perform(now time.Time) {
	for out := d.core.Take(); !out.Empty(); out = d.core.Take() {
		if out.Before != nil {
			d.save(out.Before)
		}
		if d.cur != nil {
			for _, f := range out.Frames {
				d.write(now, f)
			}
		}
		for _, a := range out.Answers {
			if done := d.calls[a.ID]; done != nil {
				delete(d.calls, a.ID)
				done(a)
			}
		}
		if d.crashes() {
			d.restart(now)
			return
		}
		for _, e := range out.Events {
			d.app.show(now, e)
		}
		if d.crashes() {
			d.restart(now)
			return
		}
		if out.After != nil {
			d.save(out.After)
			d.app.saved()
			d.core.Stored(now, out.N)
		}
		if out.Close != nil {
			d.lost(now, out.Close.RetryAfter)
			d.out = d.out || out.Close.Final
		}
	}
}

func (d *device) write(now time.Time, f wire.Frame) {
	// Through the codec, as on a wire: what cannot be framed is found here.
	b := wire.Append(nil, &f)
	got, _, err := wire.Decode(b, 1<<20)
	if err != nil {
		d.world.cluster.history.violate("%s wrote a frame that cannot be decoded: %v", d.id, err)
		return
	}
	d.trace("->", &got)
	d.noteWrite(&got)
	d.cur.send(now, got)
}

// noteWrite tells the history when a message was last written.
func (d *device) noteWrite(f *wire.Frame) {
	switch f.Cmd {
	case im.Cmd_SEND:
		var m im.Send
		if m.Unmarshal(f.Body) == nil {
			d.world.cluster.history.wrote(m.ClientMsgId)
		}
	case im.Cmd_RECALL, im.Cmd_EDIT:
		var m im.Modify
		if m.Unmarshal(f.Body) == nil {
			d.world.cluster.history.wrote(m.ClientMsgId)
		}
	}
}

// trace logs a frame where somebody reads the log.
func (d *device) trace(way string, f *wire.Frame) {
	if d.world.cluster.log.Enabled(context.Background(), slog.LevelDebug) {
		d.world.cluster.log.Debug("frame", "device", d.id, "way", way, "cmd", f.Cmd.String(), "seq", f.Seq, "status", f.Status.Name(), "body", bodyOf(f))
	}
}

func (d *device) save(c *core.Change) {
	if err := d.disk.Save(c); err != nil {
		d.world.cluster.history.violate("%s cannot save: %v", d.id, err)
	}
}

// crashes tells whether the application dies here, between two steps of its contract.
func (d *device) crashes() bool {
	return !d.world.cluster.calm.Load() && d.luck.Float64() < d.world.cluster.profile.people.crash
}

// restart loses all but what is on the disk.
func (d *device) restart(now time.Time) {
	d.world.stats.count("device restarted")
	d.hangUp(d.luck.Float64() < 0.5)
	saved, err := d.disk.Load()
	if err != nil {
		panic(err)
	}
	d.boot(saved)
	for _, q := range d.core.Outbox() { // it may have died between saving this and showing it
		if q.Failed != code.OK {
			d.app.failed(now, core.Failed{ClientMsgID: q.ClientMsgID, Outgoing: q.Outgoing, Err: code.Errorf(q.Failed, "before the restart")})
		}
	}
	d.retry, d.tries = now.Add(scaled(d.luck.Float64(), time.Second)), 0
}

func (d *device) boot(saved *core.Saved) {
	cfg := core.DefaultConfig()
	cfg.Device, cfg.Platform, cfg.PushToken = d.id, d.platform, "push-"+d.id
	cfg.FullHistory = d.world.cluster.profile.people.full
	cfg.Rand = d.luck.Float64
	if d.world.cluster.profile.people.smallPages {
		cfg.SyncLimit, cfg.SyncMessages = 2, 3
	}
	c, err := core.New(cfg, saved)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", d.id, err))
	}
	d.core, d.calls = c, map[uint64]func(core.Answer){}
	d.app.restarted()
}

// connect tries one gateway.
func (d *device) connect(now time.Time) {
	l, err := d.world.dial(d, d.world.gates[d.luck.IntN(len(d.world.gates))])
	if err != nil {
		d.backOff(now, 0)
		return
	}
	d.world.stats.count("connections")
	d.cur = l
	d.core.Connected(now, core.Link{Token: d.tenant + "/" + d.uid + "/" + d.id})
}

func (d *device) backOff(now time.Time, retryAfter time.Duration) {
	d.retry = now.Add(core.Backoff(d.tries, retryAfter, d.luck.Float64()))
	d.tries++
}

// lost: the connection has ended, or is to end.
func (d *device) lost(now time.Time, retryAfter time.Duration) {
	d.hangUp(false)
	d.core.Disconnected(now)
	d.backOff(now, retryAfter)
}

func (d *device) hangUp(silently bool) {
	if d.cur == nil {
		return
	}
	d.cur.leave(silently)
	d.old = append(d.old, d.cur)
	d.cur = nil
}

// call asks the server something and gives the answer to done.
func (d *device) call(now time.Time, cmd im.Cmd, body interface{ Marshal([]byte) ([]byte, error) }, reply core.Reply, done func(core.Answer)) {
	id, err := d.core.Call(now, cmd, body, reply, now.Add(20*time.Second))
	if err != nil {
		return
	}
	d.calls[id] = done
}

// begin puts a fresh installation into service.
func (d *device) begin() {
	d.disk, d.app = &core.Memory{}, newApp(d)
	d.boot(nil)
}

// healLinks: links that are dead without a word are answered by a reset. The device's
// goroutine must be asleep.
func (d *device) healLinks() {
	for _, l := range d.old {
		l.heal()
	}
	if d.cur != nil {
		d.cur.heal()
	}
}
