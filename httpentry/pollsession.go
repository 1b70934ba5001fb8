package httpentry

import (
	"context"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/gate"
	"hongyan/internal/wire"
)

// pollSession is one long-poll client, a gate.Transport that keeps what is pushed until a
// poll takes it, and beyond, until the next poll's cursor says that it arrived.
//
//	         something comes           gather over, hold over
//	held --------------------> gathering --------------------> away
//	 ^                                                          |
//	 +------------------------ a poll --------------------------+--> ended: no poll for
//	                                                                 hold + linger
//
// Locks: the gate calls Send under the lock of its Conn, so no method of conn is called
// while mu is held.
type pollSession struct {
	all  *pollers
	id   sid
	conn *gate.Conn
	hold time.Duration

	receiving sync.Mutex // conn.Receive wants one frame at a time

	mu      sync.Mutex
	over    *code.Error // why the session ended; nil = it lives
	opening bool        // the login has not been answered
	waiting map[uint32]func(wire.Frame)
	seq     uint32 // of the last request

	// The poll that is held.
	held      waiter
	gathering bool
	n         uint64 // of the newest poll
	holds     time.Duration
	timer     *time.Timer
	dueAt     time.Time

	// What waits for a poll, or for the next poll's cursor.
	acked   position // what the newest poll's cursor says
	told    position // what the gate was told of it
	epoch   uint64
	changes []*im.Conversation // ascending version
	bytes   int
	repeats int  // answers in a row that moved no cursor
	behind  bool // something was dropped, or the gate says so: the client must SYNC
	typing  []*im.Typing
	said    []*im.Announcement
	kick    *im.Kick
}

var _ gate.Transport = (*pollSession)(nil)

const (
	// maxTyping notices wait for a poll; more are dropped, the oldest first.
	maxTyping = 16
	// maxSaid online notices wait for a poll; more are dropped, the oldest first.
	maxSaid = 16
	// maxRepeats answers with the same changes, then the client is told to SYNC: it cannot use them.
	maxRepeats = 3
)

// ack passes on what a poll's cursor confirms, and that the client is there. A newer poll with
// a lower cursor is that of a client that was told to reset: what he has counts from there. An
// older one says nothing.
func (s *pollSession) ack(n, epoch, cursor uint64) {
	s.conn.Heard()
	at := position{epoch, cursor}
	s.mu.Lock()
	if n > s.n && at.before(s.acked) {
		s.acked, s.told, s.repeats = at, at, 0
	}
	news := !s.opening && n >= s.n && s.told.before(at)
	if news {
		s.told = at
	}
	s.mu.Unlock()
	if news {
		body, _ := (&im.PushAck{Epoch: epoch, Cursor: cursor}).Marshal(nil) // flat: cannot fail
		s.receive(wire.Frame{Cmd: im.Cmd_PUSH_ACK, Flags: wire.FlagOneWay, Body: body})
	}
}

// opened starts a session whose login was answered: the first poll is expected.
func (s *pollSession) opened(at position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening = false
	if s.acked.before(at) {
		s.acked, s.told = at, at
	}
	if s.held == nil {
		s.armLocked(s.hold + s.all.cfg.Linger)
	}
}

// begin holds the poll that takes a session over, until the login is answered. False: the
// session has ended already, and the poll was answered.
func (s *pollSession) begin(req *im.LpPoll, w waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		w.answer(nil, asRequestError(s.over), true)
		return false
	}
	s.acked = position{req.Epoch, req.Cursor}
	s.told = s.acked
	s.holdLocked(req, w)
	return true
}

func (s *pollSession) receive(f wire.Frame) {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	s.conn.Receive(f)
}

// poll takes over from an older poll, and is answered at once if there is something.
func (s *pollSession) poll(req *im.LpPoll, w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over != nil:
		w.answer(s.emptyLocked(), nil, false)
		return
	case req.N < s.n:
		w.answer(&im.LpPollRsp{Superseded: true, Epoch: req.Epoch, NextCursor: req.Cursor}, nil, false)
		return
	}
	s.ackedLocked(position{req.Epoch, req.Cursor})
	s.holdLocked(req, w)
	if !s.opening && s.somethingLocked() {
		s.answerLocked(false)
	}
}

