package rpc

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/callopt"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/remote/codec"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/rpcinfo/remoteinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/transport"

	"hongyan/idl/code"
)

// Options of a client; zero fields take their defaults.
type Options struct {
	// ConnectTimeout bounds one attempt to connect. Default 200 ms: a host that is down
	// costs this much, a dead process on a living host nothing.
	ConnectTimeout time.Duration
	// Timeout bounds calls whose context has no deadline. Default 10 s: without one, a
	// paused peer would hold its callers for ever.
	Timeout time.Duration
	// MaxIdle is how many idle connections are kept; more callers at once than that open
	// and close connections. Default 256.
	MaxIdle int
	// IdleTimeout closes connections unused for so long. Default 1 min.
	IdleTimeout time.Duration
	// MaxBody bounds one request and one reply, in bytes. Default 64 MiB.
	MaxBody int
}

const (
	defaultMaxBody = 64 << 20
	// weight is asked for by Kitex's instances and means nothing where there is one.
	weight = 10
)

func (o Options) withDefaults() Options {
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 200*time.Millisecond)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.MaxIdle = cmp.Or(o.MaxIdle, 256)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, time.Minute)
	o.MaxBody = cmp.Or(o.MaxBody, defaultMaxBody)
	return o
}

// idle is how Kitex keeps connections.
func (o Options) idle() connpool.IdleConfig {
	return connpool.IdleConfig{MaxIdlePerAddress: o.MaxIdle, MaxIdleGlobal: o.MaxIdle, MaxIdleTimeout: o.IdleTimeout}
}

// dial makes a Kitex client of the service at addr with a generated constructor. Nothing
// is connected yet. The connections close when the client is collected.
func dial[C any](addr, service string, opt Options, newClient func(string, ...client.Option) (C, error)) (C, error) {
	var none C
	network, err := split(addr)
	if err != nil {
		return none, fmt.Errorf("dial %s: %w", service, err)
	}
	opt = opt.withDefaults()
	c, err := newClient(service,
		client.WithTransportProtocol(transport.TTHeaderFramed),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
		client.WithLongConnection(opt.idle()),
		client.WithConnectTimeout(opt.ConnectTimeout),
		client.WithCodec(codec.NewDefaultCodecWithSizeLimit(opt.MaxBody)),
		client.WithMiddleware(direct(discovery.NewInstance(network, addr, weight, nil), opt.Timeout)),
	)
	if err != nil {
		return none, fmt.Errorf("dial %s at %s: %w", service, addr, err)
	}
	return c, nil
}

// direct sends every call to one instance, past Kitex's balancer and its six silent
// attempts, and bounds it: the deadline travels to the server in the header, and guards
// the read where nobody watches the context.
func direct(to discovery.Instance, timeout time.Duration) endpoint.Middleware {
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, req, resp any) error {
			ri := rpcinfo.GetRPCInfo(ctx)
			remoteinfo.AsRemoteInfo(ri.To()).SetInstance(to)
			left := timeout
			if deadline, ok := ctx.Deadline(); ok {
				left = max(time.Millisecond, time.Until(deadline)) // the header counts whole milliseconds
			}
			cfg := rpcinfo.AsMutableRPCConfig(ri.Config())
			if err := cfg.SetRPCTimeout(left); err != nil {
				return err
			}
			cfg.LockConfig(rpcinfo.BitRPCTimeout)
			return next(ctx, req, resp)
		}
	}
}

// call runs one generated method and translates its error. A context that has ended
// sends nothing.
func call[Req, Rsp any](ctx context.Context, addr string, method func(context.Context, *Req, ...callopt.Option) (*Rsp, error), req *Req) (*Rsp, error) {
	if err := ctx.Err(); err != nil {
		return nil, code.From(err)
	}
	rsp, err := method(ctx, req)
	if err != nil {
		return nil, clientError(addr, err)
	}
	return rsp, nil
}
