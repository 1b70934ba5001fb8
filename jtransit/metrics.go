package jtransit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
)

// metrics by name of a call: as many as the configuration has. Names that it does not have
// are counted together, under the empty one.
type metrics struct {
	calls *prometheus.CounterVec
	took  *prometheus.HistogramVec
	open  *prometheus.Desc
	under *prometheus.Desc
	owner *Jtransit
}

func newMetrics(reg prometheus.Registerer, j *Jtransit) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_jtransit_calls_total", Help: "Calls of platform services, by name and outcome.",
		}, []string{"call", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hongyan_jtransit_call_seconds", Help: "Time that calls took, by name.",
			Buckets: prometheus.ExponentialBuckets(500e-6, 3, 10),
		}, []string{"call"}),
		open:  prometheus.NewDesc("hongyan_jtransit_breaker_open_bool", "1 while the breaker of a call refuses.", []string{"call"}, nil),
		under: prometheus.NewDesc("hongyan_jtransit_in_flight_count", "Calls under way, by name.", []string{"call"}, nil),
		owner: j,
	}
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m)
}

func (m *metrics) done(name string, c code.Code, took time.Duration) {
	m.calls.WithLabelValues(name, c.Name()).Inc()
	if name != "" {
		m.took.WithLabelValues(name).Observe(took.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.calls.Describe(out)
	m.took.Describe(out)
	out <- m.open
	out <- m.under
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.calls.Collect(out)
	m.took.Collect(out)
	for name, c := range *m.owner.table.Load() {
		open := 0.0
		if c.breaker.isOpen() {
			open = 1
		}
		out <- prometheus.MustNewConstMetric(m.open, prometheus.GaugeValue, open, name)
		out <- prometheus.MustNewConstMetric(m.under, prometheus.GaugeValue, float64(c.running.Load()), name)
	}
}
