package jtransit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
)

// metrics by name of a call: as many as the configuration has. Names that it does not have
// are counted together, under the empty one.
type metrics struct {
	calls   *prometheus.CounterVec
	took    *prometheus.HistogramVec
	refused *prometheus.CounterVec
	swaps   prometheus.Counter
	open    *prometheus.Desc
	under   *prometheus.Desc
	bad     *prometheus.Desc
	clients *prometheus.Desc
	owner   *Jtransit
}

func newMetrics(j *Jtransit) *metrics {
	return &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_jtransit_calls_total", Help: "Calls of platform services, by name and outcome.",
		}, []string{"call", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hongyan_jtransit_call_seconds", Help: "Time that calls took, by name.",
			Buckets: prometheus.ExponentialBuckets(500e-6, 3, 10),
		}, []string{"call"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_jtransit_configs_refused_total", Help: "Configurations of a call that could not be used; the last good one stayed.",
		}, []string{"call"}),
		swaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hongyan_jtransit_swaps_total", Help: "Tables of calls that were put in force.",
		}),
		open:    prometheus.NewDesc("hongyan_jtransit_breaker_open_bool", "1 while the breaker of a call refuses.", []string{"call"}, nil),
		under:   prometheus.NewDesc("hongyan_jtransit_in_flight_count", "Calls under way, by name.", []string{"call"}, nil),
		bad:     prometheus.NewDesc("hongyan_jtransit_config_bad_bool", "1 while the newest configuration of a call is not in force.", []string{"call"}, nil),
		clients: prometheus.NewDesc("hongyan_jtransit_clients_count", "Clients, one for each service and address.", nil, nil),
		owner:   j,
	}
}

func (m *metrics) done(name string, c code.Code, took time.Duration) {
	m.calls.WithLabelValues(name, c.Name()).Inc()
	if name != "" {
		m.took.WithLabelValues(name).Observe(took.Seconds())
	}
}

// forget drops what is counted of calls that are no more: names come and go with the
// configuration.
func (m *metrics) forget(before map[string]CallStatus, now []CallStatus) {
	for _, s := range now {
		delete(before, s.Name)
	}
	for name := range before {
		of := prometheus.Labels{"call": name}
		m.calls.DeletePartialMatch(of)
		m.took.DeletePartialMatch(of)
		m.refused.DeletePartialMatch(of)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.calls, m.took, m.refused, m.swaps} {
		c.Describe(out)
	}
	for _, d := range []*prometheus.Desc{m.open, m.under, m.bad, m.clients} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.calls, m.took, m.refused, m.swaps} {
		c.Collect(out)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for name, c := range m.owner.current().calls {
		gauge(m.open, oneIf(c.health.breaker.isOpen()), name)
		gauge(m.under, float64(c.health.running.Load()), name)
	}
	for _, s := range m.owner.Status() {
		gauge(m.bad, oneIf(s.Err != nil), s.Name)
	}
	gauge(m.clients, float64(m.owner.clients.len()))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
