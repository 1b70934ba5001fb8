package pebblestore

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows an operator whether the disk keeps up: sublevels and debt that grow,
// and stalls, say that it does not.
type collector struct {
	s      *Store
	stalls atomic.Uint64

	disk, memory, debt, sublevels, heads, broken, stalled *prometheus.Desc
}

func newCollector(s *Store) *collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("hongyan_store_"+name, help, nil, nil)
	}
	return &collector{
		s:         s,
		disk:      desc("disk_bytes", "Size of the data directory."),
		memory:    desc("memtable_bytes", "Rows in memory that are not sorted into files yet."),
		debt:      desc("compaction_debt_bytes", "Estimate of what must be merged until the levels are in shape."),
		sublevels: desc("l0_sublevels", "Layers of files that a read may have to look into; writes wait at 40."),
		heads:     desc("heads", "Heads of conversations and users held in memory."),
		broken:    desc("broken", "1 after a failed flush."),
		stalled:   desc("write_stalls_total", "Times that writes had to wait for the disk."),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n) }
	c.s.life.RLock()
	defer c.s.life.RUnlock()
	if c.s.closed {
		return
	}
	m := c.s.db.Metrics()
	gauge(c.disk, float64(m.DiskSpaceUsage()))
	gauge(c.memory, float64(m.MemTable.Size))
	gauge(c.debt, float64(m.Compact.EstimatedDebt))
	gauge(c.sublevels, float64(m.Levels[0].Sublevels))
	gauge(c.heads, float64(c.s.headCount.Load()))
	broken := 0.0
	if c.s.flushes.broke() != nil {
		broken = 1
	}
	gauge(c.broken, broken)
	ch <- prometheus.MustNewConstMetric(c.stalled, prometheus.CounterValue, float64(c.stalls.Load()))
}