// ackedLocked forgets what the client has.
func (s *pollSession) ackedLocked(at position) {
	if s.acked.before(at) {
		s.acked, s.repeats = at, 0
	}
	for len(s.changes) > 0 && !s.acked.before(position{s.epoch, s.changes[0].Version}) {
		s.bytes -= weight(s.changes[0])
		s.changes[0], s.changes = nil, s.changes[1:]
	}
	if len(s.changes) == 0 {
		s.changes, s.bytes = nil, 0
	}
}

// holdLocked makes w the session's one poll.
func (s *pollSession) holdLocked(req *im.LpPoll, w waiter) {
	if s.held != nil {
		s.held.answer(&im.LpPollRsp{Superseded: true, Epoch: s.acked.epoch, NextCursor: s.acked.version}, nil, false)
	} else {
		s.all.held(+1)
	}
	s.held, s.n, s.gathering = w, req.N, false
	s.holds = s.all.clampHold(req.HoldS, s.hold)
	s.armLocked(s.all.jitter(s.holds))
}

func (s *pollSession) somethingLocked() bool {
	return len(s.changes) > 0 || s.behind || len(s.typing)+len(s.said) > 0 || s.kick != nil
}

// answerLocked answers the held poll with all there is. Changes stay until they are acked.
func (s *pollSession) answerLocked(last bool) {
	rsp := s.emptyLocked()
	if len(s.changes) > 0 {
		if s.repeats++; s.repeats > maxRepeats {
			s.changes, s.bytes, s.repeats, s.behind = nil, 0, 0, true
		} else {
			rsp.Changes = append([]*im.Conversation(nil), s.changes...)
			rsp.Epoch, rsp.NextCursor = s.epoch, s.changes[len(s.changes)-1].Version
		}
	}
	rsp.Sync, rsp.Typing, rsp.Announcements, rsp.Kick = s.behind, s.typing, s.said, s.kick
	s.behind, s.typing, s.said = false, nil, nil
	s.releaseLocked(rsp, nil, last)
}

func (s *pollSession) emptyLocked() *im.LpPollRsp {
	return &im.LpPollRsp{Epoch: s.acked.epoch, NextCursor: s.acked.version}
}

// releaseLocked ends the held poll. From here the next one has hold + linger to come.
func (s *pollSession) releaseLocked(rsp *im.LpPollRsp, err error, last bool) {
	w := s.held
	s.held, s.gathering = nil, false
	s.all.held(-1)
	s.armLocked(s.holds + s.all.cfg.Linger)
	w.answer(rsp, err, last)
}

// abandon is called when the client of a held poll has gone.
func (s *pollSession) abandon(w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != w {
		return
	}
	s.held, s.gathering = nil, false
	s.all.held(-1)
	s.armLocked(s.holds + s.all.cfg.Linger)
}

func (s *pollSession) armLocked(after time.Duration) {
	if s.over != nil {
		return
	}
	s.dueAt = time.Now().Add(after)
	if s.timer == nil {
		s.timer = time.AfterFunc(after, s.onTimer)
		return
	}
	s.timer.Reset(after)
}

// onTimer ends what the session is in: gathering, holding, or being away.
func (s *pollSession) onTimer() {
	s.mu.Lock()
	switch {
	case s.over != nil:
	case time.Now().Before(s.dueAt): // it was armed anew while it fired
	case s.held != nil:
		s.answerLocked(false)
	default:
		s.mu.Unlock()
		s.end("no poll came")
		return
	}
	s.mu.Unlock()
}

// Send implements gate.Transport.
func (s *pollSession) Send(frames []wire.Frame) {
	s.mu.Lock()
	var answered []func()
	for i := range frames {
		if done := s.takeLocked(frames[i]); done != nil {
			answered = append(answered, done)
		}
	}
	switch {
	case s.over != nil || s.held == nil || s.opening || !s.somethingLocked():
	case s.kick != nil:
		s.answerLocked(false)
	case !s.gathering:
		s.gathering = true
		s.armLocked(s.all.cfg.Gather)
	}
	s.mu.Unlock()
	for _, done := range answered {
		done()
	}
}

