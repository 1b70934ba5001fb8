package httpentry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	hertz "github.com/cloudwego/hertz/pkg/route"
	"github.com/cloudwego/netpoll"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/execute"
	"hongyan/internal/gate"
	"hongyan/internal/netloop"
	"hongyan/internal/route"
	"hongyan/internal/wire"
)

// Deps of a Server. The gate's Log and Metrics may be nil.
type Deps struct {
	Gate gate.Deps
	JSON *wire.JSON // may be shared
	// Gatherer is what /metrics shows; nil = no /metrics.
	Gatherer prometheus.Gatherer
	// Demo makes a token for a user of the demo page; needed when Config.Demo is set.
	Demo func(uid string) (token string, err error)
	// Ready names what keeps this process from serving, for /readyz; nil = nothing does.
	Ready func() []string
}

// Server is the tier: HTTP API, WebSocket and long poll on one listener. It implements
// tier.Gateway. netloop.Setup is to be called before the first one is made.
type Server struct {
	cfg      Config
	log      *slog.Logger
	deps     Deps
	keys     gate.Verifier
	logics   *route.Pool[tier.Logic]
	executor execute.Executor
	gate     *gate.Gate
	pollers  *pollers
	json     *wire.JSON
	schemas  *schemas
	engine   *hertz.Engine
	table    table
	openapi  []byte

	apps        map[string]App
	nonces      *nonces
	proxies     networks
	metricsFrom networks

	metrics       *metrics
	buffers       bufferPool
	writers       sync.WaitGroup // goroutines that drain slow connections
	timeoutAnswer []byte
	base          context.Context // of requests; ends with the server
	draining      atomic.Bool     // asked to stop: connections are closed behind their answers
	stopping      atomic.Bool     // nothing new is begun
	open          atomic.Int64    // connections
	listener      *netloop.Listener
	loop          netpoll.EventLoop
}

var _ tier.Gateway = (*Server)(nil)

// New makes a Server and listens; connections are served from Run on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("httpentry configuration: %w", err)
	}
	switch {
	case deps.JSON == nil:
		return nil, errors.New("httpentry: no JSON codec")
	case cfg.Demo && deps.Demo == nil:
		return nil, errors.New("httpentry: demo is on, but nothing makes tokens for it")
	}
	s := &Server{
		cfg: cfg, deps: deps, log: deps.Gate.Log, logics: deps.Gate.Logics, keys: deps.Gate.Keys, json: deps.JSON,
		apps: map[string]App{}, nonces: newNonces(cfg.SignatureWindow),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.executor = execute.Executor{Logics: s.logics, Timeout: cfg.RequestTimeout, Log: s.log}
	for _, a := range cfg.Apps {
		s.apps[a.Name] = a
	}
	s.proxies, _ = parseNetworks(cfg.TrustedProxies)  // validated above
	s.metricsFrom, _ = parseNetworks(cfg.MetricsFrom) // validated above
	if err := s.build(); err != nil {
		return nil, fmt.Errorf("httpentry: %w", err)
	}
	return s, nil
}

// build makes the parts that can fail.
func (s *Server) build() (err error) {
	if s.metrics, err = newMetrics(s.deps.Gate.Metrics, &s.open); err != nil {
		return err
	}
	if s.schemas, err = newSchemas(); err != nil {
		return err
	}
	sids := newSigner(s.cfg.Poll.Secret)
	gated := s.deps.Gate
	gated.Keys = &verifier{keys: s.keys, sids: sids}
	if s.gate, err = gate.New(s.cfg.Gate, gated); err != nil {
		return err
	}
	s.pollers = newPollers(s.cfg.Poll, s.gate, s.keys, sids, s.log, func(n int) { s.metrics.polls.Add(float64(n)) })
	if err := s.buildRouter(); err != nil {
		return err
	}
	if s.loop, err = netpoll.NewEventLoop(onRequest, netpoll.WithOnPrepare(s.prepare)); err != nil {
		return fmt.Errorf("event loop: %w", err)
	}
	s.listener, err = netloop.Listen(s.cfg.Listen)
	return err
}

