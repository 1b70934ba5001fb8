package extlogic

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	offline *prometheus.CounterVec
	pushes  *prometheus.CounterVec
	notices *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hongyan", Subsystem: "extlogic", Name: name, Help: help}, labels)
	}
	m := &metrics{
		offline: counter("offline_events_total", "Offline events by outcome: known (done before), acked, silent (nothing to show), pushed, again.", "outcome"),
		pushes:  counter("pushes_total", "Notifications by vendor and result: accepted, bad_token, failed, given_up.", "vendor", "result"),
		notices: counter("notices_total", "System notices by the code of their sending.", "code"),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.offline), reg.Register(m.pushes), reg.Register(m.notices))
}
