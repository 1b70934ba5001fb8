package redis

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	users   *prometheus.CounterVec
	refused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, state *circuit) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_presence_calls_total", Help: "Calls of the presence cache, by kind (read, write) and outcome (ok, partial, failed).",
		}, []string{"kind", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hongyan_presence_call_seconds", Help: "Duration of a call of the presence cache.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1},
		}, []string{"kind"}),
		users: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_presence_users_total", Help: "Users in calls of the presence cache.",
		}, []string{"kind"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hongyan_presence_refused_total", Help: "Calls not made because the presence cache had just failed.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	down := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hongyan_presence_down", Help: "1 while the presence cache does not answer.",
	}, func() float64 {
		if state.open() {
			return 1
		}
		return 0
	})
	for _, c := range []prometheus.Collector{m.calls, m.seconds, m.users, m.refused, down} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(write bool, outcome string, users int, took time.Duration) {
	kind := "read"
	if write {
		kind = "write"
	}
	m.calls.WithLabelValues(kind, outcome).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
	m.users.WithLabelValues(kind).Add(float64(users))
}