func (s *Server) buildRouter() (err error) {
	s.table = s.routes()
	if s.openapi, err = s.document(); err != nil {
		return err
	}
	s.engine = hertz.NewEngine(config.NewOptions([]config.Option{
		{F: func(o *config.Options) {
			o.HandleMethodNotAllowed = true
			o.RedirectTrailingSlash = false
			o.DisablePrintRoute = true
			o.MaxRequestBodySize = s.cfg.MaxBodyBytes
		}},
	}))
	s.engine.Use(s.observe)
	s.table.register(s, s.engine)
	s.timeoutAnswer = s.encodeTimeout()
	return nil
}

// Addr clients reach the server at.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Downlink brings what a Logic has for connections.
func (s *Server) Downlink(ctx context.Context, batch *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	return s.gate.Downlink(ctx, batch)
}

// Limit puts the live keys of cfg in force.
func (s *Server) Limit(cfg *Config) { s.gate.Limit(&cfg.Gate) }

// drain empties the server before it stops. Its clients are served meanwhile.
func (s *Server) drain(ctx context.Context) {
	began, clients := time.Now(), s.open.Load()
	s.draining.Store(true)
	time.Sleep(s.cfg.Gate.DrainNotice)
	if err := s.listener.Stop(); err != nil {
		s.log.Warn("httpentry cannot refuse connections while it stops", "err", err)
	}
	s.gate.Drain(ctx)
	s.log.Info("httpentry is drained", "connections", clients, "took", time.Since(began).Round(time.Millisecond))
}

// Run serves until ctx ends. Then it takes no more connections and sends the clients of polls
// and WebSockets elsewhere, spread over DrainDelay; who has not left by himself is closed with
// 4301. Requests under way are finished, for which they have StopTimeout.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("httpentry listens", "addr", s.Addr().String())
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.base = background
	served := make(chan error, 1) // the loop's only answer
	go func() { served <- s.loop.Serve(s.listener) }()
	gateCtx, stopGate := context.WithCancel(background)
	defer stopGate()
	gated := make(chan error, 1)
	go func() { gated <- s.gate.Run(gateCtx) }()

	var failure error
	select {
	case <-ctx.Done():
		s.drain(gateCtx)
	case err := <-served: // nobody asked it to stop
		failure = fmt.Errorf("httpentry stopped listening: %w", err)
		served <- nil
	}
	s.stopping.Store(true)
	s.pollers.stop()
	stopGate()
	err := <-gated
	end, cancel := context.WithTimeout(background, s.cfg.StopTimeout)
	defer cancel()
	if err := s.loop.Shutdown(end); err != nil {
		s.log.Warn("requests were still under way at the end", "err", err)
	}
	<-served
	s.writers.Wait()
	return errors.Join(failure, err)
}

// prepare takes a new connection, before its first byte is read. It runs on the poller.
func (s *Server) prepare(nc netpoll.Connection) context.Context {
	c := newConn(s, nc)
	open := s.open.Add(1)
	_ = nc.AddCloseCallback(func(netpoll.Connection) error {
		s.open.Add(-1)
		c.onClosed()
		return nil
	})
	switch {
	case s.stopping.Load():
		c.refuse(code.Errorf(code.Unavailable, "the server is stopping"))
	case s.cfg.MaxConnections > 0 && open > int64(s.cfg.MaxConnections):
		err := code.Errorf(code.Overloaded, "the server holds as many connections as it may")
		err.RetryAfter = 5 * time.Second
		c.refuse(err)
	}
	return c
}

func onRequest(ctx context.Context, _ netpoll.Connection) error {
	ctx.(*conn).onData()
	return nil
}

// notReady lists what keeps the server from doing its work; empty = nothing.
func (s *Server) notReady() []string {
	var reasons []string
	if s.draining.Load() || s.stopping.Load() {
		reasons = append(reasons, "the server is stopping")
	}
	if _, err := s.logics.Pick(0); err != nil {
		reasons = append(reasons, code.From(err).Message)
	}
	if s.deps.Ready != nil {
		reasons = append(reasons, s.deps.Ready()...)
	}
	return reasons
}
