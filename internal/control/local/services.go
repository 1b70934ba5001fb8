package local

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"

	"hongyan/internal/control"
)

// Services are those announced in this process.
type Services struct {
	mu       sync.Mutex
	live     map[string]map[string]*control.Endpoint // service -> address
	change   chan struct{}                           // closed and replaced at every change
	closed   bool
	announce sync.WaitGroup // one goroutine for each announcement
	done     chan struct{}  // closed by Close
}

// NewServices knows of none.
func NewServices() *Services {
	return &Services{live: map[string]map[string]*control.Endpoint{}, change: make(chan struct{}), done: make(chan struct{})}
}

// Announce implements control.Services.
func (s *Services) Announce(ctx context.Context, service string, e control.Endpoint) error {
	if err := control.ValidService(service); err != nil {
		return err
	}
	e, err := e.Normalize()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return control.ErrClosed
	}
	if s.live[service] == nil {
		s.live[service] = map[string]*control.Endpoint{}
	}
	s.live[service][e.Addr] = &e
	s.changedLocked()
	s.announce.Go(func() {
		select {
		case <-ctx.Done():
			s.withdraw(service, &e)
		case <-s.done:
		}
	})
	return nil
}

func (s *Services) withdraw(service string, e *control.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[service][e.Addr] == e { // not announced anew
		delete(s.live[service], e.Addr)
		s.changedLocked()
	}
}

// WatchService implements control.Services.
func (s *Services) WatchService(ctx context.Context, service string, fn func([]control.Endpoint)) error {
	if err := control.ValidService(service); err != nil {
		return err
	}
	look := func() ([]control.Endpoint, <-chan struct{}, error) { return s.look(service) }
	return follow(ctx, look, func(a, b []control.Endpoint) bool { return reflect.DeepEqual(a, b) }, fn)
}

func (s *Services) look(service string) ([]control.Endpoint, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, control.ErrClosed
	}
	var now []control.Endpoint
	for _, e := range s.live[service] {
		now = append(now, *e)
	}
	slices.SortFunc(now, func(a, b control.Endpoint) int { return strings.Compare(a.Addr, b.Addr) })
	return now, s.change, nil
}

// Close ends all watches and announcements.
func (s *Services) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
		s.changedLocked()
	}
	s.mu.Unlock()
	s.announce.Wait()
	return nil
}

func (s *Services) changedLocked() {
	close(s.change)
	s.change = make(chan struct{})
}
