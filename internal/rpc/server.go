package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/platform"
	"hongyan/idl/platform/imui"
	"hongyan/idl/tier"
	"hongyan/idl/tier/das"
	"hongyan/idl/tier/gateway"
	"hongyan/idl/tier/jtransit"
	"hongyan/idl/tier/logic"
	"hongyan/idl/tier/queue"
)

// ServerOptions; zero fields take their defaults.
type ServerOptions struct {
	// MaxBody bounds one request and one reply, in bytes. Default 64 MiB.
	MaxBody int
	// DrainFor is how long calls under way may go on after Run's context ends. Default 5 s.
	DrainFor time.Duration
	Log      *slog.Logger          // default: none
	Metrics  prometheus.Registerer // default: none
}

// Service is a generated interface and the handler behind it.
type Service struct {
	name     string
	register func(server.Server, ...server.RegisterOption) error
}

func service[H any](name string, handler H, register func(server.Server, H, ...server.RegisterOption) error) Service {
	return Service{name, func(s server.Server, opts ...server.RegisterOption) error { return register(s, handler, opts...) }}
}

// Logic serves a Logic. Like all handlers it must be a pointer.
func Logic(h tier.Logic) Service { return service("Logic", h, logic.RegisterService) }

// Gateway serves a gateway.
func Gateway(h tier.Gateway) Service { return service("Gateway", h, gateway.RegisterService) }

// Das serves a das.
func Das(h tier.Das) Service { return service("Das", h, das.RegisterService) }

// Queue serves a queue.
func Queue(h tier.Queue) Service { return service("Queue", h, queue.RegisterService) }

// Jtransit serves a jtransit.
func Jtransit(h tier.Jtransit) Service { return service("Jtransit", h, jtransit.RegisterService) }

// IMUI serves an imui. It also gets calls that name no service, as old clients send them.
func IMUI(h platform.IMUI) Service { return service("IMUI", h, imui.RegisterService) }

// Server hosts services at one address.
type Server struct {
	ln   net.Listener
	kit  server.Server
	log  *slog.Logger
	seen *prometheus.HistogramVec // by service, method, code; nil = no metrics
	exit chan error               // capacity 1; what Kitex waits for instead of signals
}

// NewServer listens at addr. Callers that connect wait until Run serves them.
func NewServer(addr string, opt ServerOptions, services ...Service) (*Server, error) {
	if len(services) == 0 {
		return nil, errors.New("rpc server: no services")
	}
	s := &Server{log: opt.Log, exit: make(chan error, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.register(opt.Metrics); err != nil {
		return nil, err
	}
	codec, err := newServerCodec(cmp.Or(opt.MaxBody, defaultMaxBody))
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	ln, err := listen(addr)
	if err != nil {
		return nil, fmt.Errorf("rpc server: %w", err)
	}
	s.ln = ln
	s.kit = server.NewServer(
		server.WithListener(ln),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
		server.WithCodec(codec),
		server.WithEnableContextTimeout(true),
		server.WithExitWaitTime(cmp.Or(opt.DrainFor, 5*time.Second)),
		server.WithExitSignal(func() <-chan error { return s.exit }),
		server.WithMiddleware(s.answer),
	)
	for _, svc := range services {
		var opts []server.RegisterOption
		if svc.name == "IMUI" {
			opts = append(opts, server.WithFallbackService())
		}
		if err := svc.register(s.kit, opts...); err != nil {
			_ = ln.Close()
			return nil, fmt.Errorf("rpc server: register %s: %w", svc.name, err)
		}
	}
	return s, nil
}

// Addr is where callers reach the server.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Run serves until ctx ends, then lets the calls under way finish.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.exit <- nil })
	defer stop()
	if err := s.kit.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("rpc server at %s: %w", s.Addr(), err)
	}
	return nil
}

// Close gives up the address of a server that was never run.
func (s *Server) Close() error { return s.ln.Close() }

// answer turns the error of a handler into the status of the reply. What the caller may
// not see, and panics, are logged here.
func (s *Server) answer(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, req, resp any) error {
		start := time.Now()
		ri := rpcinfo.GetRPCInfo(ctx)
		err := next(ctx, req, resp)
		c := code.OK
		if err != nil {
			e := s.visible(ri, err)
			c = e.Code
			if set, ok := ri.Invocation().(rpcinfo.InvocationSetter); ok {
				set.SetBizStatusErr(toWire(e))
				err = nil
			}
		}
		if s.seen != nil {
			s.seen.WithLabelValues(ri.Invocation().ServiceName(), ri.Invocation().MethodName(), c.Name()).Observe(time.Since(start).Seconds())
		}
		return err
	}
}

func (s *Server) visible(ri rpcinfo.RPCInfo, err error) *code.Error {
	e := code.From(err)
	if e.Code == code.OK {
		e = code.Errorf(code.Internal, "internal error")
	}
	if _, deliberate := errors.AsType[*code.Error](err); deliberate {
		return e
	}
	method := ri.Invocation().ServiceName() + "." + ri.Invocation().MethodName()
	if d, ok := errors.AsType[*kerrors.DetailedError](err); ok && errors.Is(err, kerrors.ErrPanic) {
		s.log.Error("handler panicked", "method", method, "err", d.Error(), "stack", d.Stack())
	} else if e.Code == code.Internal {
		s.log.Error("handler failed", "method", method, "err", err)
	}
	return e
}

func (s *Server) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	s.seen = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "hongyan_rpc_call_seconds",
		Help:    "Time that handlers took, by service, method and code.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 4, 9),
	}, []string{"service", "method", "code"})
	err := reg.Register(s.seen)
	if twin, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok { // two servers in one process
		s.seen, err = twin.ExistingCollector.(*prometheus.HistogramVec), nil
	}
	if err != nil {
		return fmt.Errorf("rpc server: %w", err)
	}
	return nil
}
