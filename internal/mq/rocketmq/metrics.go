package rocketmq

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have the names of the embedded queue's where they mean the same.
type metrics struct {
	published *prometheus.CounterVec
	failed    *prometheus.CounterVec
	handled   *prometheus.CounterVec
	lag       *prometheus.GaugeVec
	queues    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_published_messages_total",
			Help: "Messages stored, by topic.",
		}, []string{"topic"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_failed_messages_total",
			Help: "Messages that could not be stored, or perhaps were, by topic.",
		}, []string{"topic"}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_handled_messages_total",
			Help: "Handler runs, by topic, group and result: done, again or dead.",
		}, []string{"topic", "group", "result"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hongyan_mq_unfinished_messages",
			Help: "Messages of this process's queues that a group has not finished, by topic and group.",
		}, []string{"topic", "group"}),
		queues: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hongyan_mq_consumer_queues",
			Help: "Queues that this process consumes, by topic and group.",
		}, []string{"topic", "group"}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.published, m.failed, m.handled, m.lag, m.queues} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("queue metrics: %w", err)
	}
	return m, nil
}
