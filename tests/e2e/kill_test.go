package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

// load is some pairs of users that talk while processes die. Receivers check what they get.
type load struct {
	t         testing.TB
	senders   []*device
	receivers []*device
	stop      chan struct{}
	wg        sync.WaitGroup

	mu    sync.Mutex
	acked [][]string // by pair: texts whose Send returned, in order
	late  time.Duration
}

func startLoad(t testing.TB, s *cluster.System, pairs int) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), acked: make([][]string, pairs)}
	transports := []string{"tcp", "ws", "http"}
	for i := range pairs {
		l.senders = append(l.senders, newDevice(t, s, fmt.Sprintf("a%d", i), "d", transports[i%2]))
		l.receivers = append(l.receivers, newDevice(t, s, fmt.Sprintf("b%d", i), "d", transports[i%3]))
	}
	for i := range pairs {
		l.wg.Go(func() { l.send(i) })
	}
	return l
}

func (l *load) send(pair int) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		text := fmt.Sprintf("%d", n)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		begun := time.Now()
		_, err := l.senders[pair].Send(ctx, hongyan.Outgoing{To: fmt.Sprintf("b%d", pair), Text: text})
		cancel()
		if err != nil {
			l.t.Errorf("pair %d: message %s: %v", pair, text, err)
			return
		}
		l.mu.Lock()
		l.acked[pair] = append(l.acked[pair], text)
		l.late = max(l.late, time.Since(begun))
		l.mu.Unlock()
	}
}

func (l *load) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acked {
		n += len(a)
	}
	return n
}

// progresses waits until every pair has had n more messages acked.
func (l *load) progresses(n int, within time.Duration) {
	l.t.Helper()
	before := make([]int, len(l.acked))
	l.mu.Lock()
	for i, a := range l.acked {
		before[i] = len(a)
	}
	l.mu.Unlock()
	cluster.Eventually(l.t, within, "sends go on for every pair", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, a := range l.acked {
			if len(a) < before[i]+n {
				return false
			}
		}
		return true
	})
}

// finish stops the load and checks the oracle: every acked message exactly once at its
// receiver, in order.
func (l *load) finish() {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait()
	for i, r := range l.receivers {
		conv := fmt.Sprintf("p:a%d:b%d", i, i)
		want := l.acked[i]
		for end := time.Now().Add(40 * time.Second); !slices.Equal(r.texts(conv), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				state, err := r.State()
				l.t.Fatalf("pair %d did not converge: %d of %d messages; its receiver is %v (%v)", i, len(r.texts(conv)), len(want), state, err)
			}
		}
		for id, n := range see(r, func(d *device) map[string]int { return d.shown }) {
			if n != 1 {
				l.t.Errorf("pair %d: %s was shown %d times", i, id, n)
			}
		}
	}
	l.t.Logf("%d messages, the slowest ack after %v", l.count(), l.late)
}

// TestKill kills one process a case under load; the others carry on, and nothing acked is
// lost, doubled or out of order (P1, ZZ-17).
func TestKill(t *testing.T) {
	for _, victim := range []string{"logic-1", "das", "entry", "httpentry", "extlogic"} {
		t.Run(victim, func(t *testing.T) {
			s := cluster.Processes(t)
			l := startLoad(t, s, 6)
			l.progresses(20, 20*time.Second)
			s.Procs[victim].Kill()
			switch victim {
			case "logic-1", "extlogic": // the others go on without it
				l.progresses(20, 30*time.Second)
			}
			s.Procs[victim].Restart()
			l.progresses(20, 40*time.Second)
			l.finish()
		})
	}
}

// TestKillDev kills the one process of dev in the middle of the load.
func TestKillDev(t *testing.T) {
	s := cluster.Dev(t)
	l := startLoad(t, s, 6)
	for range 3 {
		l.progresses(20, 40*time.Second)
		s.Procs["dev"].Kill()
		s.Procs["dev"].Restart()
	}
	l.progresses(20, 40*time.Second)
	l.finish()
}
