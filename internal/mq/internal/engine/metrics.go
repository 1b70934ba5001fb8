package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/mq/internal/meter"
)

type metrics struct {
	meter.Queue
	missed    *prometheus.CounterVec
	forgotten *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		Queue: meter.New(),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_missed_broadcasts_total",
			Help: "Broadcasts that a listener who fell behind did not get, by topic.",
		}, []string{"topic"}),
		forgotten: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_forgotten_dead_letters_total",
			Help: "Dead letters that were dropped for newer ones, by topic and group.",
		}, []string{"topic", "group"}),
	}
	return m, m.Register(reg, m.missed, m.forgotten)
}
