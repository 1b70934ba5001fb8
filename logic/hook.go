package logic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// HooksConfig names business commands of the platform that Logic asks before it acts.
type HooksConfig struct {
	// BeforeSend is asked whether a user may send to another, before a message of his is
	// stored; an internal system's messages are not asked for.
	BeforeSend HookConfig `koanf:"before_send"`
}

// HookConfig is one such command. Its request has from, to, conv (strings) and kind (a
// number); its answer may have denied (true or false) and reason (a string). What the service
// refuses is denied too, with its message. It may be asked twice for one message.
type HookConfig struct {
	// Call is the name, as jtransit has it; empty = nobody is asked.
	Call string `koanf:"call"`
	// Timeout of one question.
	Timeout time.Duration `koanf:"timeout"`
	// Refuse messages as unavailable while there is no answer; otherwise they are sent.
	Refuse bool `koanf:"refuse"`
	// Workers ask at once, each for some of the users, in the order of their messages; Queue
	// is how many messages may wait for each, one more is refused as overloaded.
	Workers int `koanf:"workers"`
	Queue   int `koanf:"queue"`
}

func defaultHooks() HooksConfig {
	return HooksConfig{BeforeSend: HookConfig{Timeout: 500 * time.Millisecond, Workers: 64, Queue: 64}}
}

func (c *HookConfig) validate() error {
	if c.Timeout <= 0 || c.Workers < 1 || c.Workers > 4096 || c.Queue < 1 || c.Queue > 1<<16 {
		return fmt.Errorf("timeout must be more than 0, workers 1 to 4096 and queue 1 to %d", 1<<16)
	}
	return nil
}

// hook asks the platform before a message is stored. It has a lane of its own: a slow
// platform keeps messages waiting, and nothing else.
type hook struct {
	cfg      HookConfig
	services tier.Jtransit
	lane     *lane
	asked    *prometheus.CounterVec // by outcome: allowed, denied, failed
}

// newHook returns nil where nobody is to be asked.
func newHook(cfg HookConfig, deps Deps) (*hook, error) {
	if cfg.Call == "" {
		return nil, nil
	}
	if deps.Jtransit == nil {
		return nil, errors.New("hooks.before_send needs a jtransit")
	}
	h := &hook{
		cfg: cfg, services: deps.Jtransit, lane: newLane("hook", LaneConfig{Workers: cfg.Workers, Queue: cfg.Queue}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_logic_hook_asked_total", Help: "Questions to the platform before a message is stored, by outcome.",
		}, []string{"outcome"}),
	}
	if deps.Metrics == nil {
		return h, nil
	}
	return h, deps.Metrics.Register(h.asked)
}

// run starts the lane; nil has none.
func (h *hook) run(ctx context.Context, wg *sync.WaitGroup, serve func(context.Context, *request)) {
	if h != nil {
		h.lane.run(ctx, wg, serve)
	}
}

// appendAllowed is appendMessage, once the platform has been asked where it is to be. All of a
// user's messages go this way then, so their order holds.
func (l *Logic) appendAllowed(c *call, id conv.ID) error {
	if l.hook == nil || c.system {
		return l.appendMessage(c, id)
	}
	asked := *c.request
	asked.job = func(ctx context.Context) {
		if err := l.askAndAppend(ctx, c, id); err != nil {
			l.fail(c.request, err)
		}
	}
	if !l.hook.lane.put(c.user(), &asked) {
		return overloaded("too many messages wait for the platform's word")
	}
	return nil
}

func (l *Logic) askAndAppend(ctx context.Context, c *call, id conv.ID) error {
	denial, err := l.hook.ask(ctx, c, id)
	switch {
	case err != nil:
		return err
	case denial != nil: // not before an earlier commit was looked for (R29)
		return l.deny(c, denial)
	}
	if c.at = time.Now(); !c.at.Before(c.deadline) {
		return code.Errorf(code.Expired, "the request outlived its deadline while the platform was asked")
	}
	return l.appendMessage(c, id)
}

// ask returns why the message is denied, or that it cannot be known.
func (h *hook) ask(ctx context.Context, c *call, id conv.ID) (denial, err error) {
	question, err := json.Marshal(map[string]any{"from": c.up.Uid, "to": id.Peer(c.up.Uid), "conv": c.conv, "kind": c.msg.Kind})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	reply, err := h.services.Call(ctx, &tier.CallRequest{
		Tenant: c.up.Tenant, Uid: c.up.Uid, Name: h.cfg.Call, Data: question, RequestId: c.up.RequestId,
		TimeoutMs: max(1, h.cfg.Timeout.Milliseconds()),
	})
	var verdict struct {
		Denied bool   `json:"denied"`
		Reason string `json:"reason"`
	}
	if err == nil && code.Code(reply.Code) == code.OK {
		err = json.Unmarshal(reply.Data, &verdict)
	}
	switch {
	case err == nil && code.Code(reply.Code) == code.CallRefused:
		verdict.Denied, verdict.Reason = true, reply.Message
	case err != nil || code.Code(reply.Code) != code.OK:
		h.asked.WithLabelValues("failed").Inc()
		if h.cfg.Refuse {
			unknown := code.Errorf(code.Unavailable, "the platform does not say whether this may be sent")
			unknown.RetryAfter = shedRetry
			return nil, unknown
		}
		return nil, nil
	}
	if !verdict.Denied {
		h.asked.WithLabelValues("allowed").Inc()
		return nil, nil
	}
	h.asked.WithLabelValues("denied").Inc()
	if verdict.Reason == "" {
		verdict.Reason = "the platform does not allow it"
	}
	return code.Errorf(code.Denied, "%.512s", verdict.Reason), nil
}
