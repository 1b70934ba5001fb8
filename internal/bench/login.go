package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hongyan/idl/code"
)

// Login connects, logs in and leaves, over and over, from Conns connectors at once: a storm
// of returning users. Users are as many as ten times the connectors, each in turn.
func Login(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Conns < 1 || cfg.Conns > 2000 {
		return nil, fmt.Errorf("--conns %d: must be 1 to 2000", cfg.Conns)
	}
	if cfg.Duration <= 0 || cfg.Warmup < 0 {
		return nil, errors.New("--duration must be more than 0, --warmup not negative")
	}
	d, err := newDialer(&cfg)
	if err != nil {
		return nil, err
	}
	r := &loginRun{cfg: cfg, dialer: d, times: newLatencies()}
	return r.run(ctx)
}

type loginRun struct {
	cfg    Config
	dialer dialer
	times  *latencies
	last   atomic.Pointer[error]

	measuring           atomic.Bool
	logins, errors, all atomic.Int64
}

func (r *loginRun) run(ctx context.Context) (*Result, error) {
	storm, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for i := range r.cfg.Conns {
		wg.Go(func() { r.connector(storm, i) })
	}
	interrupted := pause(ctx, r.cfg.Warmup)
	cpu, err := r.cpu()
	if err != nil {
		return nil, err
	}
	from := time.Now()
	r.measuring.Store(true)
	for time.Since(from) < r.cfg.Duration && !interrupted {
		interrupted = pause(ctx, min(time.Second, r.cfg.Duration-time.Since(from)))
		if r.cfg.Progress != nil {
			fmt.Fprintf(r.cfg.Progress, "\r%9d logins, %d errors ", r.logins.Load(), r.errors.Load())
		}
	}
	r.measuring.Store(false)
	seconds := time.Since(from).Seconds()
	end, err := r.cpu()
	stop()
	wg.Wait()
	if r.cfg.Progress != nil {
		fmt.Fprintf(r.cfg.Progress, "\r%-40s\r", "")
	}
	if err != nil {
		return nil, err
	}
	if last := r.last.Load(); last != nil && r.all.Load() == 0 {
		return nil, fmt.Errorf("no login succeeded: %w", *last)
	}
	return r.result(seconds, end-cpu, interrupted), nil
}

func (r *loginRun) cpu() (time.Duration, error) {
	if r.cfg.Server == nil || r.cfg.Server.PID == 0 {
		return 0, nil
	}
	return r.cfg.Server.cpu()
}

func (r *loginRun) connector(ctx context.Context, i int) {
	for n := 0; ctx.Err() == nil; n++ {
		begun := time.Now()
		c, _, err := open(ctx, r.dialer, &r.cfg, fmt.Sprintf("login-%d-%d", i, n%10), 512)
		switch {
		case err == nil:
			r.all.Add(1)
			if r.measuring.Load() {
				r.logins.Add(1)
				r.times.add(time.Since(begun))
			}
			c.abort()
		case ctx.Err() == nil:
			r.last.Store(&err)
			if r.measuring.Load() {
				r.errors.Add(1)
			}
			wait := 100 * time.Millisecond
			if e, ok := errors.AsType[*code.Error](err); ok {
				wait = max(wait, e.RetryAfter)
			}
			pause(ctx, wait)
		}
	}
}

func (r *loginRun) result(seconds float64, cpu time.Duration, interrupted bool) *Result {
	out := &Result{
		Scenario: "login", Seconds: seconds, Interrupted: interrupted,
		Params: map[string]any{"conns": r.cfg.Conns, "users": 10 * r.cfg.Conns, "transport": Transport(r.cfg.Target)},
		AckP50: r.times.ms(50), AckP99: r.times.ms(99), AckMax: r.times.ms(100),
		Errors: ptr(r.errors.Load()),
	}
	if seconds > 0 {
		out.LoginsPerS = ptr(float64(r.logins.Load()) / seconds)
	}
	if s := r.cfg.Server; s != nil && s.PID != 0 {
		if n := r.logins.Load(); n > 0 {
			out.ServerCPUPerMsg = ptr(float64(cpu.Microseconds()) / float64(n))
		}
		if rss, err := s.rss(); err == nil {
			out.ServerRSS = &rss
		}
	}
	return out
}
