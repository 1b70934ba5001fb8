package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/internal/route"
	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

// load is some pairs of users that talk while processes die: pipelined, over every transport.
type load struct {
	t         testing.TB
	senders   []*device
	receivers []*device
	stop      chan struct{}
	wg        sync.WaitGroup
	sent      [][]string // by pair, in order; of its goroutine until finish
}

// pipeline is how many messages a sender has under way.
const pipeline = 16

func startLoad(t testing.TB, s *cluster.System, pairs int) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), sent: make([][]string, pairs)}
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
	sender := l.senders[pair]
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		if len(l.sent[pair])-sender.acked() >= pipeline {
			continue
		}
		text := fmt.Sprint(len(l.sent[pair]))
		if _, err := sender.SendAsync(hongyan.Outgoing{To: fmt.Sprintf("b%d", pair), Text: text}); err != nil {
			l.t.Errorf("pair %d: message %s: %v", pair, text, err)
			return
		}
		l.sent[pair] = append(l.sent[pair], text)
	}
}

// acked is how many of the device's own messages are stored.
func (d *device) acked() int { return see(d, func(d *device) int { return d.sent }) }

// progresses waits until every pair has had n more messages acked.
func (l *load) progresses(n int, within time.Duration) {
	l.t.Helper()
	before := make([]int, len(l.senders))
	for i, s := range l.senders {
		before[i] = s.acked()
	}
	cluster.Eventually(l.t, within, "sends go on for every pair", func() bool {
		for i, s := range l.senders {
			if s.acked() < before[i]+n {
				return false
			}
		}
		return true
	})
}

// finish stops the load and checks the oracle: everything sent is acked in the end, and
// exactly once at its receiver, in order.
func (l *load) finish() {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait()
	total := 0
	for i, r := range l.receivers {
		conv := fmt.Sprintf("p:a%d:b%d", i, i)
		l.converges(i, r, conv)
		for id, n := range see(r, func(d *device) map[string]int { return d.shown }) {
			if n != 1 {
				l.t.Errorf("pair %d: %s was shown %d times", i, id, n)
			}
		}
		if failed := see(l.senders[i], func(d *device) []hongyan.Failed { return d.failed }); len(failed) > 0 {
			l.t.Errorf("pair %d: %d messages failed, the first: %v", i, len(failed), failed[0].Err)
		}
		total += len(l.sent[i])
	}
	l.t.Logf("%d messages", total)
}

func (l *load) converges(pair int, r *device, conv string) {
	l.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if l.senders[pair].acked() == len(l.sent[pair]) && slices.Equal(r.texts(conv), l.sent[pair]) {
			return
		}
		if time.Now().After(end) {
			state, err := r.State()
			from, fromErr := l.senders[pair].State()
			l.t.Fatalf("pair %d did not converge: %d sent, %d acked, %d received; the sender is %v (%v), the receiver %v (%v)", pair,
				len(l.sent[pair]), l.senders[pair].acked(), len(r.texts(conv)), from, fromErr, state, err)
		}
	}
}

// TestKill kills one process a case under load; the others carry on, and nothing acked is
// lost, doubled or out of order (P1, ZZ-17).
func TestKill(t *testing.T) {
	for _, victim := range []string{"logic-1", "das-0", "entry-0", "httpentry-0", "extlogic-0"} {
		t.Run(victim, func(t *testing.T) {
			s := cluster.Processes(t)
			l := startLoad(t, s, 6)
			l.progresses(100, 20*time.Second)
			s.Procs[victim].Kill()
			switch victim {
			case "logic-1", "extlogic-0": // the others go on without it
				l.progresses(100, 30*time.Second)
			}
			s.Procs[victim].Restart()
			l.progresses(100, 40*time.Second)
			l.finish()
		})
	}
}

// TestKillDev kills the one process of dev in the middle of the load.
func TestKillDev(t *testing.T) {
	s := cluster.Dev(t)
	l := startLoad(t, s, 6)
	for range 3 {
		l.progresses(100, 40*time.Second)
		s.Procs["dev"].Kill()
		s.Procs["dev"].Restart()
	}
	l.progresses(100, 40*time.Second)
	l.finish()
}

// TestZZ17UsersOfADeadLogicSpreadOverBothOthers: only users whose home is slot 1 send, its
// process is dead, and both survivors serve some of them.
func TestZZ17UsersOfADeadLogicSpreadOverBothOthers(t *testing.T) {
	s := cluster.Processes(t)
	var users []*device
	for i := 0; len(users) < 12; i++ {
		uid := fmt.Sprintf("u%d", i)
		if route.Hash(cluster.Tenant, uid)%cluster.Logics == 1 {
			users = append(users, newDevice(t, s, uid, "d", "tcp"))
		}
	}
	s.Procs["logic-1"].Kill()
	for round := range 3 {
		for _, u := range users {
			u.say("shop", fmt.Sprint(round))
		}
	}
	served := [2]int{sendsOf(t, s, 0), sendsOf(t, s, 2)}
	if served[0]+served[1] < 3*len(users) || served[0] < 6 || served[1] < 6 {
		t.Fatalf("logic-0 served %d sends, logic-2 %d, of %d", served[0], served[1], 3*len(users))
	}
}

// sendsOf is how many SENDs a logic process has committed.
func sendsOf(t testing.TB, s *cluster.System, slot int) int { return commandsOf(t, s, slot, "SEND") }

// commandsOf is how many commands a logic process has answered with ok.
func commandsOf(t testing.TB, s *cluster.System, slot int, cmd string) int {
	t.Helper()
	rsp, err := http.Get("http://" + s.Admin[slot] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	lines := bufio.NewScanner(rsp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), `hongyan_logic_commands_total{cmd="`+cmd+`",code="ok"} `); ok {
			n, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	return 0
}
