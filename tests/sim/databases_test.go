package sim

import (
	"io"
	"testing"
)

// Clusters over two databases: failovers and moves under everything else (R17, R18, R19, P3, P29).
func TestSeveralDatabases(t *testing.T) {
	oneProcessor(t)
	from, n := number(t, envFrom, 1), min(number(t, envSeeds, 6), 100)
	total := newStats()
	for seed := from; seed < from+n; seed++ {
		res := run(t, seed, rules{shape: func(p *profile) {
			if p.databases == 0 {
				p.shape = shape{name: "two-stage", gates: 2, logics: 3, dases: 3}
				p.severalDatabases()
			}
		}}, logTo(io.Discard))
		for what, n := range res.stats.n {
			total.add(what, n)
		}
		for _, v := range res.violations {
			t.Errorf("seed %d: %s", seed, v)
		}
	}
	t.Log(total)
}
