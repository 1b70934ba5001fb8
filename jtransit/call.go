package jtransit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/rpc"
)

// call is one configured name.
type call struct {
	cfg     CallConfig
	maxBody int
	method  *method
	clients []service // by address
	breaker *breaker
	running atomic.Int64
	turn    atomic.Uint64 // which address comes next
}

// service is one instance of a service of the platform (rpc.Foreign).
type service interface {
	Call(ctx context.Context, method string, request []byte) ([]byte, error)
}

// busyRetry is when a caller may come back that met the limit.
const busyRetry = 500 * time.Millisecond

// do makes the call and returns the answer as JSON. Its error is a *code.Error that may be
// shown to the user; cause says more, for the log.
func (c *call) do(ctx context.Context, data []byte) (answer []byte, failure *code.Error, cause error) {
	if len(data) > c.maxBody {
		return nil, code.Errorf(code.TooLarge, "data: %d bytes, %d are allowed", len(data), c.maxBody), nil
	}
	request, err := c.method.encode(data)
	if err != nil {
		return nil, code.From(err), nil
	}
	defer c.running.Add(-1)
	if c.running.Add(1) > int64(c.cfg.Concurrency) {
		failure := code.Errorf(code.Overloaded, "too many calls of this name are under way")
		failure.RetryAfter = busyRetry
		return nil, failure, nil
	}
	begun := time.Now()
	life, wait, ok := c.breaker.admit(begun)
	if !ok {
		failure := code.Errorf(code.Unavailable, "the service is left alone for a while: too many calls have failed")
		failure.RetryAfter = wait
		return nil, failure, nil
	}
	v := neither // a panic must not leave the breaker waiting for its probe
	defer func() { c.breaker.done(life, v, time.Now()) }()
	body, err := c.repeat(ctx, request)
	v = c.judge(err, time.Since(begun))
	if err != nil {
		return nil, translate(err), err
	}
	if answer, err = c.method.decode(body); err != nil {
		return nil, code.Errorf(code.Internal, "the service's answer cannot be read"), err
	}
	if len(answer) > c.maxBody {
		return nil, code.Errorf(code.TooLarge, "the answer has %d bytes, %d are allowed", len(answer), c.maxBody), nil
	}
	return answer, nil, nil
}

// repeat sends the request, again as often as the configuration allows.
func (c *call) repeat(ctx context.Context, request []byte) ([]byte, error) {
	for left := c.cfg.Retries; ; left-- {
		body, err := c.send(ctx, request)
		if err == nil || left == 0 || ctx.Err() != nil || !rpc.Down(err) {
			return body, err
		}
	}
}

// send gives the request to one instance: the next in turn that can be reached. One that
// cannot has not run it, so the next may.
func (c *call) send(ctx context.Context, request []byte) (body []byte, err error) {
	first := c.turn.Add(1)
	for i := range uint64(len(c.clients)) {
		body, err = c.clients[(first+i)%uint64(len(c.clients))].Call(ctx, c.method.name, request)
		if !rpc.Down(err) || code.Of(err) != code.Unavailable {
			break
		}
	}
	return body, err
}

// judge says what an outcome tells of the service. A caller with less time than the
// configuration gives may run out of it without the service being at fault.
func (c *call) judge(err error, took time.Duration) verdict {
	if err == nil {
		return worked
	}
	if _, refused := errors.AsType[*rpc.Refusal](err); refused {
		return worked
	}
	switch code.Of(err) {
	case code.Expired:
		if took < c.cfg.Timeout*9/10 {
			return neither
		}
	case code.TooLarge:
		return worked
	}
	return failed
}

// downRetry is when a caller may come back that found no instance.
const downRetry = time.Second

// translate turns the error of a call into what the user may see: addresses and the text of
// crashes stay in the log.
func translate(err error) *code.Error {
	if r, ok := errors.AsType[*rpc.Refusal](err); ok {
		return code.Errorf(code.CallRefused, "%s", r.Error())
	}
	switch c := code.Of(err); c {
	case code.Unavailable:
		e := code.Errorf(c, "the service cannot be reached")
		e.RetryAfter = downRetry
		return e
	case code.Expired:
		return code.Errorf(c, "the service did not answer in time; the outcome is unknown")
	case code.UnknownOutcome:
		return code.Errorf(c, "the service was lost under way; the outcome is unknown")
	case code.TooLarge:
		return code.Errorf(c, "the answer is over the limit")
	}
	return code.Errorf(code.Internal, "the service failed")
}
