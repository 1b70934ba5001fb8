package jtransit

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"hongyan/internal/rpc"
)

// table is what the names mean. It never changes: a new configuration is a new table.
type table map[string]*call

// newTable reads every IDL and makes one client for each address of each service. Nothing
// is connected yet. The error is one line that names the call.
func newTable(cfg Config) (table, error) {
	files := map[string]protoreflect.FileDescriptor{}
	clients := map[[2]string]*rpc.Foreign{} // by service and address
	t := table{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Calls)) {
		c, err := newCall(cfg.Calls[name].withDefaults(), cfg.MaxBody, files, clients)
		if err != nil {
			return nil, fmt.Errorf("call %q: %w", name, err)
		}
		t[name] = c
	}
	return t, nil
}

func newCall(cfg CallConfig, maxBody int, files map[string]protoreflect.FileDescriptor, clients map[[2]string]*rpc.Foreign) (*call, error) {
	file := files[cfg.IDL]
	if file == nil {
		var err error
		if file, err = compile(cfg.IDL); err != nil {
			return nil, err
		}
		files[cfg.IDL] = file
	}
	m, err := findMethod(file, cfg.Service, cfg.Method)
	if err != nil {
		return nil, err
	}
	c := &call{cfg: cfg, maxBody: maxBody, method: m, breaker: &breaker{cfg: cfg.Breaker}}
	for _, addr := range cfg.Addresses {
		key := [2]string{m.pkg + "." + m.service, addr}
		if clients[key] == nil {
			// Encoded, a body is seldom larger than its JSON; with room for small ones.
			client, err := rpc.DialForeign(addr, m.pkg, m.service, rpc.Options{MaxBody: maxBody + 64<<10})
			if err != nil {
				return nil, err
			}
			clients[key] = client
		}
		c.clients = append(c.clients, clients[key])
	}
	return c, nil
}
