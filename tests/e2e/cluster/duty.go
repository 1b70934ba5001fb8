package cluster

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// Duties of the logics of ByDuty, by slot.
var Duties = []string{"session", "session", "message+contact", "message+contact", "message+contact+open"}

// ByDuty is Processes with logic split by duty (ZZ-21): two serve logins, three messages.
func ByDuty(t testing.TB) *System {
	t.Helper()
	l := maps.Clone(single)
	l["logic"] = len(Duties)
	p := newPlan(t, "by duty", l)
	var lists []string
	for _, tier := range []string{"logic", "das", "extlogic", "jtransit"} {
		entries := append([]string(nil), p.addrs[tier]...)
		for slot := range entries {
			if tier == "logic" {
				entries[slot] += "=" + Duties[slot]
			}
		}
		lists = append(lists, fmt.Sprintf("%s: [%s]", tier, strings.Join(entries, ", ")))
	}
	p.text += "cluster: {" + strings.Join(lists, ", ") + "}\n"
	p.run(t)
	return p.System
}
