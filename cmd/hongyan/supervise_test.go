package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func newTestSupervisor() *supervisor { return &supervisor{log: slog.New(slog.DiscardHandler)} }

func TestSupervisorStopsFromTheTopDown(t *testing.T) {
	s := newTestSupervisor()
	var mu sync.Mutex
	var order []string
	for stage, name := range []string{"infra", "store", "logic", "work", "gateway"} {
		s.add(stage, name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.run(ctx, func() error { cancel(); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "gateway work logic store infra" {
		t.Fatalf("stopped in order %q", got)
	}
}

func TestSupervisorEndsWhenOneServiceFails(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"with an error": {func(context.Context) error { return errors.New("disk is gone") }, "das: disk is gone"},
		"by ending":     {func(context.Context) error { return nil }, "das ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSupervisor()
			s.add(stageStore, "das", c.run)
			s.add(stageGateway, "entry", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			if err := s.run(t.Context(), func() error { return nil }); err == nil || err.Error() != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestSupervisorClosesLastOpenedFirst(t *testing.T) {
	s := newTestSupervisor()
	var order []int
	for i := range 3 {
		s.onClose(func() error { order = append(order, i); return nil })
	}
	if err := errors.Join(s.close(), s.close()); err != nil || len(order) != 3 || order[0] != 2 {
		t.Fatalf("got %v, %v", order, err)
	}
}
