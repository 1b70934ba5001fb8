package jtransit

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"hongyan/internal/control"
)

// table is what the names mean. It never changes: a new configuration is a new table, which
// takes over what stays the same.
type table struct {
	calls map[string]*call
	users int // calls under way with it, and 1 while it is in force; guarded by Jtransit.mu
}

// clients of all calls, as they were taken.
func (t *table) clients() []*client {
	var used []*client
	for _, c := range t.calls {
		used = append(used, c.clients...)
	}
	return used
}

// builder makes one table out of what is known now and of the table before.
type builder struct {
	j     *Jtransit
	read  texts
	found map[string][]control.Endpoint // by service
	old   *table
	units map[string]*unit // by path; those of before that are still fresh, and new ones
}

// errNoServices: discover without a control centre.
var errNoServices = errors.New("discover needs a control centre")

// unit is the IDL at a path. One that was compiled before, well or not, is used again unless
// what it was made of has changed.
func (b *builder) unit(path string) *unit {
	if u := b.units[path]; u != nil {
		return u
	}
	u := b.j.units[path]
	if u == nil || !u.fresh(b.read) {
		u = compile(path, b.read)
	}
	b.units[path] = u
	return u
}

// make builds the call that a configuration asks for.
func (b *builder) make(name string, cfg CallConfig) (*call, error) {
	cfg, err := cfg.complete(name)
	if err != nil {
		return nil, err
	}
	if cfg.Discover != "" && b.j.deps.Services == nil {
		return nil, errNoServices
	}
	u := b.unit(cfg.IDL)
	if u.err != nil {
		return nil, u.err
	}
	m, err := b.method(name, u, cfg)
	if err != nil {
		return nil, err
	}
	return b.assemble(name, cfg, u, m)
}

// method is that of before where nothing of it has changed.
func (b *builder) method(name string, u *unit, cfg CallConfig) (method, error) {
	if was := b.old.calls[name]; was != nil && was.unit == u && was.cfg.Service == cfg.Service && was.cfg.Method == cfg.Method {
		return was.method, nil
	}
	return u.file.method(cfg.Service, cfg.Method)
}

// again is a call as before, at the places that are known now: what it is asked to be
// instead cannot be made.
func (b *builder) again(name string) (*call, error) {
	was := b.old.calls[name]
	return b.assemble(name, was.cfg, was.unit, was.method)
}

// assemble gives a call its clients, and the health of the call before where it calls the same.
func (b *builder) assemble(name string, cfg CallConfig, u *unit, m method) (*call, error) {
	c := &call{cfg: cfg, maxBody: b.j.cfg.MaxBody, unit: u, method: m, health: &health{}}
	if cfg.Discover != "" {
		c.at = b.found[cfg.Discover]
	}
	for _, addr := range cfg.Addresses {
		c.at = append(c.at, control.Endpoint{Addr: addr, Weight: control.DefaultWeight})
	}
	c.order = rotation(c.at)
	if was := b.old.calls[name]; was != nil && sameService(was, c) {
		c.health = was.health
	}
	c.health.breaker.configure(cfg.Breaker)
	for _, e := range c.at {
		client, err := b.j.clients.use(clientKey{m.service(), e.Addr})
		if err != nil {
			b.j.clients.giveBack(c.clients)
			return nil, err
		}
		c.clients = append(c.clients, client)
	}
	return c, nil
}

// sameService tells whether what was seen of one call holds for another.
func sameService(a, b *call) bool {
	return a.method.service() == b.method.service() && a.cfg.Method == b.cfg.Method &&
		a.cfg.Discover == b.cfg.Discover && slices.Equal(a.cfg.Addresses, b.cfg.Addresses)
}

// same tells whether b can stand for a.
func same(a, b *call) bool {
	return a.unit == b.unit && a.method == b.method && reflect.DeepEqual(a.cfg, b.cfg) && reflect.DeepEqual(a.at, b.at)
}

// sameCalls tells whether two tables mean the same.
func (t *table) sameCalls(calls map[string]*call) bool {
	if len(t.calls) != len(calls) {
		return false
	}
	for name, c := range calls {
		if was := t.calls[name]; was == nil || !same(was, c) {
			return false
		}
	}
	return true
}

// layer is one source of calls; a later one stands over an earlier.
type layer struct {
	source   string // static, file, live
	calls    map[string]CallConfig
	bad      map[string]error // names whose configuration cannot be read
	revision map[string]int64
}

func (l *layer) has(name string) bool {
	_, ok := l.calls[name]
	return ok || l.bad[name] != nil
}

// build makes every call of the layers. What cannot be made stays as it was, or is what the
// layer below says where it was not there yet.
func (b *builder) build(layers []layer) (calls map[string]*call, status []CallStatus) {
	calls = map[string]*call{}
	var names []string
	for _, l := range layers {
		for name := range l.calls {
			names = append(names, name)
		}
		for name := range l.bad {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		c, s := b.one(name, layers)
		if c != nil {
			calls[name] = c
		}
		status = append(status, s)
	}
	return calls, status
}

func (b *builder) one(name string, layers []layer) (*call, CallStatus) {
	s := CallStatus{Name: name}
	for _, l := range slices.Backward(layers) {
		if !l.has(name) {
			continue
		}
		if s.Source == "" {
			s.Source, s.Revision = l.source, l.revision[name]
		}
		err := l.bad[name]
		if err == nil {
			var c *call
			if c, err = b.make(name, l.calls[name]); err == nil {
				return c, s
			}
		}
		if s.Err == nil {
			s.Err = err
		}
		if b.old.calls[name] == nil {
			continue
		}
		if c, err := b.again(name); err == nil {
			return c, s
		}
	}
	s.Missing = true
	return nil, s
}

// inOneLine is the first mistake of a build, with the name of its call.
func inOneLine(status []CallStatus) error {
	for _, s := range status {
		if s.Err != nil {
			return fmt.Errorf("call %q: %w", s.Name, s.Err)
		}
	}
	return nil
}
