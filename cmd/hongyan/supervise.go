package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// service is one thing that runs until its context ends.
type service struct {
	name string
	run  func(context.Context) error
}

// Stages, from the bottom up. They start together and stop from the top down: gateways
// first, so that nothing new comes in while the tiers below finish what they have.
const (
	stageInfra = iota
	stageStore
	stageLogic
	stageWork
	stageGateway
	stages
)

// States of a supervisor.
const (
	starting int32 = iota
	serving
	stopping
)

// supervisor runs the services of one process.
type supervisor struct {
	log    *slog.Logger
	stages [stages][]service
	// leaving run first when the process stops, before anything ends.
	leaving []func()
	state   atomic.Int32 // starting, serving, stopping
	// closers run after everything has stopped, last added first.
	closers []func() error
}

func (s *supervisor) add(stage int, name string, run func(context.Context) error) {
	s.stages[stage] = append(s.stages[stage], service{name, run})
}

// onStop adds what is done before anything ends, so that others stop coming.
func (s *supervisor) onStop(f func()) { s.leaving = append(s.leaving, f) }

func (s *supervisor) onClose(f func() error) { s.closers = append(s.closers, f) }

// close releases what was opened, also when the process never ran.
func (s *supervisor) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// run starts every service and returns when all have stopped: because ctx ended (nil), or
// because one of them failed (its error). ready is called once all are started.
func (s *supervisor) run(ctx context.Context, ready func() error) error {
	failed := make(chan error, 1) // the first failure; later ones are logged
	var cancels [stages]context.CancelFunc
	var waits [stages]sync.WaitGroup
	for stage := range s.stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancels[stage] = cancel
		for _, svc := range s.stages[stage] {
			waits[stage].Go(func() { s.watch(stageCtx, svc, failed) })
		}
	}
	s.state.Store(serving)
	err := ready()
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	}
	s.state.Store(stopping)
	for _, leave := range s.leaving {
		leave()
	}
	for stage := stages - 1; stage >= 0; stage-- {
		cancels[stage]()
		waits[stage].Wait()
	}
	if err == nil {
		select {
		case err = <-failed: // while stopping
		default:
		}
	}
	return err
}

func (s *supervisor) watch(ctx context.Context, svc service, failed chan<- error) {
	err := svc.run(ctx)
	switch {
	case err == nil && ctx.Err() == nil:
		err = fmt.Errorf("%s ended by itself", svc.name)
	case err == nil || errors.Is(err, context.Canceled):
		return
	default:
		err = fmt.Errorf("%s: %w", svc.name, err)
	}
	select {
	case failed <- err:
	default:
		s.log.Error("another service failed", "err", err)
	}
}
