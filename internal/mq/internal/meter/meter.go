// Package meter has the metrics that every queue has: dashboards and alerts read them without
// knowing which one it is.
package meter

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Queue are the metrics of one queue.
type Queue struct {
	Published *prometheus.CounterVec // by topic
	Handled   *prometheus.CounterVec // by topic, group, result
	Lag       *prometheus.GaugeVec   // by topic, group
}

// New makes them; Register shows them.
func New() Queue {
	return Queue{
		Published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_published_messages_total",
			Help: "Messages stored, by topic.",
		}, []string{"topic"}),
		Handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_handled_messages_total",
			Help: "Handler runs, by topic, group and result: done, again or dead.",
		}, []string{"topic", "group", "result"}),
		Lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hongyan_mq_unfinished_messages",
			Help: "Messages of this process's queues that a group has not finished, by topic and group.",
		}, []string{"topic", "group"}),
	}
}

// Register shows the metrics, and more that only this queue has. A nil registry shows none.
func (q *Queue) Register(reg prometheus.Registerer, more ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	var errs []error
	for _, c := range append([]prometheus.Collector{q.Published, q.Handled, q.Lag}, more...) {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("queue metrics: %w", err)
	}
	return nil
}
