package main

import (
	"fmt"
	"sync"

	"hongyan/idl/tier"
	"hongyan/internal/rpc"
)

// fabric reaches the instances of other tiers by address.
type fabric interface {
	Logic(addr string) (tier.Logic, error)
	Das(addr string) (tier.Das, error)
	Gateway(addr string) (tier.Gateway, error)
	Queue(addr string) (tier.Queue, error)
	Jtransit(addr string) (tier.Jtransit, error)
}

// direct is the fabric of one process: an address is a name, and a call is a call.
type direct struct {
	mu       sync.RWMutex
	handlers map[string]any
}

func newDirect() *direct { return &direct{handlers: map[string]any{}} }

func (d *direct) add(addr string, handler any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handlers[addr] = handler
}

func (d *direct) Logic(addr string) (tier.Logic, error)     { return lookup[tier.Logic](d, addr) }
func (d *direct) Das(addr string) (tier.Das, error)         { return lookup[tier.Das](d, addr) }
func (d *direct) Gateway(addr string) (tier.Gateway, error) { return lookup[tier.Gateway](d, addr) }
func (d *direct) Queue(addr string) (tier.Queue, error)     { return lookup[tier.Queue](d, addr) }

func (d *direct) Jtransit(addr string) (tier.Jtransit, error) {
	return lookup[tier.Jtransit](d, addr)
}

func lookup[T any](d *direct, addr string) (T, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	h, ok := d.handlers[addr].(T)
	if !ok {
		var none T
		return none, fmt.Errorf("nothing at %q in this process", addr)
	}
	return h, nil
}

// kitex is the fabric of a cluster: an address is host:port.
type kitex struct{ options rpc.Options }

func (k kitex) Logic(addr string) (tier.Logic, error)     { return rpc.DialLogic(addr, k.options) }
func (k kitex) Das(addr string) (tier.Das, error)         { return rpc.DialDas(addr, k.options) }
func (k kitex) Gateway(addr string) (tier.Gateway, error) { return rpc.DialGateway(addr, k.options) }
func (k kitex) Queue(addr string) (tier.Queue, error)     { return rpc.DialQueue(addr, k.options) }
func (k kitex) Jtransit(addr string) (tier.Jtransit, error) {
	return rpc.DialJtransit(addr, k.options)
}
