package entry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/gate"
	"hongyan/internal/netloop"
	"hongyan/internal/wire"
)

// Deps of a Server. JSON may be shared; the gate's Log and Metrics may be nil.
type Deps struct {
	Gate gate.Deps
	JSON *wire.JSON // for clients that speak JSON in frames
}

// Server is the TCP gateway. netloop.Setup is to be called before the first one is made.
type Server struct {
	cfg      Config
	gate     *gate.Gate
	json     *wire.JSON
	log      *slog.Logger
	listener *netloop.Listener
	loop     netpoll.EventLoop
	full     []byte // what a connection over the limit is told
	proxies  networks

	open    atomic.Int64
	turned  prometheus.Counter
	writers sync.WaitGroup // goroutines that drain slow connections
	buffers sync.Pool      // *[]byte
}

var _ tier.Gateway = (*Server)(nil)

// New makes a Server and listens; connections are served from Run on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("entry configuration: %w", err)
	}
	if deps.JSON == nil {
		return nil, errors.New("entry: no JSON codec")
	}
	log := deps.Gate.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, json: deps.JSON, log: log, full: fullFrame()}
	s.proxies, _ = parseNetworks(cfg.ProxyProtocol) // validated above
	s.buffers.New = func() any { return new([]byte) }
	s.turned = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "hongyan", Subsystem: "entry", Name: "turned_away_total", Help: "Connections over max_connections.",
	})
	if reg := deps.Gate.Metrics; reg != nil {
		if err := reg.Register(s.turned); err != nil {
			return nil, fmt.Errorf("entry metrics: %w", err)
		}
	}
	var err error
	if s.gate, err = gate.New(cfg.Gate, deps.Gate); err != nil {
		return nil, err
	}
	if s.loop, err = netpoll.NewEventLoop(onRequest, netpoll.WithOnPrepare(s.prepare)); err != nil {
		return nil, fmt.Errorf("entry event loop: %w", err)
	}
	if s.listener, err = netloop.Listen(cfg.Listen); err != nil {
		return nil, fmt.Errorf("entry: %w", err)
	}
	return s, nil
}

// Addr clients reach the server at.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// closeGrace is how long Run waits at its end for connections to take their last frame.
const closeGrace = 2 * time.Second

// Run serves until ctx ends. Then it takes no more connections, sends its clients elsewhere,
// spread over DrainDelay, and closes with 4301 who has not left by himself.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("entry listens", "addr", s.Addr().String())
	served := make(chan error, 1) // the loop's only answer
	go func() { served <- s.loop.Serve(s.listener) }()
	gateCtx, stopGate := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGate()
	gated := make(chan error, 1)
	go func() { gated <- s.gate.Run(gateCtx) }()

	var failure error
	select {
	case <-ctx.Done():
		s.drain(gateCtx)
	case err := <-served: // nobody asked it to stop
		failure = fmt.Errorf("entry stopped listening: %w", err)
		served <- nil
	}
	stopGate() // what is still there is closed
	err := <-gated
	s.awaitEmpty(closeGrace)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := s.loop.Shutdown(end); err != nil {
		s.log.Warn("connections were still busy at the end", "err", err)
	}
	<-served
	s.writers.Wait()
	return errors.Join(failure, err)
}

func (s *Server) awaitEmpty(grace time.Duration) {
	for end := time.Now().Add(grace); s.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// Downlink brings what a Logic has for connections.
func (s *Server) Downlink(ctx context.Context, req *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	return s.gate.Downlink(ctx, req)
}

// Limit puts the live keys of cfg in force.
func (s *Server) Limit(cfg *Config) { s.gate.Limit(&cfg.Gate) }

// drain empties the server before it stops. Its clients are served meanwhile.
func (s *Server) drain(ctx context.Context) {
	began, clients := time.Now(), s.open.Load()
	time.Sleep(s.cfg.Gate.DrainNotice)
	if err := s.listener.Stop(); err != nil {
		s.log.Warn("entry cannot refuse connections while it stops", "err", err)
	}
	s.gate.Drain(ctx)
	s.log.Info("entry is drained", "clients", clients, "took", time.Since(began).Round(time.Millisecond))
}

// prepare takes a new connection, before its first byte is read. It runs on the poller.
func (s *Server) prepare(nc netpoll.Connection) context.Context {
	c := &conn{Context: context.Background(), srv: s, nc: nc, out: netloop.NewWriter(nc, &s.writers)}
	_ = nc.AddCloseCallback(func(netpoll.Connection) error { c.gone(); return nil })
	if s.open.Add(1) > int64(s.cfg.MaxConnections) {
		s.open.Add(-1)
		s.turned.Inc()
		c.ended.Store(true)
		c.out.Write(s.full, len(s.full))
		c.out.Close()
		return c
	}
	c.counted = true
	from := addrOf(nc.RemoteAddr())
	if s.proxies.contain(from) {
		c.header = time.AfterFunc(proxyTimeout, func() { c.Close(code.CloseProtocolError, "no PROXY header") })
		return c
	}
	c.begin(from)
	return c
}

func fullFrame() []byte {
	body, _ := (&im.Error{ // encoding a flat message cannot fail
		Code:         uint32(code.CloseOverloaded),
		Name:         code.CloseOverloaded.Name(),
		Message:      "the gateway holds as many connections as it may",
		Retryable:    true,
		RetryAfterMs: 5000,
	}).Marshal(nil)
	return wire.Append(nil, &wire.Frame{Cmd: im.Cmd_ERROR, Flags: wire.FlagOneWay, Body: body})
}

func addrOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}
