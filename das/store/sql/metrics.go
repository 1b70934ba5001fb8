package sqlstore

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what commits met.
type metrics struct {
	repeats *prometheus.CounterVec // by why
	unknown prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		repeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_das_sql_commit_repeats_total",
			Help: "Commits tried again, by why: conflict (deadlock, lock wait), connection, race.",
		}, []string{"why"}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hongyan_das_sql_unknown_outcomes_total",
			Help: "Commits of which nobody knows whether they were done.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.repeats, m.unknown)
	}
	return m
}
