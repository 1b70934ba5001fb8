package controltest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"hongyan/internal/control"
)

// RunServices runs the suite that every control.Services passes. open returns new, empty ones.
func RunServices(t *testing.T, open func(t *testing.T) control.Services) {
	cases := []struct {
		name string
		run  func(*testing.T, control.Services)
	}{
		{"what is announced is found while it lives", announced},
		{"announced anew, the end of the old life removes nothing", announcedAnew},
		{"bad names and endpoints are refused", badServices},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			services := open(t)
			if closer, ok := services.(interface{ Close() error }); ok {
				t.Cleanup(func() { _ = closer.Close() })
			}
			c.run(t, services)
		})
	}
}

func announced(t *testing.T, services control.Services) {
	w := watchService(t, services, "orders")
	w.until("")
	ctx, die := context.WithCancel(t.Context())
	defer die()
	announce(t, services, ctx, "orders", control.Endpoint{Addr: "b:1", Weight: 5, Tags: map[string]string{"zone": "x"}})
	w.until("tcp b:1 5 map[zone:x]")
	announce(t, services, t.Context(), "orders-old", control.Endpoint{Addr: "z:1"})
	announce(t, services, t.Context(), "orders", control.Endpoint{Addr: "a:1"})
	w.until("tcp a:1 10 map[], tcp b:1 5 map[zone:x]")
	die()
	w.until("tcp a:1 10 map[]")
}

func announcedAnew(t *testing.T, services control.Services) {
	ctx, die := context.WithCancel(t.Context())
	announce(t, services, ctx, "orders", control.Endpoint{Addr: "a:1", Weight: 1})
	announce(t, services, t.Context(), "orders", control.Endpoint{Addr: "a:1", Weight: 2})
	die()
	announce(t, services, t.Context(), "orders", control.Endpoint{Addr: "z:1", Weight: 3}) // something to wait for after die
	watchService(t, services, "orders").until("tcp a:1 2 map[], tcp z:1 3 map[]")
}

func badServices(t *testing.T, services control.Services) {
	for _, name := range []string{"", "a/b", "a b", strings.Repeat("n", 129)} {
		if err := services.Announce(t.Context(), name, control.Endpoint{Addr: "a:1"}); err == nil {
			t.Errorf("service %q: announced", name)
		}
		if err := services.WatchService(t.Context(), name, func([]control.Endpoint) {}); err == nil {
			t.Errorf("service %q: watched", name)
		}
	}
	if err := services.Announce(t.Context(), "orders", control.Endpoint{}); err == nil {
		t.Error("an endpoint without an address was announced")
	}
}

func announce(t *testing.T, services control.Services, ctx context.Context, name string, e control.Endpoint) {
	t.Helper()
	if err := services.Announce(ctx, name, e); err != nil {
		t.Fatal(err)
	}
}

func watchService(t *testing.T, services control.Services, name string) *textWatcher {
	return watchText(t, func(ctx context.Context, show func(string)) error {
		return services.WatchService(ctx, name, func(set []control.Endpoint) {
			words := make([]string, len(set))
			for i, e := range set {
				words[i] = fmt.Sprintf("%s %s %d %v", e.Network, e.Addr, e.Weight, e.Tags)
			}
			show(strings.Join(words, ", "))
		})
	})
}
