// Package settings lays a value of the control centre over the configuration of a process:
// the whole of it when the process starts, and what is tagged live:"true" while it runs.
package settings

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/config"
	"hongyan/internal/control"
)

// Key of the value that is laid over the configuration of a tier's processes.
func Key(tier string) string { return "config/" + tier }

// Options of Open; Base, Load and Tier are needed.
type Options[C any] struct {
	// Base is the configuration without an overlay. It is shared: nobody changes it.
	Base *C
	// Load makes the whole configuration, from fresh defaults, with an overlay of the control
	// centre (config.Sources.Overlay), and validates it.
	Load func(overlay []byte) (*C, error)
	// Tier names the value, and with Addr this process in its reports.
	Tier, Addr string
	Reports    control.Reports
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Settings of one process. A value that cannot be used is refused and shown; what was good
// stays in force. What a good value changes of keys that are not live is shown as needing a
// restart.
type Settings[C any] struct {
	value *control.Live[*C]
	live  []string // keys

	mu      sync.Mutex
	start   *C // nil while Open is at work
	current C
	hooks   []func(*C) error
}

// Open reads the value once. An error is one of the control centre; a bad value only leaves the
// process without an overlay.
func Open[C any](ctx context.Context, values control.Values, opt Options[C]) (*Settings[C], error) {
	s := &Settings[C]{live: config.LiveKeys(opt.Base)}
	var err error
	s.value, err = control.NewLive(values, Key(opt.Tier), control.LiveOptions[*C]{
		Default: opt.Base, Decode: opt.Load, Apply: s.apply, Notes: s.pending,
		Tier: opt.Tier, Addr: opt.Addr, Reports: opt.Reports, Log: opt.Log, Metrics: opt.Metrics,
	})
	if err != nil {
		return nil, err
	}
	if err := s.value.Load(ctx); err != nil && s.value.Status().Err == nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = s.value.Get()
	s.current = *s.start
	return s, nil
}

// Start returns what the process is to start with. It is shared: nobody changes it.
func (s *Settings[C]) Start() *C { return s.start }

// Current returns what is in force: Start, with the live keys as they are now.
func (s *Settings[C]) Current() C {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// OnChange has fn called when a live key changes, with what is to be in force, serially. Its
// error refuses the change; then it is called once more with what stays. Before Run.
func (s *Settings[C]) OnChange(fn func(*C) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, fn)
}

// Run follows the value until ctx ends.
func (s *Settings[C]) Run(ctx context.Context) error { return s.value.Run(ctx) }

// Status tells what became of the value.
func (s *Settings[C]) Status() control.Status { return s.value.Status() }

// apply puts the live keys of a good configuration in force.
func (s *Settings[C]) apply(next *C) error {
	s.mu.Lock()
	if s.start == nil {
		s.mu.Unlock()
		return nil
	}
	was, now, hooks := s.current, s.current, s.hooks
	s.mu.Unlock()
	config.Adopt(&now, next, s.live)
	if len(config.Changed(&was, &now)) == 0 {
		return nil
	}
	for i, hook := range hooks {
		if err := hook(&now); err != nil {
			for _, undo := range hooks[:i+1] {
				_ = undo(&was) // it was good before
			}
			return fmt.Errorf("not applied: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = now
	return nil
}

// pending tells which changes wait for a restart.
func (s *Settings[C]) pending(next *C) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start == nil {
		return nil
	}
	var notes []string
	for _, key := range config.Changed(s.start, next) {
		if !slices.Contains(s.live, key) {
			notes = append(notes, key+" needs a restart")
		}
	}
	return notes
}
