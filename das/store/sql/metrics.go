package sqlstore

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what commits met, over all databases of a process.
type metrics struct {
	repeats *prometheus.CounterVec // by why
	unknown *prometheus.CounterVec // without labels
}

func newMetrics(reg prometheus.Registerer) (m *metrics, err error) {
	m = &metrics{
		repeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_das_sql_commit_repeats_total",
			Help: "Commits tried again, by why: conflict (deadlock, lock wait), connection, race.",
		}, []string{"why"}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_das_sql_unknown_outcomes_total",
			Help: "Commits of which nobody knows whether they were done.",
		}, nil),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []**prometheus.CounterVec{&m.repeats, &m.unknown} {
		err := reg.Register(*c)
		var twice prometheus.AlreadyRegisteredError // by the store of another database
		if errors.As(err, &twice) {
			if old, ok := twice.ExistingCollector.(*prometheus.CounterVec); ok {
				*c, err = old, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
