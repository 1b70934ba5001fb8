package httpentry

import (
	"context"
	"errors"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/route"
)

// maxTries of one request at the Logics of its user's walk.
const maxTries = 3

// execute runs one command for the caller at his home Logic and returns the protobuf body of
// its answer. Every command of the API may be repeated: writes carry a client_msg_id, or set
// a value.
func (s *Server) execute(ctx context.Context, who caller, cmd im.Cmd, body []byte, requestID string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	req := &tier.ExecuteRequest{
		Tenant: who.tenant, Uid: who.uid, Cmd: uint32(cmd), Body: body, RequestId: requestID,
		System: who.app != "",
	}
	var last error
	for try := range maxTries {
		peer, err := s.logics.Pick(route.Hash(who.tenant, who.uid))
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
		if ctx.Err() != nil || !unreachable(err) {
			return nil, err // slow is not down
		}
		s.log.Warn("call to logic failed", "addr", peer.Addr, "err", err, "request_id", requestID)
		s.logics.Failed(peer)
		last = err
	}
	return nil, last
}

// unreachable tells that another instance may do better: nothing was decided about the request.
func unreachable(err error) bool {
	if e, ok := errors.AsType[*code.Error](err); ok {
		return e.Code == code.Unavailable
	}
	return true
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
