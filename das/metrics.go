package das

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/das/store"
	"hongyan/idl/code"
)

// Caches, for their metrics.
const (
	cacheConversations = iota
	cacheUsers
	cacheMembers
	caches
)

// metrics of one das. Without a registerer they count for nobody.
type metrics struct {
	wait        [businesses]prometheus.Observer
	refused     *prometheus.CounterVec
	commits     *prometheus.CounterVec
	commitTime  prometheus.Histogram
	commitItems prometheus.Histogram
	fencedKeys  *prometheus.CounterVec
	repeats     prometheus.Counter
	staleKeys   prometheus.Counter
	results     prometheus.Counter
	held        prometheus.Counter
	handed      prometheus.Counter
	loads       [caches]prometheus.Counter
	readTime    *prometheus.HistogramVec
	readRefused *prometheus.CounterVec
}

// Buckets from 50 us to 13 s.
func seconds() []float64 { return prometheus.ExponentialBuckets(50e-6, 4, 10) }

func newMetrics(d *Das, r prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	var list []prometheus.Collector
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hongyan_das_" + name, Help: help}, labels)
		list = append(list, c)
		return c
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hongyan_das_" + name, Help: help, Buckets: buckets}, labels)
		list = append(list, h)
		return h
	}
	wait := histograms("queue_wait_seconds", "Time from arrival to planning, of the oldest item of each commit.", seconds(), "queue")
	for b := range businesses {
		m.wait[b] = wait.WithLabelValues(b.String())
	}
	loads := counters("cache_loads_total", "States read because they were not remembered.", "cache")
	for i, name := range [caches]string{"conversations", "users", "members"} {
		m.loads[i] = loads.WithLabelValues(name)
	}
	m.refused = counters("refused_total", "Items refused on arrival.", "queue", "code")
	m.commits = counters("commits_total", "Group commits.", "outcome")
	m.commitTime = histograms("commit_seconds", "Time of a group commit.", seconds()).WithLabelValues().(prometheus.Histogram)
	m.commitItems = histograms("commit_items", "Items of a group commit.", prometheus.ExponentialBuckets(1, 2, 11)).WithLabelValues().(prometheus.Histogram)
	m.fencedKeys = counters("fenced_total", "Keys whose belief was wrong at a commit.", "kind")
	m.repeats = counters("repeats_total", "Items repeated because a key of theirs was fenced.").WithLabelValues()
	m.staleKeys = counters("stale_total", "Plans thrown away because memory differed from the store.").WithLabelValues()
	m.results = counters("results_dropped_total", "Results that could not be told to their Logic.").WithLabelValues()
	m.held = counters("held_total", "Times that an item waited because its bucket was closed.").WithLabelValues()
	m.handed = counters("handed_total", "Items handed to the writers of another database, because their bucket has moved.").WithLabelValues()
	m.readTime = histograms("read_seconds", "Time of a read, waiting included.", seconds(), "read")
	m.readRefused = counters("reads_refused_total", "Reads refused because too many waited.", "read")
	list = append(list, d.gauges()...)
	return m, register(r, list)
}

func register(r prometheus.Registerer, list []prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range list {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// gauges are read when somebody looks.
func (d *Das) gauges() []prometheus.Collector {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hongyan_das_" + name, Help: help, ConstLabels: labels}, value)
	}
	list := []prometheus.Collector{
		gauge("appends_in_flight", "Appends accepted and not settled.", nil, func() float64 { return float64(d.appends.Load()) }),
		gauge("overdue_fanout_rows", "Fan-out rows open too long, counted up to the limit.", nil, func() float64 { return float64(d.overdue.Load()) }),
	}
	for b := range businesses {
		l, q := prometheus.Labels{"queue": b.String()}, &d.bounds[b]
		list = append(list,
			gauge("queue_items", "Items waiting.", l, func() float64 { return float64(q.items.Load()) }),
			gauge("queue_bytes", "Their size.", l, func() float64 { return float64(q.bytes.Load()) }),
			gauge("queue_age_seconds", "Age of the oldest item waiting.", l, func() float64 { return d.queueAge(b).Seconds() }),
		)
	}
	return list
}

func (d *Das) queueAge(b business) (age time.Duration) {
	for _, w := range d.writers() {
		if w.queues[b] == nil {
			continue
		}
		if at, ok := w.queues[b].oldest(); ok {
			age = max(age, d.since()-at)
		}
	}
	return age
}

func (m *metrics) refuse(b business, c code.Code) {
	m.refused.WithLabelValues(b.String(), c.Name()).Inc()
}
func (m *metrics) loaded(cache int) { m.loads[cache].Inc() }
func (m *metrics) repeated(n int)   { m.repeats.Add(float64(n)) }
func (m *metrics) stale()           { m.staleKeys.Inc() }
func (m *metrics) dropped(n int)    { m.results.Add(float64(n)) }

func (m *metrics) committed(took time.Duration, items int, err error) {
	outcome := "done"
	if f, ok := errors.AsType[*store.FenceError](err); ok {
		outcome = "fenced"
		for kind, n := range map[string]int{
			"bucket": len(f.Buckets), "conversation": len(f.Convs), "user": len(f.Users),
			"session": len(f.Sessions), "duplicate": len(f.Duplicates),
		} {
			m.fencedKeys.WithLabelValues(kind).Add(float64(n))
		}
	} else if errors.Is(err, store.ErrNotWritten) {
		outcome = "refused"
	} else if err != nil {
		outcome = "unknown"
	}
	m.commits.WithLabelValues(outcome).Inc()
	m.commitTime.Observe(took.Seconds())
	m.commitItems.Observe(float64(items))
}
