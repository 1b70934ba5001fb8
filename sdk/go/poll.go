package hongyan

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
	"hongyan/sdk/go/core"
)

// pollConn makes a long-poll session look like a connection: AUTH opens it, commands go
// by requests of their own, one after the other, and what polls bring comes as PUSH,
// NOTICE, TYPING and KICK. The cursor of the last PUSH_ACK goes with the next poll.
//
//	Write -> queue -> commands() -> POST open, send      \
//	                  polls()    -> POST poll, poll, ...  -> inbox -> Read
type pollConn struct {
	base   *url.URL
	http   *http.Client
	json   *wire.JSON
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	owned  sync.WaitGroup // commands, polls

	queue chan Frame // written, to be sent; 256, full = the server does not get on: Write fails
	inbox chan Frame // to be read; 64, full = the reader is slow: the producers wait
	moved chan struct{}

	mu     sync.Mutex
	sid    string
	hold   time.Duration
	epoch  uint64 // of cursor
	cursor uint64 // what the next poll confirms
	ended  error  // why, for Read
}

const (
	// pollTries is how often a poll is repeated after an error before the session is
	// given up: a lost response is read again by its cursor.
	pollTries = 3
	// pollSlack is how much longer than its hold a poll may take.
	pollSlack = 20 * time.Second
	// commandTimeout of one command, in which the server may be busy.
	commandTimeout = 30 * time.Second
	// ackPatience is how long a poll waits for what the last one brought to be stored.
	ackPatience = 5 * time.Second
)

func dialPoll(ctx context.Context, endpoint *url.URL, secure *tls.Config) (Conn, error) {
	codec, err := wire.NewJSON()
	if err != nil {
		return nil, err
	}
	p := &pollConn{
		base: endpoint, json: codec.Lenient(),
		// Its own connections: one for the poll, one for commands, gone with the session.
		http: &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, TLSClientConfig: secure.Clone(), ForceAttemptHTTP2: true,
		}},
		queue: make(chan Frame, 256), inbox: make(chan Frame, 64), moved: make(chan struct{}, 1),
	}
	if err := p.reach(ctx); err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.owned.Go(p.commands)
	return p, nil
}

// reach finds out whether there is a server, so that the next endpoint can be tried: any
// answer will do.
func (p *pollConn) reach(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, p.base.JoinPath("/").String(), nil)
	if err != nil {
		return err
	}
	rsp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	return rsp.Body.Close()
}

// AckAtOnce: the cursor goes with the next poll, which should not wait.
func (p *pollConn) AckAtOnce() bool { return true }

func (p *pollConn) Read(into []Frame) ([]Frame, error) {
	select {
	case f := <-p.inbox:
		into = append(into, f)
	case <-p.ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended != nil {
			return into, p.ended
		}
		return into, io.EOF
	}
	for {
		select {
		case f := <-p.inbox:
			into = append(into, f)
		default:
			return into, nil
		}
	}
}

func (p *pollConn) Write(frames []Frame) error {
	for _, f := range frames {
		if f.Cmd == im.Cmd_PUSH_ACK {
			p.ack(f.Body)
			continue
		}
		select {
		case p.queue <- f:
		default:
			return errors.New("long poll: the server does not take commands")
		}
	}
	return nil
}

func (p *pollConn) ack(body []byte) {
	var a im.PushAck
	if a.Unmarshal(body) != nil {
		return
	}
	p.mu.Lock()
	p.epoch, p.cursor = a.Epoch, a.Cursor
	p.mu.Unlock()
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// Close ends the session; the server is told, as well as it goes in a second.
func (p *pollConn) Close(code.Code, string) error {
	p.mu.Lock()
	sid := p.sid
	p.sid = ""
	p.mu.Unlock()
	p.cancel()
	p.owned.Wait()
	if sid != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), time.Second)
		defer cancel()
		body, _ := json.Marshal(map[string]string{"sid": sid})
		_, _ = p.post(ctx, "close", body)
	}
	p.http.CloseIdleConnections()
	return nil
}

// fail ends the session from within.
func (p *pollConn) fail(err error) {
	p.mu.Lock()
	if p.ended == nil {
		p.ended = err
	}
	p.mu.Unlock()
	p.cancel()
}

// give hands a frame to the reader.
func (p *pollConn) give(f Frame) {
	select {
	case p.inbox <- f:
	case <-p.ctx.Done():
	}
}

