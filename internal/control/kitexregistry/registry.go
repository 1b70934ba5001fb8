// Package kitexregistry is Kitex's registry and resolver over control.Services: a Kitex
// server registers itself, a Kitex client finds services, with whatever control centre the
// process has. In etcd both use the layout of Kitex's stock registry, so that the other side
// may be any Kitex program.
package kitexregistry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"hongyan/internal/control"
)

// Registry announces the services of Kitex servers, for server.WithRegistry.
type Registry struct {
	services  control.Services
	advertise string

	mu   sync.Mutex
	live map[string]context.CancelFunc // by service
}

var _ registry.Registry = (*Registry)(nil)

// NewRegistry makes one. advertise is the host:port that others reach the server at; empty =
// the address that it listens on, which then must name a host.
func NewRegistry(services control.Services, advertise string) *Registry {
	return &Registry{services: services, advertise: advertise, live: map[string]context.CancelFunc{}}
}

// Register implements registry.Registry. Registered twice, the newer holds.
func (r *Registry) Register(info *registry.Info) error {
	if info == nil || info.Addr == nil {
		return errors.New("register: no address")
	}
	addr := r.advertise
	if addr == "" {
		addr = info.Addr.String()
	}
	if host, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("register %s: %w", info.ServiceName, err)
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("register %s: nobody can reach %s: say what address to advertise", info.ServiceName, addr)
	}
	ctx, end := context.WithCancel(context.Background())
	e := control.Endpoint{Network: info.Addr.Network(), Addr: addr, Weight: info.Weight, Tags: info.Tags}
	if err := r.services.Announce(ctx, info.ServiceName, e); err != nil {
		end()
		return fmt.Errorf("register %s: %w", info.ServiceName, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.live[info.ServiceName]; old != nil {
		old()
	}
	r.live[info.ServiceName] = end
	return nil
}

// Deregister implements registry.Registry.
func (r *Registry) Deregister(info *registry.Info) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if info == nil || r.live[info.ServiceName] == nil {
		return errors.New("deregister: not registered")
	}
	r.live[info.ServiceName]()
	delete(r.live, info.ServiceName)
	return nil
}

// Resolver finds services, for client.WithResolver. It follows each service it was asked for
// until it is closed, so that Resolve answers from memory.
type Resolver struct {
	services control.Services
	life     context.Context
	end      context.CancelFunc
	wg       sync.WaitGroup

	mu    sync.Mutex
	found map[string]*following
}

var _ discovery.Resolver = (*Resolver)(nil)

// following is one service as last seen.
type following struct {
	once  sync.Once
	first chan struct{} // closed when there is something to see

	mu        sync.Mutex
	endpoints []control.Endpoint
	err       error // why nobody follows any more
}

// NewResolver makes one that follows nothing yet.
func NewResolver(services control.Services) *Resolver {
	r := &Resolver{services: services, found: map[string]*following{}}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Close ends following. Clients that use it must be gone.
func (r *Resolver) Close() error {
	r.end()
	r.wg.Wait()
	return nil
}

// Target implements discovery.Resolver.
func (*Resolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	return target.ServiceName()
}

// Name implements discovery.Resolver.
func (*Resolver) Name() string { return "hongyan" }

// Diff implements discovery.Resolver.
func (*Resolver) Diff(key string, prev, next discovery.Result) (discovery.Change, bool) {
	return discovery.DefaultDiff(key, prev, next)
}

// Resolve implements discovery.Resolver.
func (r *Resolver) Resolve(ctx context.Context, service string) (discovery.Result, error) {
	f := r.follow(service)
	select {
	case <-f.first:
	case <-ctx.Done():
		return discovery.Result{}, fmt.Errorf("resolve %s: %w", service, ctx.Err())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return discovery.Result{}, fmt.Errorf("resolve %s: %w", service, f.err)
	}
	if len(f.endpoints) == 0 {
		return discovery.Result{}, fmt.Errorf("resolve %s: no instance is registered", service)
	}
	result := discovery.Result{Cacheable: true, CacheKey: service}
	for _, e := range f.endpoints {
		result.Instances = append(result.Instances, discovery.NewInstance(e.Network, e.Addr, e.Weight, e.Tags))
	}
	return result, nil
}

func (r *Resolver) follow(service string) *following {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.found[service]
	if f == nil {
		f = &following{first: make(chan struct{})}
		r.found[service] = f
		r.wg.Go(func() {
			f.end(r.services.WatchService(r.life, service, f.show))
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.found, service) // to be tried anew
		})
	}
	return f
}

func (f *following) show(endpoints []control.Endpoint) {
	f.mu.Lock()
	f.endpoints = endpoints
	f.mu.Unlock()
	f.once.Do(func() { close(f.first) })
}

func (f *following) end(err error) {
	if err == nil {
		err = control.ErrClosed
	}
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	f.once.Do(func() { close(f.first) })
}
