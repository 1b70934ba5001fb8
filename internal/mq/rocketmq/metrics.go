package rocketmq

import (
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/internal/mq/internal/meter"
)

type metrics struct {
	meter.Queue
	failed *prometheus.CounterVec
	queues *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		Queue: meter.New(),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_failed_messages_total",
			Help: "Messages that could not be stored, or perhaps were, by topic.",
		}, []string{"topic"}),
		queues: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hongyan_mq_consumer_queues",
			Help: "Queues that this process consumes, by topic and group.",
		}, []string{"topic", "group"}),
	}
	return m, m.Register(reg, m.failed, m.queues)
}
