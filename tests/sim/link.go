package sim

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/gate"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// linkOdds are how likely a frame between a device and a gateway meets what.
type linkOdds struct {
	lost     float64 // the frame alone: a middle box, a dropped push
	late     float64 // up to 500 ms, and what follows with it
	broken   float64 // the connection breaks
	halfOpen float64 // of those, the other side does not notice
}

// link is one connection between a device and a gateway: frames in order, each way with
// its own delays. The device's goroutine carries them over when their time has come.
//
// What the device wrote may still arrive after it has given the link up: the gateway reads
// its buffers to their end.
type link struct {
	device *device
	proc   *process // of the gateway
	conn   *gate.Conn
	odds   linkOdds
	pace   time.Duration // a slow reader takes so long for each frame

	mu    sync.Mutex
	rng   *rand.Rand
	up    pipe
	down  pipe
	dead  bool      // nothing travels any more
	since time.Time // dead without a word
	left  bool      // the device has turned away
	shut  bool      // the gateway has closed: after what is under way down
	stuck int       // bytes written to a dead link
}

// pipe is one direction.
type pipe struct {
	items []parcel
	last  time.Time // when the last of them arrives
}

// parcel is a frame on its way, or the end of the connection.
type parcel struct {
	at    time.Time
	frame wire.Frame
	end   bool
}

// put adds a frame behind those under way.
func (p *pipe) put(it parcel) {
	if it.at.Before(p.last) {
		it.at = p.last
	}
	p.last = it.at
	p.items = append(p.items, it)
}

// hurry lets what is under way arrive within a moment: a slow reader has become a quick one.
func (p *pipe) hurry(now time.Time) {
	soon := now.Add(time.Millisecond)
	for i := range p.items {
		if p.items[i].at.After(soon) {
			p.items[i].at = soon
		}
	}
	if p.last.After(soon) {
		p.last = soon
	}
}

// take removes what has arrived.
func (p *pipe) take(now time.Time) []parcel {
	n := 0
	for n < len(p.items) && !p.items[n].at.After(now) {
		n++
	}
	taken := p.items[:n:n]
	p.items = p.items[n:]
	return taken
}

// send puts a frame of the device on its way.
func (l *link) send(now time.Time, f wire.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putLocked(&l.up, now, f, 0)
}

func (l *link) putLocked(p *pipe, now time.Time, f wire.Frame, pace time.Duration) {
	if l.dead {
		if p == &l.down { // TCP keeps what the peer does not take
			l.stuck += max(256, wire.HeaderLen+len(f.Body))
		}
		return
	}
	late, size, lost, broken := l.rng.Float64(), l.rng.Float64(), l.rng.Float64(), l.rng.Float64()
	wait := 100*time.Microsecond + scaled(size, time.Millisecond) + pace
	if !l.device.world.cluster.calm.Load() {
		if late < l.odds.late {
			wait += scaled(size, 500*time.Millisecond)
		}
		if lost < l.odds.lost {
			l.device.world.stats.count("frame lost")
			return
		}
		if broken < l.odds.broken {
			l.device.world.stats.count("link broken")
			l.breakLocked()
			return
		}
	}
	f.Body = bytes.Clone(f.Body)
	at := now.Add(wait)
	if pace > 0 && p.last.After(now) {
		at = p.last.Add(pace)
	}
	p.put(parcel{at: at, frame: f})
}

// breakLocked ends the link for both, or for one of them only.
func (l *link) breakLocked() {
	l.dead = true
	if l.rng.Float64() < l.odds.halfOpen { // nobody hears: time-outs must find it
		l.device.world.stats.count("link half open")
		l.since = time.Now()
		return
	}
	l.endLocked()
}

// endLocked lets both sides hear of the end.
func (l *link) endLocked() {
	l.since = time.Time{}
	l.up.put(parcel{at: time.Now().Add(time.Millisecond), end: true})
	l.down.put(parcel{at: time.Now().Add(time.Millisecond), end: true})
}

// heal: the next packet is answered by a reset, and what a slow reader has not taken comes soon.
func (l *link) heal() {
	l.mu.Lock()
	now := time.Now()
	l.up.hurry(now)
	l.down.hurry(now)
	if !l.since.IsZero() {
		l.endLocked()
	}
	l.mu.Unlock()
	l.device.poke()
}

// noticedWithin is how long a device may write to a link that is dead.
const noticedWithin = time.Minute

