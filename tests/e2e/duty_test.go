package e2e

import (
	"fmt"
	"testing"

	"hongyan/tests/e2e/cluster"
	"hongyan/tests/e2e/load"
)

// TestZZ21LogicByDuty: logins and messages are served by different processes, and neither
// kind stops when one of each dies.
func TestZZ21LogicByDuty(t *testing.T) {
	s := cluster.ByDuty(t)
	l := load.Start(t, s, 4)
	l.Progresses(100)
	for _, victim := range []string{"logic-0", "logic-3"} {
		s.Procs[victim].Kill()
		l.Progresses(100)
		for i := range 8 { // of which some are at home with the dead one
			u := newDevice(t, s, fmt.Sprintf("late%d", i), victim, "tcp")
			u.say("shop", victim)
		}
		s.Procs[victim].Restart()
		l.Progresses(100)
	}
	l.Finish()
	for slot, duties := range cluster.Duties {
		auths, sends := commandsOf(t, s, slot, "AUTH"), commandsOf(t, s, slot, "SEND")
		t.Logf("logic-%d (%s): %d logins, %d sends", slot, duties, auths, sends)
		switch {
		case duties == "session" && sends > 0, duties != "session" && auths > 0:
			t.Errorf("logic-%d serves %s, and took %d logins and %d sends", slot, duties, auths, sends)
		}
	}
	if n := commandsOf(t, s, 1, "AUTH"); n == 0 {
		t.Error("logic-1 was alive all the time and served no login")
	}
}
