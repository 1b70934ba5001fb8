package etcd

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	up, held, unreadable prometheus.Gauge
}

func newMetrics() metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hongyan_control_" + name, Help: help})
	}
	return metrics{
		up:         gauge("up", "1 while the control centre answers."),
		held:       gauge("held_entries", "Instances and endpoints that are gone in the control centre and stay in use."),
		unreadable: gauge("unreadable_keys", "Keys of the control centre that are ignored because they cannot be read."),
	}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	return errors.Join(reg.Register(m.up), reg.Register(m.held), reg.Register(m.unreadable))
}

func (c *Center) countLocked() {
	held := len(c.members.held)
	for _, m := range c.services {
		held += len(m.held)
	}
	c.metrics.held.Set(float64(held))
	c.metrics.unreadable.Set(float64(len(c.bad)))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