// checkNoticed judges a device that still believes in a dead link.
func (l *link) checkNoticed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.since.IsZero() && now.Sub(l.since) > noticedWithin {
		l.device.app.violate("has not noticed for %v that its link is dead", noticedWithin)
		l.endLocked()
	}
}

// Send implements gate.Transport.
func (l *link) Send(frames []wire.Frame) {
	l.mu.Lock()
	now := time.Now()
	if !l.shut {
		for _, f := range frames {
			l.putLocked(&l.down, now, f, l.paceNow())
		}
	}
	l.mu.Unlock()
	l.device.poke()
}

// paceNow: a healed world has no slow readers.
func (l *link) paceNow() time.Duration {
	if l.device.world.cluster.calm.Load() {
		return 0
	}
	return l.pace
}

// Queued implements gate.Transport.
func (l *link) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.stuck
	now := time.Now()
	for _, it := range l.down.items {
		if it.at.After(now.Add(5 * time.Millisecond)) {
			n += max(256, wire.HeaderLen+len(it.frame.Body))
		}
	}
	return n
}

// Close implements gate.Transport.
func (l *link) Close(code.Code, string) {
	l.mu.Lock()
	if !l.shut {
		l.shut = true
		l.down.put(parcel{at: time.Now().Add(time.Millisecond), end: true})
	}
	l.mu.Unlock()
	l.proc.detach(l)
	l.device.poke()
}

// reset: the gateway's process died.
func (l *link) reset() {
	l.mu.Lock()
	l.dead = true
	l.up.items, l.down.items = nil, nil
	if l.rng.Float64() < l.odds.halfOpen {
		l.since = time.Now()
	} else {
		l.down.put(parcel{at: time.Now().Add(time.Millisecond), end: true})
	}
	l.mu.Unlock()
	l.device.poke()
}

// leave: the device has done with the link. What it wrote before still arrives; then the
// gateway hears of the end, unless the device vanished without a word.
func (l *link) leave(silently bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
	l.down.items = nil
	if silently {
		l.dead, l.since = true, time.Now()
	} else if !l.dead {
		l.up.put(parcel{at: time.Now().Add(time.Millisecond), end: true})
	}
}

// carry moves what has arrived. It returns the frames for the device, and whether the link
// has ended for it.
func (l *link) carry(now time.Time) (frames []wire.Frame, ended bool) {
	if l.proc.paused() {
		return nil, false
	}
	l.mu.Lock()
	up, down := l.up.take(now), l.down.take(now)
	l.mu.Unlock()
	for _, it := range up {
		if it.end {
			l.proc.detach(l)
			l.conn.Closed("the device is gone")
			continue
		}
		l.conn.Heard()
		l.conn.Receive(it.frame)
	}
	for _, it := range down {
		if it.end {
			return frames, true
		}
		frames = append(frames, it.frame)
	}
	return frames, false
}

// next tells when there is something to carry, zero for never. A paused gateway's links
// are looked at when it resumes.
func (l *link) next() (next time.Time) {
	if l.proc.paused() {
		return next
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range []*pipe{&l.up, &l.down} {
		if len(p.items) > 0 && (next.IsZero() || p.items[0].at.Before(next)) {
			next = p.items[0].at
		}
	}
	return next
}

// idle: nothing will ever be carried again.
func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left && len(l.up.items) == 0
}

// tokens verifies the tokens of the simulation: tenant/uid/device.
type tokens struct{}

func (tokens) Verify(t string) (token.Claims, error) {
	part := strings.Split(t, "/")
	if len(part) != 3 {
		return token.Claims{}, &code.Error{Code: code.BadToken, Message: "three parts"}
	}
	return token.Claims{Tenant: part[0], UID: part[1], Device: part[2], ID: t, Expires: time.Now().Add(time.Hour)}, nil
}

var errDial = errors.New("cannot connect")

// dial opens a link to a gateway.
func (w *world) dial(d *device, s *seat) (*link, error) {
	c := w.cluster
	c.mu.Lock()
	p := s.proc
	c.mu.Unlock()
	if p == nil || p.paused() {
		return nil, errDial
	}
	d.dials++
	l := &link{device: d, proc: p, odds: c.profile.link, pace: d.pace, rng: newRand(c.seed, "link", d.id, string(rune(d.dials)))}
	if !p.attach(l) {
		return nil, errDial
	}
	l.conn = p.handler.(*gate.Gate).Open(l, gate.Info{IP: "10.0.0.1", Platform: d.platform, Transport: gate.TCP})
	return l, nil
}
