package jtransit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"hongyan/internal/config"
	"hongyan/internal/control"
)

// Keys in the control centre.
const (
	// KeyCalls and a name: one call, in YAML or JSON, with the keys of CallConfig.
	KeyCalls = "jtransit/calls/"
	// KeyIDL and a path: the text of an IDL, in place of the file at that path.
	KeyIDL = "jtransit/idl/"

	keys = "jtransit/"
)

// CallStatus tells what became of the configuration of a name.
type CallStatus struct {
	Name   string
	Source string // the topmost that has it: static, file (Config.CallsFile) or live
	// Revision is that of the live value; 0 = it is not live.
	Revision int64
	// InForce is the revision of the live value that is in force; 0 = none is.
	InForce int64
	// Err is why it is not in force; nil = it is.
	Err error
	// Missing: there is nothing older to be in force either.
	Missing bool
	Since   time.Time // of the last change of all this
}

// following is what Run learns from outside, and what wakes it.
type following struct {
	wake chan struct{} // capacity 1: a token that is there already says enough

	mu     sync.Mutex
	values []control.Value
	looked bool // values have been shown at least once, or nobody will
	found  map[string][]control.Endpoint
}

func newFollowing() *following {
	return &following{wake: make(chan struct{}, 1), found: map[string][]control.Endpoint{}}
}

func (f *following) changed() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *following) setValues(set []control.Value) {
	f.mu.Lock()
	f.values, f.looked = set, true
	f.mu.Unlock()
	f.changed()
}

func (f *following) setFound(service string, at []control.Endpoint) {
	f.mu.Lock()
	f.found[service] = at
	f.mu.Unlock()
	f.changed()
}

func (f *following) forget(service string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.found, service)
}

func (f *following) state() (values []control.Value, found map[string][]control.Endpoint, looked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values, maps.Clone(f.found), f.looked
}

// Run follows the live values, the registered services and the files until ctx ends, and
// puts what they say in force. Calls run in their callers' goroutines.
func (j *Jtransit) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if j.deps.Values != nil {
		wg.Go(func() {
			j.persist(ctx, "live values", func() error { return j.deps.Values.WatchValues(ctx, keys, j.outside.setValues) })
		})
	}
	watches := map[string]context.CancelFunc{}
	var poll <-chan time.Time
	if j.cfg.Poll > 0 {
		ticker := time.NewTicker(j.cfg.Poll)
		defer ticker.Stop()
		poll = ticker.C
	}
	for {
		j.follow(ctx, &wg, watches)
		select {
		case <-ctx.Done():
			return nil
		case <-poll:
		case <-j.outside.wake:
		}
		j.rebuild()
	}
}

// watchAgain is the pause before a watch that failed is begun anew.
const watchAgain = time.Second

// persist repeats a watch until ctx ends.
func (j *Jtransit) persist(ctx context.Context, what string, watch func() error) {
	for ctx.Err() == nil {
		err := watch()
		if ctx.Err() != nil {
			return
		}
		j.log.Warn("watch ended, will be begun again", "of", what, "err", err)
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
		}
		if errors.Is(err, control.ErrClosed) {
			return
		}
	}
}

// follow watches the services that the table in force discovers, and no others.
func (j *Jtransit) follow(ctx context.Context, wg *sync.WaitGroup, watches map[string]context.CancelFunc) {
	wanted := map[string]bool{}
	for _, c := range j.current().calls {
		if c.cfg.Discover != "" {
			wanted[c.cfg.Discover] = true
		}
	}
	for name, stop := range watches {
		if !wanted[name] {
			stop()
			delete(watches, name)
			j.outside.forget(name)
		}
	}
	for name := range wanted {
		if watches[name] != nil {
			continue
		}
		watching, stop := context.WithCancel(ctx)
		watches[name] = stop
		wg.Go(func() {
			j.persist(watching, "service "+name, func() error {
				return j.deps.Services.WatchService(watching, name, func(at []control.Endpoint) {
					if watching.Err() == nil {
						j.outside.setFound(name, usable(at))
					}
				})
			})
		})
	}
}

// usable are the endpoints that can be called.
func usable(at []control.Endpoint) []control.Endpoint {
	return slices.DeleteFunc(slices.Clone(at), func(e control.Endpoint) bool {
		return e.Network != "tcp" && e.Network != "" || notHostPort(e.Addr)
	})
}

// layers are the configuration, the file and the live values, in this order.
func (j *Jtransit) layers(values []control.Value) (all []layer, live map[string]string) {
	all = []layer{{source: "static", calls: j.cfg.Calls}}
	if j.cfg.CallsFile != "" {
		all = append(all, layer{source: "file", calls: j.fileCalls()})
	}
	now := layer{source: "live", calls: map[string]CallConfig{}, bad: map[string]error{}, revision: map[string]int64{}}
	live = map[string]string{}
	for _, v := range values {
		if name, ok := strings.CutPrefix(v.Key, KeyIDL); ok && v.Data != nil {
			live[path.Clean(name)] = string(v.Data)
		}
		name, ok := strings.CutPrefix(v.Key, KeyCalls)
		if !ok || v.Data == nil {
			continue
		}
		now.revision[name] = v.Revision
		c, err := ParseCall(name, v.Data)
		if err != nil {
			now.bad[name] = err
			continue
		}
		now.calls[name] = c
	}
	return append(all, now), live
}

// fileCalls reads Config.CallsFile; what was good last stays where it cannot be read.
func (j *Jtransit) fileCalls() map[string]CallConfig {
	made, err := readCalls(j.cfg.CallsFile)
	if err == nil {
		j.filed = made
	}
	j.fileErr = err
	return j.filed
}

func readCalls(name string) (map[string]CallConfig, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("calls_file: %w", err)
	}
	if len(data) > maxIDL {
		return nil, fmt.Errorf("calls_file %s: %w: more than %d bytes", name, fs.ErrInvalid, maxIDL)
	}
	var made callsFile
	err = config.Parse(data, &made, "calls_file "+name)
	return made.Calls, err
}

// rebuild makes a table of all that is known, and swaps it in where anything has changed.
// It is called by New and then by Run alone.
func (j *Jtransit) rebuild() []CallStatus {
	values, found, looked := j.outside.state()
	layers, live := j.layers(values)
	b := &builder{j: j, read: liveOrFile(live), found: found, old: j.current(), units: map[string]*unit{}}
	calls, status := b.build(layers)
	// The units that serve a call of before are not to be forgotten, or they would be
	// compiled at every look.
	j.units = b.units
	if fresh := (&table{calls: calls, users: 1}); b.old.sameCalls(calls) {
		j.clients.giveBack(fresh.clients())
	} else {
		j.swap(fresh)
	}
	j.show(status, values)
	if j.deps.Values == nil || looked {
		j.settled.Store(true)
	}
	return status
}
