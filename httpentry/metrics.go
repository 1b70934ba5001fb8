package httpentry

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the tier. Sessions, frames and pushes are counted by the gate.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  prometheus.Counter
	sockets  prometheus.Gauge
	polls    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, open *atomic.Int64) (*metrics, error) {
	const space, tier = "hongyan", "httpentry"
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: space, Subsystem: tier, Name: "requests_total",
			Help: "Answered requests, by route (operationId) and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: space, Subsystem: tier, Name: "request_seconds",
			Help:    "Time from a whole request to its answer, by route. Polls: with the hold.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60},
		}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: space, Subsystem: tier, Name: "refused_total",
			Help: "Connections and requests refused before they had a route: malformed, too large, too many.",
		}),
		sockets: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: space, Subsystem: tier, Name: "websockets", Help: "Open WebSocket connections.",
		}),
		polls: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: space, Subsystem: tier, Name: "held_polls", Help: "Long polls held at the moment.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: space, Subsystem: tier, Name: "tcp_connections", Help: "Open TCP connections: HTTP, WebSocket and held polls.",
	}, func() float64 { return float64(open.Load()) })
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refused, m.sockets, m.polls, connections} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
