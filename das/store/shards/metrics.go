package shards

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a store. Without a registerer they count for nobody.
type metrics struct {
	views    *prometheus.CounterVec
	failures *prometheus.CounterVec
	switches *prometheus.CounterVec
	writable *prometheus.GaugeVec
	version  prometheus.Gauge
	barriers prometheus.Counter
}

// Roles of a member that is read.
const (
	rolePrimary = "primary"
	roleReplica = "replica"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "hongyan_das_shards_" + name, Help: help}
	}
	m := &metrics{
		views:    prometheus.NewCounterVec(opts("views_total", "Snapshots opened, by the role of the member."), []string{"shard", "role"}),
		failures: prometheus.NewCounterVec(opts("view_failures_total", "Reads of a member that failed."), []string{"shard", "role"}),
		switches: prometheus.NewCounterVec(opts("switches_total", "Times that another member became the primary."), []string{"shard"}),
		writable: prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("writable", "1 while a member takes writes.")), []string{"shard"}),
		version:  prometheus.NewGauge(prometheus.GaugeOpts(opts("map_version", "Version of the map in force."))),
		barriers: prometheus.NewCounter(opts("barriers_total", "Barrier writes.")),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.views, m.failures, m.switches, m.writable, m.version, m.barriers} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
