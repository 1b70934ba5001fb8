package gate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/mq"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wheel"
	"hongyan/internal/wire"
)

// Transport is one client connection, owned by its gateway.
//
// The Conn calls Send while it holds its own lock: Send must not call back into the Conn.
type Transport interface {
	// Send queues the frames and flushes them together. It never blocks. Bodies are protobuf
	// and are not changed afterwards, so they may be kept; the slice itself may not. After
	// Close it does nothing.
	Send(frames []wire.Frame)
	// Queued is how many bytes the peer has not taken yet; a frame counts 256 at least. It
	// is called for each frame.
	Queued() int
	// Close ends the connection after what was queued was flushed, briefly. It never blocks.
	Close(c code.Code, reason string)
}

// Verifier checks the tokens of clients. *token.Keys is one.
type Verifier interface {
	// Verify returns what a valid token claims, otherwise a BadToken *code.Error.
	Verify(token string) (token.Claims, error)
}

// Deps of a Gate. Log and Metrics may be nil.
type Deps struct {
	Logics  *route.Pool[tier.Logic]
	Keys    Verifier
	Self    control.Instance // Tier names the metrics; Addr and Boot are told to Logic
	Version string           // of the server, for HELLO_ACK
	Queue   mq.Queue         // brings online notices; nil = there are none
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Gate holds the sessions of one gateway. It implements tier.Gateway.
type Gate struct {
	cfg     Config
	deps    Deps
	start   time.Time // origin of the times kept as nanoseconds
	conns   registry
	limits  atomic.Pointer[limits] // never nil
	lastID  atomic.Uint64
	drained atomic.Bool
	wheel   *wheel.Wheel
	up      *uplink
	renewer *renewer
	cursors cursors
	metrics *metrics

	downs    sync.Pool // *downScratch
	pendings sync.Pool // *pending
	windows  sync.Pool // *window
}

var _ tier.Gateway = (*Gate)(nil)

// Ticks of the timer wheel: its timers are late by up to one.
const (
	wheelTick  = 200 * time.Millisecond
	wheelSlots = 1024
)

// New makes a Gate. It serves once Run is called.
func New(cfg Config, deps Deps) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gateway configuration: %w", err)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{cfg: cfg, deps: deps, start: time.Now(), wheel: wheel.New(wheelTick, wheelSlots)}
	m, err := newMetrics(deps.Self.Tier, deps.Metrics, g.conns.len)
	if err != nil {
		return nil, fmt.Errorf("gateway metrics: %w", err)
	}
	g.metrics = m
	// A connection's number must not come back in a later life of this gateway: a Logic may
	// still hold it, for another user.
	g.lastID.Store(xxhash.Sum64String(deps.Self.Addr + "\x00" + deps.Self.Boot))
	g.up = newUplink(g)
	g.renewer = newRenewer(g)
	g.downs.New = func() any { return new(downScratch) }
	g.pendings.New = func() any { return new(pending) }
	g.windows.New = func() any { return newWindow(cfg.MaxUnackedSends) }
	g.Limit(&cfg)
	return g, nil
}

// stopGrace is how long Run waits at its end for what still has to reach a Logic.
const stopGrace = time.Second

// Run serves until ctx ends, then closes every connection.
func (g *Gate) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { g.wheel.Run(background) })
	work.Go(func() { g.up.run(background) })
	work.Go(func() { g.renewer.run(ctx) })
	work.Go(func() { g.gatherCursors(ctx) })
	work.Go(func() { g.announcements(ctx) })
	<-ctx.Done()
	g.drained.Store(true)
	for _, c := range g.conns.all() {
		c.shut(code.CloseShutdown, "the gateway is stopping")
	}
	g.up.settle(stopGrace)
	stop()
	work.Wait()
	return nil
}

// now is the time since the start of the Gate, in nanoseconds.
func (g *Gate) now() int64 { return int64(time.Since(g.start)) }

// Transports, as Info names them.
const (
	TCP       = "tcp"
	WebSocket = "ws"
	Poll      = "poll"
)

// Info is what a gateway knows of a new connection.
type Info struct {
	IP        string
	Platform  string // ios, android, web, ...; empty where the client has yet to say
	Transport string // TCP, WebSocket or Poll
	// Idle is how long the connection may be silent. 0: 2.2 T + 5 s, with the client's T.
	Idle time.Duration
}

// Open makes a session of a new connection. While the gateway is drained the transport is
// closed at once, and the Conn does nothing.
func (g *Gate) Open(t Transport, info Info) *Conn {
	c := newConn(g, t, info)
	g.conns.put(c)
	c.mu.Lock()
	c.authBy = g.now() + int64(g.cfg.AuthTimeout)
	c.armLocked()
	c.mu.Unlock()
	if g.drained.Load() { // after put: Run and Drain see it, or we see them
		c.shut(code.CloseShutdown, "the gateway is stopping")
	}
	return c
}
