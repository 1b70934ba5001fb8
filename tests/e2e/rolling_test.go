package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
)

// drainFor makes gateways spread their clients over this time when they stop.
func drainFor(t *testing.T, delay time.Duration) {
	t.Setenv("HONGYAN_ENTRY_GATE_DRAIN_DELAY", delay.String())
	t.Setenv("HONGYAN_HTTPENTRY_GATE_DRAIN_DELAY", delay.String())
}

// TestP15RollingRestart stops and starts every process, one after the other, under load: no
// send fails, nothing is lost, doubled or out of order.
func TestP15RollingRestart(t *testing.T) {
	drainFor(t, time.Second)
	s := cluster.Gateways(t, "")
	l := load.Start(t, s, 4)
	l.Progresses(50)
	for _, name := range []string{
		"entry-0", "entry-1", "httpentry-0", "httpentry-1", "logic-0", "logic-1", "logic-2", "extlogic-0", "imui-0", "jtransit-0", "das-0",
	} {
		began := time.Now()
		s.Procs[name].Stop()
		s.Procs[name].Restart()
		restarted := time.Since(began)
		l.Progresses(50)
		t.Logf("%s: restarted in %v, sends of every pair went on within %v", name, restarted.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	l.Finish()
}

// TestP15StoppedGatewaySendsItsClientsElsewhere: while a gateway drains and is gone, its
// clients are served by the other one; they leave over the time they were given.
func TestP15StoppedGatewaySendsItsClientsElsewhere(t *testing.T) {
	const delay = 2 * time.Second
	for _, victim := range []string{"entry-0", "httpentry-0"} {
		t.Run(victim, func(t *testing.T) {
			drainFor(t, delay)
			s := cluster.Gateways(t, "")
			l := load.Start(t, s, 6)
			l.Progresses(50)
			began := time.Now()
			s.Procs[victim].Stop()
			took := time.Since(began)
			if took > delay+7*time.Second { // 10 s by default
				t.Errorf("%s took %v to stop", victim, took)
			}
			l.Progresses(100)
			l.Finish()
			t.Logf("%s stopped after %v", victim, took.Round(time.Millisecond))
		})
	}
}

// TestSecondSignalEndsAtOnce: who does not want to wait for the clients says so twice.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	drainFor(t, 15*time.Second)
	s := cluster.Gateways(t, "")
	var devices []*device
	for i := range 4 {
		devices = append(devices, newDevice(t, s, fmt.Sprintf("u%d", i), "d", "tcp"))
	}
	began := time.Now()
	for _, name := range []string{"entry-0", "entry-1"} { // nobody has anywhere to go
		_ = syscall.Kill(s.Procs[name].PID(), syscall.SIGTERM)
	}
	time.Sleep(300 * time.Millisecond)
	for _, name := range []string{"entry-0", "entry-1"} {
		_ = s.Procs[name].Signal(syscall.SIGTERM)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("two signals took %v", took)
	}
	for _, name := range []string{"entry-0", "entry-1"} {
		s.Procs[name].Restart()
	}
	for _, d := range slices.Backward(devices) {
		d.say("shop", "back again")
	}
}
