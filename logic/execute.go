package logic

import (
	"context"
	"errors"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// Execute runs one command for a user through the same table and lanes as a client's
// packet and waits for its outcome: a committed write, or what was read. The error of a
// command stands in the reply; the call itself fails only when this Logic does not run.
func (l *Logic) Execute(ctx context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	if err := l.accepts(); err != nil {
		return nil, err
	}
	if err := l.checkExecute(req); err != nil {
		return refusal(err), nil
	}
	timeout := l.cfg.CommandTimeout
	if ms := req.TimeoutMs; ms > 0 && ms < timeout.Milliseconds() {
		timeout = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	r := &request{
		up: &tier.Uplink{
			Tenant: req.Tenant, Uid: req.Uid, Cmd: req.Cmd, Body: req.Body,
			RequestId: req.RequestId, Repeated: req.Repeated,
		},
		system: req.System, deadline: deadline, done: make(chan *tier.ExecuteReply, 1),
	}
	l.packet(r, time.Now())
	select {
	case reply := <-r.done:
		return reply, nil
	case <-ctx.Done():
		return refusal(code.Errorf(code.UnknownOutcome, "%s was not settled in time", r.cmd())), nil
	}
}

func (l *Logic) checkExecute(req *tier.ExecuteRequest) error {
	if err := checkTenant(req.Tenant); err != nil {
		return err
	}
	// A notice of a channel is on nobody's behalf.
	if err := conv.ValidUID(req.Uid); err != nil && !(req.System && req.Uid == "") {
		return err
	}
	if c := l.command(req.Cmd); c != nil && c.connected {
		return code.Errorf(code.Unsupported, "command %d needs a connection", req.Cmd)
	}
	return nil
}

// refusal is an error as the reply of Execute.
func refusal(err error) *tier.ExecuteReply {
	e := code.From(err)
	return &tier.ExecuteReply{Code: uint32(e.Code), Message: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds())}
}

// accepts refuses calls before Run and after it: the caller goes to another instance.
func (l *Logic) accepts() error {
	if l.state.Load() == running {
		return nil
	}
	return code.Errorf(code.Unavailable, "logic %s: %w", l.self.Addr, errNotRunning)
}

var errNotRunning = errors.New("not running")
