package jtransit

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/control"
	"hongyan/internal/rpc"
)

// call is one configured name. It never changes.
type call struct {
	cfg     CallConfig
	maxBody int
	unit    *unit // the IDL that method is of
	method  method
	at      []control.Endpoint
	clients []*client // one for each of at
	order   []int     // of turns, see rotation
	health  *health
}

// health is what is known of a service. It outlives a new configuration of the call, unless
// that calls something else.
type health struct {
	breaker breaker
	running atomic.Int64
	turn    atomic.Uint64 // which instance comes next
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
	defer c.health.running.Add(-1)
	if c.health.running.Add(1) > int64(c.cfg.Concurrency) {
		failure := code.Errorf(code.Overloaded, "too many calls of this name are under way")
		failure.RetryAfter = busyRetry
		return nil, failure, nil
	}
	begun := time.Now()
	life, wait, ok := c.health.breaker.admit(begun)
	if !ok {
		failure := code.Errorf(code.Unavailable, "the service is left alone for a while: too many calls have failed")
		failure.RetryAfter = wait
		return nil, failure, nil
	}
	v := neither // a panic must not leave the breaker waiting for its probe
	defer func() { c.health.breaker.done(life, v, time.Now()) }()
	body, err := c.repeat(ctx, request)
	v = c.judge(err, time.Since(begun))
	if err != nil {
		return nil, translate(err), err
	}
	return c.read(body)
}

// read turns an answer into JSON.
func (c *call) read(body []byte) (answer []byte, failure *code.Error, cause error) {
	answer, err := c.method.decode(body, c.maxBody)
	if e, thrown := errors.AsType[*exception](err); thrown {
		return nil, code.Errorf(code.CallRefused, "%.1024s", e.Error()), err
	}
	switch {
	case errors.Is(err, errTooLong):
		return nil, code.Errorf(code.TooLarge, "the answer has more than the %d bytes that are allowed", c.maxBody), nil
	case err != nil:
		return nil, code.Errorf(code.Internal, "the service's answer cannot be read"), err
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

// errNowhere: no instance of the service is registered.
var errNowhere = code.Errorf(code.Unavailable, "no instance is registered")

// send gives the request to one instance: the next in turn that can be reached. One that
// cannot has not run it, so the next may.
func (c *call) send(ctx context.Context, request []byte) (body []byte, err error) {
	if len(c.order) == 0 {
		return nil, errNowhere
	}
	tried := make([]bool, len(c.clients))
	first := c.health.turn.Add(1)
	for range len(c.clients) {
		i := c.next(first, tried, time.Now())
		tried[i] = true
		body, err = c.clients[i].Call(ctx, c.cfg.Method, request)
		if !rpc.Down(err) || code.Of(err) != code.Unavailable {
			break
		}
		c.clients[i].failed(time.Now())
	}
	return body, err
}

// next is the instance whose turn it is, among those that were not tried: one that is known
// to be down only where there is no other.
func (c *call) next(first uint64, tried []bool, now time.Time) int {
	down := -1
	for n := range uint64(len(c.order)) {
		i := c.order[(first+n)%uint64(len(c.order))]
		switch {
		case tried[i]:
		case !c.clients[i].isDown(now):
			return i
		case down < 0:
			down = i
		}
	}
	if down < 0 { // every instance has a turn
		return slices.Index(tried, false)
	}
	return down
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
