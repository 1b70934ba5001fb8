package imui

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/platform"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/execute"
	"hongyan/internal/mq"
	"hongyan/internal/route"
)

// Deps of a Service. Queue, Log and Metrics may be nil; without a Queue, Notify is refused.
type Deps struct {
	Logics  *route.Pool[tier.Logic]
	Queue   mq.Queue
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service implements platform.IMUI. A refusal stands in the reply's status; a method's
// error means that the call itself failed.
type Service struct {
	cfg     Config
	callers callers
	exec    execute.Executor
	queue   mq.Queue
	log     *slog.Logger
	calls   *prometheus.HistogramVec
}

var _ platform.IMUI = (*Service)(nil)

// New makes a Service.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("imui configuration: %w", err)
	}
	log := deps.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, callers: newCallers(cfg.Apps), queue: deps.Queue, log: log,
		exec: execute.Executor{Logics: deps.Logics, Timeout: cfg.Timeout, Log: log},
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "hongyan", Subsystem: "imui", Name: "call_seconds", Help: "Calls by method and outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"method", "code"}),
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(s.calls); err != nil {
			return nil, fmt.Errorf("imui metrics: %w", err)
		}
	}
	return s, nil
}

// body is what the generated messages have in common.
type body interface {
	Marshal(in []byte) ([]byte, error)
	Unmarshal(in []byte) error
}

// run hands one command for a user to his home and decodes the answer into rsp.
func (s *Service) run(ctx context.Context, from *platform.Caller, uid string, cmd im.Cmd, req, rsp body) error {
	encoded, err := req.Marshal(nil)
	if err != nil {
		return fmt.Errorf("encode %s: %w", cmd, err)
	}
	answer, err := s.exec.Run(ctx, &tier.ExecuteRequest{
		Tenant: from.Tenant, Uid: uid, Cmd: uint32(cmd), Body: encoded, RequestId: from.RequestId, System: true,
	})
	if err != nil {
		return err
	}
	if err := rsp.Unmarshal(answer); err != nil {
		return fmt.Errorf("decode answer of %s: %w", cmd, err)
	}
	return nil
}

// call admits the caller, does the work and tells how it went.
func (s *Service) call(method string, from *platform.Caller, do func() error) *platform.Status {
	begun := time.Now()
	requestID := from.GetRequestId()
	if from != nil && requestID == "" {
		requestID = uuid.NewString()
		from.RequestId = requestID
	}
	err := s.callers.admit(from)
	if err == nil {
		err = s.callers.spend(from, 1)
	}
	if err == nil {
		err = do()
	}
	status := s.status(requestID, err)
	s.calls.WithLabelValues(method, code.Code(status.Code).Name()).Observe(time.Since(begun).Seconds())
	return status
}

// status is what the caller sees of an error; one that nobody foresaw is logged here.
func (s *Service) status(requestID string, err error) *platform.Status {
	if err == nil {
		return &platform.Status{Name: code.OK.Name(), RequestId: requestID}
	}
	if _, known := errors.AsType[*code.Error](err); !known {
		s.log.Error("imui call failed", "err", err, "request_id", requestID)
	}
	e := code.From(err)
	return &platform.Status{
		Code: uint32(e.Code), Name: e.Code.Name(), Message: e.Message, RequestId: requestID,
		Retryable: e.Code.Retryable(), RetryAfterMs: uint32(e.RetryAfter.Milliseconds()),
	}
}

func checkUID(field, uid string) error {
	if err := conv.ValidUID(uid); err != nil {
		return code.Errorf(code.BadRequest, "%s: %s", field, code.From(err).Message)
	}
	return nil
}
