package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"hongyan/internal/route"
	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
)

// TestKill kills one process a case under load; the others carry on, and nothing acked is
// lost, doubled or out of order (P1, ZZ-17).
func TestKill(t *testing.T) {
	for _, victim := range []string{"logic-1", "das-0", "entry-0", "httpentry-0", "extlogic-0"} {
		t.Run(victim, func(t *testing.T) {
			s := cluster.Processes(t)
			l := load.Start(t, s, 4)
			l.Progresses(100)
			s.Procs[victim].Kill()
			switch victim {
			case "logic-1", "extlogic-0": // the others go on without it
				l.Progresses(100)
			}
			s.Procs[victim].Restart()
			l.Progresses(100)
			l.Finish()
		})
	}
}

// TestKillDev kills the one process of dev in the middle of the load.
func TestKillDev(t *testing.T) {
	s := cluster.Dev(t)
	l := load.Start(t, s, 4)
	for range 3 {
		l.Progresses(100)
		s.Procs["dev"].Kill()
		s.Procs["dev"].Restart()
	}
	l.Progresses(100)
	l.Finish()
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