// takeLocked keeps one frame. A response is handed to who asked, by the function returned.
func (s *pollSession) takeLocked(f wire.Frame) (done func()) {
	if s.over != nil {
		return nil
	}
	if f.Flags&wire.FlagResponse != 0 {
		if ask := s.waiting[f.Seq]; ask != nil {
			s.stopWaitingLocked(f.Seq)
			return func() { ask(f) }
		}
		return nil
	}
	switch f.Cmd {
	case im.Cmd_PUSH:
		s.pushLocked(f.Body)
	case im.Cmd_NOTICE:
		s.behind = true
	case im.Cmd_TYPING:
		t := new(im.Typing)
		if t.Unmarshal(f.Body) == nil {
			s.typing = append(s.typing, t)
			s.typing = s.typing[max(0, len(s.typing)-maxTyping):]
		}
	case im.Cmd_ANNOUNCE:
		a := new(im.Announcement)
		if a.Unmarshal(f.Body) == nil {
			s.said = append(s.said, a)
			s.said = s.said[max(0, len(s.said)-maxSaid):]
		}
	case im.Cmd_KICK:
		k := new(im.Kick)
		if k.Unmarshal(f.Body) == nil {
			s.kick = k
		}
	}
	return nil
}

// pushLocked keeps the changes of a push that are new: the gate sends again what was not
// acknowledged in time.
func (s *pollSession) pushLocked(body []byte) {
	push := new(im.Push)
	if push.Unmarshal(body) != nil {
		s.behind = true
		return
	}
	if push.Epoch != s.epoch && len(s.changes) > 0 { // positions of another epoch do not mix
		s.changes, s.bytes, s.behind = nil, 0, true
	}
	s.epoch = push.Epoch
	for _, c := range push.Changes {
		newest := s.acked
		if n := len(s.changes); n > 0 {
			newest = position{s.epoch, s.changes[n-1].Version}
		}
		switch at := (position{s.epoch, c.Version}); {
		case !s.acked.before(at):
			s.told = position{} // perhaps: what told the gate was refused, and goes out again with the next poll
			continue
		case !newest.before(at):
			continue
		}
		s.changes = append(s.changes, c)
		s.bytes += weight(c)
	}
	if s.bytes > s.all.cfg.MaxBuffered {
		s.changes, s.bytes, s.behind = nil, 0, true
	}
}

// weight of a change in the buffer, bytes, roughly.
func weight(c *im.Conversation) int {
	n := 256
	for _, m := range c.Messages {
		n += 256 + len(m.Text) + len(m.Data)
	}
	return n
}

// Queued implements gate.Transport. The buffer has its own bound, and is not slow for being
// full between two polls.
func (s *pollSession) Queued() int { return 0 }

// Close implements gate.Transport. After 43xx and 45xx the client polls on, which logs in
// again, here or elsewhere; after 44xx it is told so and the sid is done for.
func (s *pollSession) Close(c code.Code, reason string) {
	s.mu.Lock()
	if s.over != nil {
		s.mu.Unlock()
		return
	}
	var kick *im.Kick
	if c >= code.CloseBadToken && c < code.CloseProtocolError {
		if kick = s.kick; kick == nil {
			kick = &im.Kick{Code: uint32(c), Reason: reason, AtMs: time.Now().UnixMilli()}
		}
	}
	s.kick = kick
	failed := s.finishLocked(code.Errorf(c, "%s", reason), c == code.CloseShutdown)
	s.mu.Unlock()
	s.all.forget(s, kick)
	failed()
}

// end ends the session from this side.
func (s *pollSession) end(reason string) {
	s.mu.Lock()
	failed := func() {}
	if s.over == nil {
		failed = s.finishLocked(code.Errorf(code.CloseIdle, "%s", reason), false)
	}
	s.mu.Unlock()
	s.all.forget(s, nil)
	failed()
	s.conn.Closed(reason)
}

// finishLocked answers the held poll. What it returns answers the requests that wait, to be
// called without the lock.
func (s *pollSession) finishLocked(why *code.Error, last bool) (failed func()) {
	if s.held != nil {
		if s.opening && s.kick == nil {
			s.releaseLocked(nil, asRequestError(why), last)
		} else {
			s.answerLocked(last)
		}
	}
	s.over = why
	if s.timer != nil {
		s.timer.Stop()
	}
	waiting := s.waiting
	s.waiting = nil
	return func() {
		for seq, ask := range waiting {
			ask(wire.Frame{Status: asRequestError(why).Code, Seq: seq})
		}
	}
}

