package logic

import (
	"testing"
)

// A renewal tells who lost to a later login of his own device from who lost to another: only
// the latter stays out (R27). Seen to fail while both were answered as replaced: a device
// whose login had run twice was kicked for good (found by tests/sim).
func TestR27RenewalTellsLosersToTheirOwnDevice(t *testing.T) {
	for name, forget := range map[string]bool{"after a restart": true, "where the later one is known": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, 1, func(w *world) {
				first, again := w.client("alice", "a1", 1), w.client("alice", "a1", 2)
				first.login(0)
				again.counter = 2
				again.login(0)
				if forget {
					w.forgetUsers(0)
				}
				reply := first.renew(0)
				if len(reply.Replaced) != 0 || len(reply.Stale) != 1 || reply.Stale[0] != 1 {
					t.Errorf("answered %+v", reply)
				}
			})
		})
	}
}
