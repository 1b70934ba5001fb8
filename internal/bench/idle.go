package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// heartbeat is how often an idle client says something.
const heartbeat = 25 * time.Second

// settleTime is how long the server may clean up after the storm of logins.
const settleTime = 3 * time.Second

// Idle logs in many users who then do nothing but answer heartbeats, and measures what they
// cost.
func Idle(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Conns < 1 || cfg.Conns > 18000 {
		return nil, fmt.Errorf("--conns %d: must be 1 to 18000 (descriptors of one process)", cfg.Conns)
	}
	if cfg.Duration <= 0 {
		return nil, errors.New("--duration must be more than 0")
	}
	if cfg.Server == nil || cfg.Server.PID == 0 {
		return nil, errors.New("idle measures the memory of the server: give --embedded or --server-pid")
	}
	d, err := newDialer(&cfg)
	if err != nil {
		return nil, err
	}
	if err := warm(ctx, cfg, d); err != nil {
		return nil, err
	}
	empty, err := cfg.Server.rss()
	if err != nil {
		return nil, err
	}
	r := &idleRun{cfg: cfg, dialer: d, conns: make([]*conn, cfg.Conns)}
	defer r.close()
	begun := time.Now()
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	stop := r.start()
	defer stop()
	return r.measure(ctx, empty, took)
}

// warmConns log in and out before the server counts as empty: the first ones load code and
// fill pools, which is no memory of a connection.
const warmConns = 200

func warm(ctx context.Context, cfg Config, d dialer) error {
	r := &idleRun{cfg: cfg, dialer: d, conns: make([]*conn, warmConns)}
	defer r.close()
	if err := r.connect(ctx); err != nil {
		return err
	}
	r.close()
	pause(ctx, settleTime)
	return nil
}

type idleRun struct {
	cfg    Config
	dialer dialer
	conns  []*conn
	open   atomic.Int64
	ended  atomic.Int64
	last   atomic.Pointer[error]
}

func (r *idleRun) connect(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for i := range r.conns {
		group.Go(func() error {
			// No read buffer to speak of: the generator's memory is not what is measured, but
			// it shares the machine.
			c, _, err := login(ctx, r.dialer, &r.cfg, fmt.Sprintf("idle-%d", i), 512)
			if err != nil {
				return err
			}
			r.conns[i] = c
			if n := r.open.Add(1); r.cfg.Progress != nil && n%500 == 0 {
				fmt.Fprintf(r.cfg.Progress, "\rconnected %6d of %d ", n, len(r.conns))
			}
			return nil
		})
	}
	return group.Wait()
}

func (r *idleRun) start() (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, c := range r.conns {
		wg.Go(func() {
			err := c.serve(func(f wire.Frame, _ time.Time) error {
				if f.Cmd == im.Cmd_KICK || f.Cmd == im.Cmd_ERROR {
					return errorOf(f)
				}
				return nil
			})
			select {
			case <-done:
			default:
				r.ended.Add(1)
				r.last.Store(&err)
			}
		})
	}
	wg.Go(func() { r.beat(done) })
	return func() {
		close(done)
		r.close()
		wg.Wait()
	}
}

// beat pings every connection once in a heartbeat, evenly spread.
func (r *idleRun) beat(done <-chan struct{}) {
	t := time.NewTicker(heartbeat / 250)
	defer t.Stop()
	share := (len(r.conns) + 249) / 250
	for next := 0; ; next = (next + share) % (share * 250) {
		select {
		case <-done:
			return
		case <-t.C:
		}
		for i := next; i < min(next+share, len(r.conns)); i++ {
			c := r.conns[i]
			c.mu.Lock()
			if c.queue(im.Cmd_PING, 1, 0, &im.Ping{}) == nil {
				_ = c.flush() // a broken connection is noticed by its reader
			}
			c.mu.Unlock()
		}
	}
}

func (r *idleRun) close() {
	for _, c := range r.conns {
		if c != nil {
			_ = c.link.close()
		}
	}
}

func (r *idleRun) measure(ctx context.Context, empty int64, took time.Duration) (*Result, error) {
	interrupted := pause(ctx, settleTime)
	cpu, err := r.cfg.Server.cpu()
	if err != nil {
		return nil, err
	}
	from := time.Now()
	for time.Since(from) < r.cfg.Duration && !interrupted {
		interrupted = pause(ctx, min(time.Second, r.cfg.Duration-time.Since(from)))
		if r.cfg.Progress != nil {
			fmt.Fprintf(r.cfg.Progress, "\rholding %d connections, %3.0f s ", len(r.conns), time.Since(from).Seconds())
		}
	}
	if r.cfg.Progress != nil {
		_, _ = io.WriteString(r.cfg.Progress, "\r                                                  \r")
	}
	seconds := time.Since(from).Seconds()
	cpuEnd, err := r.cfg.Server.cpu()
	if err != nil {
		return nil, err
	}
	rss, err := r.cfg.Server.rss()
	if err != nil {
		return nil, err
	}
	if n := r.ended.Load(); n > 0 {
		return nil, fmt.Errorf("%d connections ended while idle, the last: %w", n, *r.last.Load())
	}
	out := &Result{
		Scenario: "idle", Seconds: seconds, Interrupted: interrupted,
		Params:     map[string]any{"conns": r.cfg.Conns, "transport": Transport(r.cfg.Target), "empty_server_rss_bytes": empty},
		Conns:      ptr(int64(len(r.conns))),
		LoginsPerS: ptr(float64(len(r.conns)) / took.Seconds()),
		ServerRSS:  &rss, BytesPerConn: ptr(float64(rss-empty) / float64(len(r.conns))),
		Errors: ptr(int64(0)),
	}
	if seconds > 0 {
		out.CorePercent = ptr((cpuEnd - cpu).Seconds() / seconds * 100)
	}
	return out, nil
}

// pause waits; true when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}
