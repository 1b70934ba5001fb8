package extlogic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/execute"
	"hongyan/internal/mq"
	"hongyan/internal/route"
)

// Config of an extlogic.
type Config struct {
	// CallTimeout bounds one call to a das or logic.
	CallTimeout time.Duration `koanf:"call_timeout"`
	// PushTimeout bounds one push to a vendor.
	PushTimeout time.Duration `koanf:"push_timeout"`
	// MaxConversations is how many conversations of a user one wake pushes; of more, those
	// that changed last.
	MaxConversations int `koanf:"max_conversations"`
	// HideText pushes that there is a message, not what it says.
	HideText bool `koanf:"hide_text"`
	// MaxText is the longest text of a push, in characters.
	MaxText int `koanf:"max_text"`
}

// DefaultConfig shows texts of up to 120 characters.
func DefaultConfig() Config {
	return Config{CallTimeout: 3 * time.Second, PushTimeout: 5 * time.Second, MaxConversations: 20, MaxText: 120}
}

// Validate names every field that makes no sense.
func (c Config) Validate() error {
	var errs []error
	if c.CallTimeout <= 0 {
		errs = append(errs, errors.New("call_timeout must be more than 0"))
	}
	if c.PushTimeout <= 0 {
		errs = append(errs, errors.New("push_timeout must be more than 0"))
	}
	if c.MaxConversations < 1 {
		errs = append(errs, errors.New("max_conversations must be at least 1"))
	}
	if c.MaxText < 1 {
		errs = append(errs, errors.New("max_text must be at least 1"))
	}
	return errors.Join(errs...)
}

// Deps of an ExtLogic. Log, Metrics and Vendors may be nil.
type Deps struct {
	Das    *route.Pool[tier.Das]
	Logics *route.Pool[tier.Logic]
	Queue  mq.Queue
	// Vendors push to devices, by the device's platform; "" serves all that have none of
	// their own. Default: every push is written to the log.
	Vendors map[string]Vendor
	Self    control.Instance
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Groups of the queue: all instances share the messages.
const (
	groupPush   = "push"
	groupNotice = "notice"
)

// ExtLogic consumes the queue.
type ExtLogic struct {
	cfg      Config
	das      *route.Pool[tier.Das]
	exec     execute.Executor
	queue    mq.Queue
	vendors  map[string]Vendor
	self     control.Instance
	log      *slog.Logger
	metrics  *metrics
	handlers sync.WaitGroup // running
}

// New makes an ExtLogic.
func New(cfg Config, deps Deps) (*ExtLogic, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("extlogic configuration: %w", err)
	}
	e := &ExtLogic{
		cfg: cfg, das: deps.Das, queue: deps.Queue, vendors: deps.Vendors, self: deps.Self, log: deps.Log,
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.vendors == nil {
		e.vendors = map[string]Vendor{"": LogVendor{e.log}}
	}
	e.exec = execute.Executor{Logics: deps.Logics, Timeout: cfg.CallTimeout, Log: e.log}
	var err error
	if e.metrics, err = newMetrics(deps.Metrics); err != nil {
		return nil, fmt.Errorf("extlogic metrics: %w", err)
	}
	return e, nil
}

// Run consumes until ctx ends, and returns when no handler runs any more. What they were
// at is delivered again, here or elsewhere.
func (e *ExtLogic) Run(ctx context.Context) error {
	for _, s := range []struct {
		topic, group string
		handle       mq.Handler
	}{
		{mq.TopicOffline, groupPush, e.offline},
		{mq.TopicSystem, groupNotice, e.notice},
	} {
		if err := e.queue.Subscribe(ctx, s.topic, s.group, e.counted(s.handle)); err != nil {
			return fmt.Errorf("extlogic: %w", err)
		}
	}
	<-ctx.Done()
	e.handlers.Wait()
	return nil
}

// counted lets Run wait for the handler.
func (e *ExtLogic) counted(handle mq.Handler) mq.Handler {
	return func(ctx context.Context, m mq.Message) error {
		e.handlers.Add(1)
		defer e.handlers.Done()
		return handle(ctx, m)
	}
}
