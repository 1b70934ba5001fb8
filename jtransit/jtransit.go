package jtransit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/rpc"
)

// Deps are what a Jtransit works with. All of them may be left out.
type Deps struct {
	// Values have the calls and IDLs that change while it runs: KeyCalls, KeyIDL.
	Values control.Values
	// Services finds the instances of CallConfig.Discover.
	Services control.Services
	// Reports is told what became of the values; Addr names this instance there.
	Reports control.Reports
	Addr    string
	Log     *slog.Logger          // nil: discarded
	Metrics prometheus.Registerer // nil: none
}

// Jtransit is one instance of the tier; it implements tier.Jtransit.
type Jtransit struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	met     *metrics
	clients *clients
	outside *following
	settled atomic.Bool // what is live is known: a name that is not in the table does not exist

	mu    sync.RWMutex // guards which table is in force, and the users of all
	table *table

	// Of rebuild only:
	units   map[string]*unit
	filed   map[string]CallConfig // of Config.CallsFile, as it was good last
	fileErr error
	idls    map[string]idlReport

	statusMu sync.Mutex
	status   []CallStatus
}

var _ tier.Jtransit = (*Jtransit)(nil)

// New reads the IDLs of the configured calls. An error names the first that cannot be made:
// at its start it is a mistake, later it is refused and what was good stays.
func New(cfg Config, deps Deps) (*Jtransit, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("jtransit: %w", err)
	}
	j := &Jtransit{
		cfg: cfg, deps: deps, log: deps.Log,
		clients: newClients(cfg.MaxBody), outside: newFollowing(), table: &table{users: 1},
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	j.met = newMetrics(j)
	status := j.rebuild()
	err := j.fileErr
	if err == nil {
		err = inOneLine(status)
	}
	if err == nil && deps.Metrics != nil {
		err = deps.Metrics.Register(j.met)
	}
	if err != nil {
		j.swap(&table{users: 1}) // closes the clients
		return nil, fmt.Errorf("jtransit: %w", err)
	}
	return j, nil
}

// current is the table in force, for who builds the next.
func (j *Jtransit) current() *table {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.table
}

// take returns the table in force; its clients stay open until it is given back.
func (j *Jtransit) take() *table {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.table.users++
	return j.table
}

func (j *Jtransit) giveBack(t *table) {
	j.mu.Lock()
	t.users--
	last := t.users == 0
	j.mu.Unlock()
	if last {
		j.clients.giveBack(t.clients())
	}
}

// swap puts a table in force. Calls under way finish with theirs.
func (j *Jtransit) swap(t *table) {
	j.mu.Lock()
	old := j.table
	j.table = t
	j.mu.Unlock()
	j.giveBack(old)
	j.met.swaps.Inc()
}

// Call calls the service that is configured for a name and waits for its answer.
func (j *Jtransit) Call(ctx context.Context, req *tier.CallRequest) (*tier.CallReply, error) {
	begun := time.Now()
	t := j.take()
	defer j.giveBack(t)
	c := t.calls[req.Name]
	if c == nil {
		failure := j.unknown(req.Name)
		j.met.done("", failure.Code, 0)
		return refusal(failure), nil
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

// unknown is the answer to a name that is not in the table.
func (j *Jtransit) unknown(name string) *code.Error {
	if !j.settled.Load() {
		failure := code.Errorf(code.Unavailable, "the business commands are still being read")
		failure.RetryAfter = downRetry
		return failure
	}
	for _, s := range j.Status() {
		if s.Name == name && s.Missing {
			return code.Errorf(code.Unavailable, "business command %.64q is configured wrongly", name)
		}
	}
	return code.Errorf(code.Unsupported, "business command %.64q is not configured", name)
}

func refusal(e *code.Error) *tier.CallReply {
	return &tier.CallReply{Code: uint32(e.Code), Message: e.Message, RetryAfterMs: uint32(e.RetryAfter.Milliseconds())}
}
