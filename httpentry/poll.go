package httpentry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/gate"
	"hongyan/internal/wire"
)

// pollers holds the long-poll sessions that live on this instance. It knows no HTTP: polls
// come with a waiter that is answered later, from any goroutine.
type pollers struct {
	cfg  PollConfig
	gate *gate.Gate
	keys gate.Verifier
	sids *signer
	log  *slog.Logger
	held func(delta int) // counts polls that are held

	mu       sync.Mutex
	sessions map[string]*pollSession // by sid.key
	kicked   tombstones
	stopping bool
}

// waiter is a poll that has not been answered. answer is called once, and must not block.
type waiter interface {
	answer(rsp *im.LpPollRsp, err error, last bool)
}

func newPollers(cfg PollConfig, g *gate.Gate, keys gate.Verifier, sids *signer, log *slog.Logger, held func(int)) *pollers {
	return &pollers{cfg: cfg, gate: g, keys: keys, sids: sids, log: log, held: held, sessions: map[string]*pollSession{}}
}

// open logs in with a token. It waits for the home Logic's answer, at most until ctx ends.
func (p *pollers) open(ctx context.Context, req *im.LpOpen, ip string) (*im.LpOpenRsp, error) {
	claims, err := p.keys.Verify(req.Token)
	if err != nil {
		return nil, err
	}
	id := sid{
		key: newSIDKey(), expires: claims.Expires.Unix(), tenant: claims.Tenant, uid: claims.UID,
		device: claims.Device, tokenID: claims.ID, platform: strings.Clone(req.Platform), counter: req.ConnectionCounter,
	}
	if id.device == "" {
		id.device = strings.Clone(req.Device)
	}
	s, _, err := p.start(id, ip, p.clampHold(req.HoldS, p.cfg.Hold))
	if err != nil {
		return nil, err
	}
	f, err := s.call(ctx, im.Cmd_AUTH, &im.Auth{
		Token: req.Token, Epoch: req.Epoch, Cursor: req.Cursor, ConnectionCounter: req.ConnectionCounter,
		Device: req.Device, Platform: req.Platform,
	})
	if err != nil {
		s.end("login failed")
		return nil, err
	}
	auth := new(im.AuthAck)
	if err := auth.Unmarshal(f.Body); err != nil {
		s.end("login not understood")
		return nil, err
	}
	s.opened(position{req.Epoch, req.Cursor})
	return &im.LpOpenRsp{Sid: p.sids.sign(id), HoldS: uint32(s.hold / time.Second), Auth: auth}, nil
}

// start makes a session that is not logged in yet. When another one of the same sid was
// quicker, that one is returned, and fresh is false.
func (p *pollers) start(id sid, ip string, hold time.Duration) (s *pollSession, fresh bool, err error) {
	platform := id.platform
	if platform == "" {
		platform = "web"
	}
	s = &pollSession{all: p, id: id, hold: hold, opening: true}
	s.conn = p.gate.Open(s, gate.Info{
		IP: ip, Platform: platform, Transport: gate.Poll,
		// The session's own timer ends it sooner. This is for what nobody thought of.
		Idle: 2 * (p.cfg.Ceiling + p.cfg.Linger),
	})
	p.mu.Lock()
	other := p.sessions[id.key]
	switch {
	case p.stopping:
		err = code.Errorf(code.Unavailable, "the server is stopping")
	case other == nil:
		p.sessions[id.key] = s
	}
	p.mu.Unlock()
	if err == nil && other == nil {
		return s, true, nil
	}
	s.conn.Closed("not needed")
	return other, false, err
}

// poll answers w with what is there for the session, or keeps it until something is.
func (p *pollers) poll(req *im.LpPoll, ip string, w waiter) (*pollSession, error) {
	id, err := p.sids.read(req.Sid, time.Now())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	s := p.sessions[id.key]
	kick := p.kicked.find(id.key)
	p.mu.Unlock()
	switch {
	case kick != nil:
		return nil, p.answerKicked(w, kick)
	case s != nil:
		s.ack(req.N, req.Epoch, req.Cursor)
		s.poll(req, w)
		return s, nil
	}
	return p.takeOver(id, req, ip, w)
}

