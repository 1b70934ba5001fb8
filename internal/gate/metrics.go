package gate

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
)

// metrics of a gateway; unregistered ones count for nobody.
type metrics struct {
	framesIn, framesOut prometheus.Counter
	bytesIn, bytesOut   prometheus.Counter
	again               prometheus.Counter
	noticed             prometheus.Counter
	gone                prometheus.Counter
	overdue             prometheus.Counter
	announced           prometheus.Counter
	unannounced         prometheus.Counter
	closes              *prometheus.CounterVec
	refused             *prometheus.CounterVec
	uplinkWait          prometheus.Histogram
	uplinkFailures      prometheus.Counter
}

func newMetrics(tier string, reg prometheus.Registerer, conns func() int) (*metrics, error) {
	if tier == "" {
		tier = "gate"
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "hongyan", Subsystem: tier, Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	byCode := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), []string{"code"})
	}
	wait := prometheus.HistogramOpts{
		Namespace: "hongyan", Subsystem: tier, Name: "uplink_wait_seconds",
		Help:    "How long the oldest packet of a batch waited for its call.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
	}
	m := &metrics{
		framesIn:       counter("received_frames_total", "Frames of clients."),
		framesOut:      counter("sent_frames_total", "Frames for clients."),
		bytesIn:        counter("received_bytes_total", "Bodies of clients' frames."),
		bytesOut:       counter("sent_bytes_total", "Bodies of frames for clients."),
		again:          counter("retransmitted_frames_total", "Pushes and notices sent again for want of an acknowledgement."),
		noticed:        counter("sync_notices_total", "Clients told to SYNC because pushes were dropped or lost."),
		gone:           counter("gone_total", "Downlink items for connections that are not here."),
		overdue:        counter("overdue_total", "Pushes not acknowledged in time, at their first miss."),
		announced:      counter("announcements_total", "Online notices told, by connection."),
		unannounced:    counter("dropped_announcements_total", "Online notices dropped because earlier ones were still being told."),
		closes:         byCode("closed_connections_total", "Connections closed by the gateway, by close code; 0 = by the client."),
		refused:        byCode("refused_requests_total", "Requests refused by the gateway."),
		uplinkWait:     prometheus.NewHistogram(wait),
		uplinkFailures: counter("uplink_failures_total", "Calls to a Logic that failed and were repeated elsewhere."),
	}
	if reg == nil {
		return m, nil
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("connections", "Open connections.")),
		func() float64 { return float64(conns()) })
	for _, c := range []prometheus.Collector{
		open, m.framesIn, m.framesOut, m.bytesIn, m.bytesOut, m.again, m.noticed, m.gone,
		m.overdue, m.announced, m.unannounced, m.closes, m.refused, m.uplinkWait, m.uplinkFailures,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) closed(c code.Code) { m.closes.WithLabelValues(label(c)).Inc() }
func (m *metrics) refuse(c code.Code) { m.refused.WithLabelValues(label(c)).Inc() }
func label(c code.Code) string        { return strconv.FormatUint(uint64(c), 10) }