func (p *pollConn) answer(to *Frame, body message) {
	b, _ := body.Marshal(nil) // made here: cannot fail
	p.give(Frame{Cmd: to.Cmd, Flags: wire.FlagResponse, Seq: to.Seq, Body: b})
}

func (p *pollConn) refuse(to *Frame, err error) {
	e := code.From(err)
	b, _ := (&im.Error{Code: uint32(e.Code), Name: e.Code.Name(), Message: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds())}).Marshal(nil)
	p.give(Frame{Cmd: to.Cmd, Flags: wire.FlagResponse, Status: e.Code, Seq: to.Seq, Body: b})
}

type message interface {
	Marshal([]byte) ([]byte, error)
	Unmarshal([]byte) error
}

// commands sends what was written, in order.
func (p *pollConn) commands() {
	for {
		select {
		case f := <-p.queue:
			p.command(&f)
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *pollConn) command(f *Frame) {
	switch f.Cmd {
	case im.Cmd_HELLO:
		p.answer(f, &im.HelloAck{Suite: "plain"})
	case im.Cmd_PING: // polls are the heartbeat
		p.answer(f, &im.Pong{})
	case im.Cmd_AUTH:
		p.open(f)
	default:
		p.send(f)
	}
}

// open logs in and starts polling.
func (p *pollConn) open(f *Frame) {
	var auth im.Auth
	if err := auth.Unmarshal(f.Body); err != nil {
		p.refuse(f, err)
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, commandTimeout)
	defer cancel()
	rsp := &im.LpOpenRsp{}
	err := p.call(ctx, "open", "LpOpen", &im.LpOpen{
		Token: auth.Token, Epoch: auth.Epoch, Cursor: auth.Cursor,
		ConnectionCounter: auth.ConnectionCounter, Device: auth.Device, Platform: auth.Platform,
	}, "LpOpenRsp", rsp)
	if err == nil && rsp.Auth == nil {
		err = code.Errorf(code.Internal, "the server opened a session without AUTH_ACK")
	}
	if err != nil {
		p.refuse(f, err)
		return
	}
	p.mu.Lock()
	p.sid, p.hold = rsp.Sid, time.Duration(rsp.HoldS)*time.Second
	p.epoch, p.cursor = auth.Epoch, auth.Cursor
	p.mu.Unlock()
	p.answer(f, rsp.Auth)
	p.owned.Go(p.polls)
}

// frameText is a response frame in its text form; fields unknown here are skipped.
type frameText struct {
	Status uint16          `json:"status"`
	Body   json.RawMessage `json:"body"`
}

func (p *pollConn) send(f *Frame) {
	text, err := p.json.EncodeText(f)
	if err != nil {
		p.refuse(f, err)
		return
	}
	p.mu.Lock()
	sid, _ := json.Marshal(p.sid)
	p.mu.Unlock()
	body := fmt.Appendf(nil, `{"sid":%s,"command":%s}`, sid, text)
	ctx, cancel := context.WithTimeout(p.ctx, commandTimeout)
	defer cancel()
	got, err := p.post(ctx, "send", body)
	if f.Flags&wire.FlagOneWay != 0 {
		return
	}
	rsp := Frame{Cmd: f.Cmd, Flags: wire.FlagResponse, Seq: f.Seq}
	var t frameText
	if err == nil {
		err = json.Unmarshal(got, &t)
	}
	if err == nil {
		rsp.Status = code.Code(t.Status)
		rsp.Body, err = p.toProto(wire.BodyType(&rsp), t.Body)
	}
	if err != nil {
		p.refuse(f, err)
		return
	}
	p.give(rsp)
}

func (p *pollConn) toProto(msgType string, body []byte) ([]byte, error) {
	if msgType == "" {
		return nil, nil
	}
	return p.json.ToProto(msgType, body)
}

// polls keeps one poll under way.
func (p *pollConn) polls() {
	for n, failures := uint64(1), 0; p.ctx.Err() == nil; n++ {
		p.mu.Lock()
		req := &im.LpPoll{Sid: p.sid, N: n, Epoch: p.epoch, Cursor: p.cursor}
		hold := p.hold
		p.mu.Unlock()
		rsp := &im.LpPollRsp{}
		ctx, cancel := context.WithTimeout(p.ctx, hold+pollSlack)
		err := p.call(ctx, "poll", "LpPoll", req, "LpPollRsp", rsp)
		cancel()
		if err == nil {
			failures = 0
			p.polled(rsp)
			continue
		}
		if c := code.Of(err); core.Final(c) || failures == pollTries {
			p.fail(err)
			return
		}
		p.sleep(core.Backoff(failures, code.From(err).RetryAfter, rand.Float64()))
		failures++
	}
}

func (p *pollConn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// polled hands on what a poll brought, and waits until it is confirmed: a poll with the old
// cursor would only bring it again.
func (p *pollConn) polled(rsp *im.LpPollRsp) {
	push := func(cmd im.Cmd, body message) {
		b, _ := body.Marshal(nil) // decoded a moment ago: cannot fail
		p.give(Frame{Cmd: cmd, Flags: wire.FlagOneWay, Body: b})
	}
	for _, t := range rsp.Typing {
		push(im.Cmd_TYPING, t)
	}
	for _, a := range rsp.Announcements {
		push(im.Cmd_ANNOUNCE, a)
	}
	if len(rsp.Changes) > 0 {
		push(im.Cmd_PUSH, &im.Push{Epoch: rsp.Epoch, Changes: rsp.Changes})
	}
	if rsp.Sync {
		push(im.Cmd_NOTICE, &im.Notice{What: im.Notice_SYNC})
	}
	if rsp.Kick != nil {
		push(im.Cmd_KICK, rsp.Kick)
		<-p.ctx.Done() // the core closes
		return
	}
	if rsp.Superseded {
		p.sleep(time.Second) // not by us: someone has copied the sid
	}
	if len(rsp.Changes) > 0 {
		p.confirmed(rsp.Epoch, rsp.NextCursor)
	}
}

func (p *pollConn) confirmed(epoch, cursor uint64) {
	t := time.NewTimer(ackPatience)
	defer t.Stop()
	for {
		p.mu.Lock()
		done := p.epoch != epoch || p.cursor >= cursor
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-p.moved:
		case <-t.C:
			return
		case <-p.ctx.Done():
			return
		}
	}
}

// call posts one protobuf message as JSON and decodes the answer.
func (p *pollConn) call(ctx context.Context, path, inType string, in message, outType string, out message) error {
	b, err := in.Marshal(nil)
	if err != nil {
		return err
	}
	text, err := p.json.FromProto("hongyan.im."+inType, b)
	if err != nil {
		return err
	}
	got, err := p.post(ctx, path, text)
	if err != nil {
		return err
	}
	b, err = p.json.ToProto("hongyan.im."+outType, got)
	if err != nil {
		return fmt.Errorf("answer to %s: %w", path, err)
	}
	return out.Unmarshal(b)
}

// post sends one request. An error of the server comes as *code.Error; a lost request or
// answer is Unavailable, or UnknownOutcome where it may have been done.
func (p *pollConn) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base.JoinPath("v1/lp", path).String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	rsp, err := p.http.Do(req)
	if err != nil {
		return nil, code.Errorf(code.UnknownOutcome, "long poll %s: %w", path, err)
	}
	defer func() { _ = rsp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(rsp.Body, 8*maxBody))
	if err != nil {
		return nil, code.Errorf(code.UnknownOutcome, "long poll %s: %w", path, err)
	}
	if rsp.StatusCode != http.StatusOK {
		return nil, httpError(rsp, got)
	}
	return got, nil
}

// httpError reads {code, message, ...}; what stands between client and server answers in
// its own ways.
func httpError(rsp *http.Response, body []byte) error {
	var e struct {
		Code         uint32 `json:"code"`
		Message      string `json:"message"`
		RetryAfterMS uint32 `json:"retry_after_ms"`
	}
	if json.Unmarshal(body, &e) == nil && e.Code != 0 {
		return &code.Error{
			Code: code.Code(e.Code), Message: e.Message,
			RetryAfter: time.Duration(e.RetryAfterMS) * time.Millisecond,
		}
	}
	err := code.Errorf(code.Unavailable, "%s answered %s", rsp.Request.URL.Host, strings.TrimSpace(rsp.Status))
	if s, _ := strconv.Atoi(rsp.Header.Get("Retry-After")); s > 0 {
		err.RetryAfter = time.Duration(min(s, 300)) * time.Second
	}
	return err
}
