package jtransit

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/rpc"
)

// Deps are what a Jtransit works with.
type Deps struct {
	Log     *slog.Logger          // nil: discarded
	Metrics prometheus.Registerer // nil: none
}

// Jtransit is one instance of the tier; it implements tier.Jtransit.
type Jtransit struct {
	log   *slog.Logger
	met   *metrics
	table atomic.Pointer[table]
}

var _ tier.Jtransit = (*Jtransit)(nil)

// New reads the IDLs of all calls. An error names the first call that cannot be made.
func New(cfg Config, deps Deps) (*Jtransit, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("jtransit: %w", err)
	}
	t, err := newTable(cfg)
	if err != nil {
		return nil, fmt.Errorf("jtransit: %w", err)
	}
	j := &Jtransit{log: deps.Log}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	j.table.Store(&t)
	if j.met, err = newMetrics(deps.Metrics, j); err != nil {
		return nil, fmt.Errorf("jtransit: metrics: %w", err)
	}
	return j, nil
}

// Run returns when ctx ends. Calls run in their callers' goroutines: there is nothing to
// wait for.
func (j *Jtransit) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Call calls the service that is configured for a name and waits for its answer.
func (j *Jtransit) Call(ctx context.Context, req *tier.CallRequest) (*tier.CallReply, error) {
	begun := time.Now()
	c := (*j.table.Load())[req.Name]
	if c == nil {
		j.met.done("", code.Unsupported, 0)
		return refusal(code.Errorf(code.Unsupported, "business command %.64q is not configured", req.Name)), nil
	}
	timeout := c.cfg.Timeout
	if req.TimeoutMs > 0 && req.TimeoutMs < timeout.Milliseconds() {
		timeout = time.Duration(req.TimeoutMs) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(rpc.OnBehalf(ctx, req.Tenant, req.Uid, req.RequestId), timeout)
	defer cancel()
	answer, failure, cause := c.do(ctx, req.Data)
	if failure == nil {
		j.met.done(req.Name, code.OK, time.Since(begun))
		return &tier.CallReply{Data: answer}, nil
	}
	j.met.done(req.Name, failure.Code, time.Since(begun))
	if cause != nil && failure.Code != code.CallRefused {
		j.log.WarnContext(ctx, "call of a platform service failed", "call", req.Name, "code", failure.Code.Name(),
			"tenant", req.Tenant, "request_id", req.RequestId, "err", cause)
	}
	return refusal(failure), nil
}

func refusal(e *code.Error) *tier.CallReply {
	return &tier.CallReply{Code: uint32(e.Code), Message: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds())}
}
