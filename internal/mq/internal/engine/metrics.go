package engine

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	published *prometheus.CounterVec
	handled   *prometheus.CounterVec
	lag       *prometheus.GaugeVec
	missed    *prometheus.CounterVec
	forgotten *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_published_messages_total",
			Help: "Messages stored, by topic.",
		}, []string{"topic"}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_handled_messages_total",
			Help: "Handler runs, by topic, group and result: done, again or dead.",
		}, []string{"topic", "group", "result"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hongyan_mq_unfinished_messages",
			Help: "Messages that a group has not finished, by topic and group.",
		}, []string{"topic", "group"}),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_missed_broadcasts_total",
			Help: "Broadcasts that a listener who fell behind did not get, by topic.",
		}, []string{"topic"}),
		forgotten: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_mq_forgotten_dead_letters_total",
			Help: "Dead letters that were dropped for newer ones, by topic and group.",
		}, []string{"topic", "group"}),
	}
	if reg == nil {
		return m, nil
	}
	if err := errors.Join(reg.Register(m.published), reg.Register(m.handled), reg.Register(m.lag),
		reg.Register(m.missed), reg.Register(m.forgotten)); err != nil {
		return nil, fmt.Errorf("queue metrics: %w", err)
	}
	return m, nil
}
