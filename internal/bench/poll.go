package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// pollLink makes a long-poll session look like a connection. One socket holds the poll;
// a second one, opened when it is first needed, carries commands, one after the other.
// HTTP is written by hand: ten thousand of net/http's clients would weigh more than the
// server that is measured.
type pollLink struct {
	dialer
	nc    net.Conn // of the poll
	r     *bufio.Reader
	in    chan wire.Frame // 64, full = who polls waits
	sends chan wire.Frame // 64, full = write waits

	// position is what the next poll confirms; set before AUTH is written.
	position func() (epoch, cursor uint64)

	ctx    context.Context
	cancel context.CancelCauseFunc
	owned  sync.WaitGroup

	sid              string
	reads            int // of the reader
	polling, sending sync.Once
}

// pollHold is what polls are held, in seconds: the server's default.
const pollHold = 15

func dialPoll(ctx context.Context, d dialer, readBuffer int) (link, error) {
	nc, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	l := &pollLink{
		dialer: d, nc: nc, r: bufio.NewReaderSize(nc, readBuffer),
		in: make(chan wire.Frame, 64), sends: make(chan wire.Frame, 64),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	context.AfterFunc(l.ctx, func() { _ = nc.Close() })
	return l, nil
}

// read starts polling once the answer to AUTH was taken: the first poll confirms its cursor.
func (l *pollLink) read() (wire.Frame, error) {
	if l.reads++; l.reads > 1 {
		l.polling.Do(func() { l.owned.Go(l.polls) })
	}
	select {
	case f := <-l.in:
		return f, nil
	case <-l.ctx.Done():
		return wire.Frame{}, context.Cause(l.ctx)
	}
}

func (l *pollLink) buffered() bool { return len(l.in) > 0 }

// write takes encoded frames, as the other links do. AUTH opens the session; PUSH_ACK and
// PING are what polling is anyway.
func (l *pollLink) write(frames []byte) error {
	for len(frames) > 0 {
		f, n, err := wire.Decode(frames, maxFrame)
		if err != nil {
			return fmt.Errorf("own frame: %w", err)
		}
		frames = frames[n:]
		switch f.Cmd {
		case im.Cmd_PUSH_ACK, im.Cmd_PING:
		case im.Cmd_AUTH:
			if err := l.open(&f); err != nil {
				return err
			}
		default:
			f.Body = bytes.Clone(f.Body)
			l.sending.Do(func() { l.owned.Go(l.commands) })
			select {
			case l.sends <- f:
			case <-l.ctx.Done():
				return context.Cause(l.ctx)
			}
		}
	}
	return nil
}

func (l *pollLink) close() error {
	l.cancel(net.ErrClosed)
	l.owned.Wait()
	return nil
}

func (l *pollLink) socket() net.Conn { return l.nc }

// open logs in. The answer waits to be read.
func (l *pollLink) open(f *wire.Frame) error {
	var a im.Auth
	if err := a.Unmarshal(f.Body); err != nil {
		return err
	}
	var rsp im.LpOpenRsp
	err := l.call(l.nc, l.r, "open", "LpOpen", &im.LpOpen{
		Token: a.Token, Epoch: a.Epoch, Cursor: a.Cursor, ConnectionCounter: a.ConnectionCounter,
		Device: a.Device, Platform: a.Platform, HoldS: pollHold,
	}, "LpOpenRsp", &rsp)
	if err != nil {
		return err
	}
	if rsp.Auth == nil {
		return errors.New("the server opened a session without AUTH_ACK")
	}
	body, err := rsp.Auth.Marshal(nil)
	if err != nil {
		return err
	}
	l.sid = rsp.Sid
	l.in <- wire.Frame{Cmd: im.Cmd_AUTH, Flags: wire.FlagResponse, Seq: f.Seq, Body: body}
	return nil
}

// polls keeps one poll under way.
func (l *pollLink) polls() {
	for n := uint64(1); l.ctx.Err() == nil; n++ {
		epoch, cursor := l.position()
		var rsp im.LpPollRsp
		err := l.call(l.nc, l.r, "poll", "LpPoll", &im.LpPoll{Sid: l.sid, N: n, Epoch: epoch, Cursor: cursor}, "LpPollRsp", &rsp)
		if err != nil {
			l.cancel(fmt.Errorf("poll: %w", err))
			return
		}
		l.polled(&rsp)
	}
}

func (l *pollLink) polled(rsp *im.LpPollRsp) {
	if len(rsp.Changes) > 0 {
		l.give(im.Cmd_PUSH, &im.Push{Epoch: rsp.Epoch, Changes: rsp.Changes})
		l.settle(rsp.NextCursor)
	}
	if rsp.Sync {
		l.give(im.Cmd_NOTICE, &im.Notice{})
	}
	if rsp.Kick != nil {
		l.give(im.Cmd_KICK, rsp.Kick)
	}
}

// settle waits until what came is applied: a poll with the old cursor would bring it again.
// What cannot be applied is behind a SYNC; that takes its time.
func (l *pollLink) settle(next uint64) {
	for range 50 {
		if _, cursor := l.position(); cursor >= next || l.ctx.Err() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *pollLink) give(cmd im.Cmd, b body) {
	encoded, err := b.Marshal(nil)
	if err != nil {
		l.cancel(err)
		return
	}
	select {
	case l.in <- wire.Frame{Cmd: cmd, Flags: wire.FlagOneWay, Body: encoded}:
	case <-l.ctx.Done():
	}
}

// commands sends what was written, over a socket of its own.
func (l *pollLink) commands() {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	nc, err := l.connect(ctx)
	if err != nil {
		l.cancel(err)
		return
	}
	stop := context.AfterFunc(l.ctx, func() { _ = nc.Close() })
	defer stop()
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 4096)
	for {
		select {
		case f := <-l.sends:
			if err := l.command(nc, r, &f); err != nil {
				l.cancel(err)
				return
			}
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *pollLink) command(nc net.Conn, r *bufio.Reader, f *wire.Frame) error {
	text, err := l.json.EncodeText(f)
	if err != nil {
		return err
	}
	got, err := post(nc, r, l.target.Host, "send", fmt.Appendf(nil, `{"sid":%q,"command":%s}`, l.sid, text))
	rsp := wire.Frame{Cmd: f.Cmd, Flags: wire.FlagResponse, Seq: f.Seq}
	var refused *code.Error
	switch {
	case errors.As(err, &refused):
		rsp.Status = refused.Code
		rsp.Body, err = (&im.Error{
			Code: uint32(refused.Code), Message: refused.Message, RetryAfterMs: uint32(refused.RetryAfter.Milliseconds()),
		}).Marshal(nil)
	case err == nil:
		rsp, err = l.json.DecodeText(got, maxFrame)
	}
	if err != nil {
		return err
	}
	select {
	case l.in <- rsp:
	case <-l.ctx.Done():
	}
	return nil
}

// call posts one message as JSON and decodes the answer.
func (l *pollLink) call(nc net.Conn, r *bufio.Reader, path, inType string, in body, outType string, out interface{ Unmarshal([]byte) error }) error {
	b, err := in.Marshal(nil)
	if err != nil {
		return err
	}
	if b, err = l.json.FromProto("hongyan.im."+inType, b); err != nil {
		return err
	}
	if b, err = post(nc, r, l.target.Host, path, b); err != nil {
		return err
	}
	if string(b) == "{}" {
		return nil
	}
	if b, err = l.json.ToProto("hongyan.im."+outType, b); err != nil {
		return err
	}
	return out.Unmarshal(b)
}

// post is one HTTP/1.1 request on a connection that stays open. What the server refused
// is a *code.Error.
func post(nc net.Conn, r *bufio.Reader, host, path string, body []byte) ([]byte, error) {
	req := make([]byte, 0, 160+len(body))
	req = append(req, "POST /v1/lp/"...)
	req = append(req, path...)
	req = append(req, " HTTP/1.1\r\nHost: "...)
	req = append(req, host...)
	req = append(req, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	req = strconv.AppendInt(req, int64(len(body)), 10)
	req = append(req, "\r\n\r\n"...)
	if _, err := nc.Write(append(req, body...)); err != nil {
		return nil, err
	}
	rsp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(io.LimitReader(rsp.Body, maxFrame))
	if err != nil {
		return nil, errors.Join(err, rsp.Body.Close())
	}
	if rsp.StatusCode == http.StatusOK {
		return got, rsp.Body.Close()
	}
	var e struct {
		Code    uint32 `json:"code"`
		Message string `json:"message"`
		Retry   int64  `json:"retry_after_ms"`
	}
	if json.Unmarshal(got, &e) != nil || e.Code == 0 {
		return nil, errors.Join(fmt.Errorf("%s: %s", path, rsp.Status), rsp.Body.Close())
	}
	return nil, errors.Join(&code.Error{Code: code.Code(e.Code), Message: e.Message, RetryAfter: time.Duration(e.Retry) * time.Millisecond}, rsp.Body.Close())
}