// asRequestError is why a request failed whose session was closed under it.
func asRequestError(why *code.Error) *code.Error {
	switch {
	case why.Code >= code.CloseBadToken && why.Code < code.CloseProtocolError:
		return code.Errorf(code.BadToken, "the session was ended: %s", why.Message)
	case why.Code >= code.CloseProtocolError:
		return code.Errorf(code.BadRequest, "%s", why.Message)
	}
	return code.Errorf(code.Unavailable, "the session ended: %s", why.Message)
}

// tookOver is called with the answer to the login of a take-over.
func (s *pollSession) tookOver(f wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil || !s.opening {
		return
	}
	s.opening = false
	if f.Status != 0 {
		if s.held != nil {
			s.releaseLocked(nil, frameError(&f), false)
		}
		return // the gate closes the session
	}
	auth := new(im.AuthAck)
	if auth.Unmarshal(f.Body) != nil || auth.Sync == nil {
		s.behind = true
	} else {
		s.caughtUpLocked(auth.Sync)
	}
	if s.held != nil && s.somethingLocked() {
		s.answerLocked(false)
	}
}

// caughtUpLocked puts what the login found into the buffer, before what was pushed since.
func (s *pollSession) caughtUpLocked(sync *im.SyncRsp) {
	if sync.MustReset || sync.More || len(sync.Modified) > 0 {
		s.behind = true
	}
	if sync.MustReset || len(sync.Changes) == 0 {
		return
	}
	pushed := s.changes
	s.epoch, s.changes, s.bytes = sync.Epoch, nil, 0
	newest := s.acked
	for _, c := range append(sync.Changes, pushed...) {
		at := position{sync.Epoch, c.Version}
		if newest.before(at) {
			s.changes, s.bytes, newest = append(s.changes, c), s.bytes+weight(c), at
		}
	}
}

// request sends a command into the session; then is called with its response.
func (s *pollSession) request(cmd im.Cmd, body message, then func(wire.Frame)) {
	encoded, err := body.Marshal(nil)
	if err != nil {
		encoded = nil // generated messages do not fail; an empty body is refused further on
	}
	s.send(wire.Frame{Cmd: cmd, Body: encoded}, then)
}

// send gives a frame its seq and puts it into the session.
func (s *pollSession) send(f wire.Frame, then func(wire.Frame)) (seq uint32) {
	s.mu.Lock()
	if s.over != nil {
		why := asRequestError(s.over)
		s.mu.Unlock()
		then(wire.Frame{Status: why.Code})
		return 0
	}
	s.seq++
	f.Seq = s.seq
	if s.waiting == nil {
		s.waiting = map[uint32]func(wire.Frame){}
	}
	s.waiting[f.Seq] = then
	s.mu.Unlock()
	s.receive(f)
	return f.Seq
}

// stopWaitingLocked forgets a request; an idle session keeps no map.
func (s *pollSession) stopWaitingLocked(seq uint32) {
	delete(s.waiting, seq)
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
}

// call is request for who can wait.
func (s *pollSession) call(ctx context.Context, cmd im.Cmd, body message) (wire.Frame, error) {
	encoded, err := body.Marshal(nil)
	if err != nil {
		return wire.Frame{}, err
	}
	return s.roundTrip(ctx, wire.Frame{Cmd: cmd, Body: encoded})
}

// roundTrip waits for the response to f. A status is returned as an error.
func (s *pollSession) roundTrip(ctx context.Context, f wire.Frame) (wire.Frame, error) {
	answer := make(chan wire.Frame, 1) // one answer, never more
	seq := s.send(f, func(rsp wire.Frame) { answer <- rsp })
	select {
	case rsp := <-answer:
		if rsp.Status != 0 {
			return rsp, frameError(&rsp)
		}
		return rsp, nil
	case <-ctx.Done():
		s.mu.Lock()
		s.stopWaitingLocked(seq)
		s.mu.Unlock()
		return wire.Frame{}, ctx.Err()
	}
}
