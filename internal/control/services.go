package control

import (
	"context"
	"fmt"
	"strings"
)

// Endpoint is one instance of a service that is not a tier: the platform's own services,
// and what we offer to them.
type Endpoint struct {
	Network string            `json:"network"` // tcp
	Addr    string            `json:"address"` // host:port
	Weight  int               `json:"weight"`  // share of the calls, against the others; 10 is usual
	Tags    map[string]string `json:"tags,omitempty"`
}

// Services finds services by name, and makes ours found. Safe for concurrent use.
type Services interface {
	// Announce makes an endpoint of a service known until ctx ends. It returns once it is
	// known, or, where the registry is away, once it will be as soon as that is back.
	Announce(ctx context.Context, service string, e Endpoint) error
	// WatchService calls fn with the endpoints of a service, in the order of addresses: at
	// once (none, for a service nobody knows) and after changes, serially, on the calling
	// goroutine, until ctx ends. ErrClosed ends it early. The slice is shared: nobody changes it.
	WatchService(ctx context.Context, service string, fn func([]Endpoint)) error
}

// DefaultWeight of an endpoint that names none, as stock Kitex resolvers have it.
const DefaultWeight = 10

// ValidService tells what is wrong with the name of a service.
func ValidService(name string) error {
	if name == "" || len(name) > 128 || strings.ContainsAny(name, "/ \t\r\n\x00") {
		return fmt.Errorf("service name %.40q: want 1..128 bytes without slashes and blanks", name)
	}
	return nil
}

// Normalize returns the endpoint with its defaults filled in, or what is wrong with it.
func (e Endpoint) Normalize() (Endpoint, error) {
	if e.Network == "" {
		e.Network = "tcp"
	}
	if e.Weight <= 0 {
		e.Weight = DefaultWeight
	}
	if e.Addr == "" || strings.ContainsAny(e.Addr, " \t\r\n\x00") {
		return e, fmt.Errorf("endpoint: address %q is empty or holds blanks", e.Addr)
	}
	return e, nil
}