func (p *pollers) answerKicked(w waiter, kick *im.Kick) error {
	w.answer(&im.LpPollRsp{Kick: kick}, nil, false)
	return nil
}

// takeOver goes on with a session that lived on another instance, or here before a restart:
// a login with the sid in the token's place, from the cursor that the poll names. What the
// login answers is what the poll is answered.
func (p *pollers) takeOver(id sid, req *im.LpPoll, ip string, w waiter) (*pollSession, error) {
	s, fresh, err := p.start(id, ip, p.clampHold(req.HoldS, p.cfg.Hold))
	if err != nil {
		return nil, err
	}
	if !fresh {
		s.ack(req.N, req.Epoch, req.Cursor)
		s.poll(req, w)
		return s, nil
	}
	if !s.begin(req, w) {
		return s, nil
	}
	s.request(im.Cmd_AUTH, &im.Auth{
		Token: req.Sid, Epoch: req.Epoch, Cursor: req.Cursor, ConnectionCounter: id.counter,
		Device: id.device, Platform: id.platform,
	}, s.tookOver)
	return s, nil
}

// find returns the session of a sid if it lives here, and what the sid says.
func (p *pollers) find(text string) (*pollSession, sid, error) {
	id, err := p.sids.read(text, time.Now())
	if err != nil {
		return nil, id, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kicked.find(id.key) != nil {
		return nil, id, code.Errorf(code.BadToken, "this session was ended by the server")
	}
	return p.sessions[id.key], id, nil
}

func (p *pollers) forget(s *pollSession, kick *im.Kick) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[s.id.key] == s {
		delete(p.sessions, s.id.key)
	}
	if kick != nil {
		p.kicked.add(s.id.key, kick)
	}
}

// stop refuses new sessions; those that are here end with the gate.
func (p *pollers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
}

func (p *pollers) clampHold(seconds uint32, otherwise time.Duration) time.Duration {
	if seconds == 0 {
		return otherwise
	}
	return min(max(time.Duration(seconds)*time.Second, p.cfg.MinHold), p.cfg.MaxHold)
}

// jitter stretches or cuts a hold at random, so that polls that began together do not end together.
func (p *pollers) jitter(hold time.Duration) time.Duration {
	spread := 1 + p.cfg.Jitter*(2*rand.Float64()-1)
	return min(time.Duration(float64(hold)*spread), p.cfg.Ceiling)
}

// tombstones remember which sessions were ended for good, so that the sid of one that was
// kicked does not log in again by polling on. The oldest go first: it is a help for clients
// that do not listen, not a revocation.
type tombstones struct {
	kicks map[string]*im.Kick
	order []string
}

const maxTombstones = 4096

func (t *tombstones) add(key string, kick *im.Kick) {
	if t.kicks == nil {
		t.kicks = map[string]*im.Kick{}
	}
	if _, known := t.kicks[key]; !known {
		t.order = append(t.order, key)
	}
	t.kicks[key] = kick
	if len(t.order) > maxTombstones {
		delete(t.kicks, t.order[0])
		t.order = t.order[1:]
	}
}

func (t *tombstones) find(key string) *im.Kick { return t.kicks[key] }

// position is a place in a user's log; positions compare as pairs (R18).
type position struct{ epoch, version uint64 }

func (a position) before(b position) bool {
	return a.epoch < b.epoch || (a.epoch == b.epoch && a.version < b.version)
}

// frameError is what a response with a status says.
func frameError(f *wire.Frame) error {
	body := new(im.Error)
	if err := body.Unmarshal(f.Body); err != nil {
		return code.Errorf(f.Status, "%s", f.Status.Meaning())
	}
	e := code.Errorf(f.Status, "%s", strings.Clone(body.Message))
	e.RetryAfter = time.Duration(body.RetryAfterMs) * time.Millisecond
	return e
}
