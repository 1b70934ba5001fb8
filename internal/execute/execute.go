// Package execute runs commands for users at the Logics that have their duty, for everything that has no
// client connection: the HTTP API, imui, extlogic.
package execute

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/duty"
	"hongyan/internal/route"
)

// maxTries of one request at the Logics of its user's walk.
const maxTries = 3

// Executor finds the Logic of a user for a command and hands it over. What may have reached
// one Logic is given to the next: writes carry a client_msg_id, or set a value. Only a CALL is not repeated
// once it may have run.
type Executor struct {
	Logics  *route.Pool[tier.Logic]
	Timeout time.Duration // of one request, all tries together
	Log     *slog.Logger
}

// Run returns the protobuf body of the answer. Errors are *code.Error where the Logic
// decided; an instance that cannot be reached is passed over for the next of the walk.
// TimeoutMs and Repeated of req are set here.
func (e *Executor) Run(ctx context.Context, req *tier.ExecuteRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	var last error
	for try := range maxTries {
		peer, err := e.Logics.PickFor(duty.Of(im.Cmd(req.Cmd)), route.Hash(req.Tenant, req.Uid))
		if err != nil {
			return nil, firstOf(last, err)
		}
		deadline, _ := ctx.Deadline()
		attempt := *req // a handler in this process may keep the request it was given
		attempt.Repeated, attempt.TimeoutMs = try > 0, time.Until(deadline).Milliseconds()
		rsp, err := peer.Client.Execute(ctx, &attempt)
		if err == nil {
			return answerOf(rsp)
		}
		if ctx.Err() != nil || !elsewhere(im.Cmd(req.Cmd), err) {
			return nil, err // slow is not down
		}
		e.Log.Warn("call to logic failed", "addr", peer.Addr, "err", err, "request_id", req.RequestId)
		e.Logics.Failed(peer)
		last = err
	}
	return nil, last
}

// elsewhere tells that another instance may do better: nothing was decided about the request, or whatever was
// may be asked again.
func elsewhere(cmd im.Cmd, err error) bool {
	e, ok := errors.AsType[*code.Error](err)
	switch {
	case cmd == im.Cmd_CALL:
		return ok && e.Code == code.Unavailable
	case !ok:
		return true
	}
	return e.Code == code.Unavailable || e.Code == code.UnknownOutcome
}

func answerOf(rsp *tier.ExecuteReply) ([]byte, error) {
	if rsp.Code == 0 {
		return rsp.Body, nil
	}
	err := code.Errorf(code.Code(rsp.Code), "%s", rsp.Message)
	err.RetryAfter = time.Duration(rsp.RetryAfterMs) * time.Millisecond
	return nil, err
}

// firstOf prefers what is known about the instances that were tried.
func firstOf(tried, now error) error {
	if tried == nil {
		return now
	}
	return code.Errorf(code.Unavailable, "no instance of logic could take the request: %w", tried)
}
