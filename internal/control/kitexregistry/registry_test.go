package kitexregistry

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"hongyan/internal/control"
	"hongyan/internal/control/local"
)

func TestServersAreFoundByClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services := local.NewServices()
		defer services.Close()
		resolver := NewResolver(services)
		defer resolver.Close()
		name := resolver.Target(t.Context(), rpcinfo.NewEndpointInfo("imui", "Send", nil, nil))
		if _, err := resolver.Resolve(t.Context(), name); err == nil {
			t.Error("a service that nobody offers was found")
		}
		one, two := NewRegistry(services, ""), NewRegistry(services, "imui.example:9000")
		info := &registry.Info{ServiceName: "imui", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, Weight: 5, Tags: map[string]string{"zone": "a"}}
		if err := errors.Join(one.Register(info), two.Register(&registry.Info{ServiceName: "imui", Addr: &net.TCPAddr{Port: 80}})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		found, err := resolver.Resolve(t.Context(), name)
		if err != nil || len(found.Instances) != 2 || !found.Cacheable || found.CacheKey != "imui" {
			t.Fatalf("found %+v, %v", found, err)
		}
		zone, _ := found.Instances[0].Tag("zone")
		if a, b := found.Instances[0], found.Instances[1]; a.Address().String() != "10.0.0.1:80" || a.Weight() != 5 || zone != "a" || b.Address().String() != "imui.example:9000" {
			t.Errorf("found %v, %v", a, b)
		}
		if err := one.Deregister(info); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		left, err := resolver.Resolve(t.Context(), name)
		if change, ok := resolver.Diff("imui", found, left); err != nil || !ok || len(change.Removed) != 1 {
			t.Errorf("after one left: %+v, %v", change, err)
		}
		_ = two.Deregister(info)
	})
}

func TestRegistryRefuses(t *testing.T) {
	services := local.NewServices()
	r := NewRegistry(services, "")
	for name, info := range map[string]*registry.Info{
		"nothing":             nil,
		"no address":          {ServiceName: "imui"},
		"an address of all":   {ServiceName: "imui", Addr: &net.TCPAddr{IP: net.IPv6unspecified, Port: 80}},
		"no host":             {ServiceName: "imui", Addr: &net.TCPAddr{Port: 80}},
		"a name with a slash": {ServiceName: "a/b", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}},
	} {
		if r.Register(info) == nil {
			t.Errorf("%s: registered", name)
		}
	}
	if r.Deregister(&registry.Info{ServiceName: "imui"}) == nil {
		t.Error("deregistered what was not registered")
	}
	resolver := NewResolver(services)
	defer resolver.Close()
	_ = services.Close()
	if _, err := resolver.Resolve(t.Context(), "imui"); !errors.Is(err, control.ErrClosed) {
		t.Errorf("resolved by a closed control centre: %v", err)
	}
	var _ discovery.Resolver = resolver
}
