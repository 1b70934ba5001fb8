package logic

import (
	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// metrics of a Logic. No label has more values than the tables of commands and codes.
type metrics struct {
	commands *prometheus.CounterVec
	ok       [64]prometheus.Counter // commands done, by command word
	sheds    [duties]prometheus.Counter
	pushes   prometheus.Counter
	dropped  prometheus.Counter
	unknown  prometheus.Counter
	wakes    prometheus.Counter
	redriven prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, l *Logic) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hongyan_logic_" + name, Help: help})
	}
	m := &metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hongyan_logic_commands_total", Help: "Commands answered, by command and outcome.",
		}, []string{"cmd", "code"}),
		pushes:   counter("pushes_total", "Changes handed to gateways."),
		dropped:  counter("dropped_frames_total", "Frames dropped because too many waited for their gateway."),
		unknown:  counter("unknown_outcomes_total", "Writes that were not settled in time."),
		wakes:    counter("wakes_total", "Offline events published."),
		redriven: counter("redriven_rows_total", "Overdue outbox rows driven again."),
	}
	for word := range m.ok {
		if cmd := im.Cmd(word); l.command(uint32(word)) != nil {
			m.ok[word] = m.commands.WithLabelValues(cmd.String(), code.OK.Name())
		}
	}
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hongyan_logic_shed_total", Help: "Commands refused because their lane was full.",
	}, []string{"lane"})
	for d, lane := range l.lanes {
		if lane != nil {
			m.sheds[d] = shed.WithLabelValues(lane.name)
		}
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hongyan_logic_" + name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.commands, shed, m.pushes, m.dropped, m.unknown, m.wakes, m.redriven,
		gauge("writes_in_flight_count", "Writes submitted and not yet settled.", func() float64 { return float64(l.writes.count.Load()) }),
		gauge("down_queue_count", "Frames that wait for gateways.", func() float64 { return float64(l.gateways.total()) }),
		gauge("fan_out_outstanding_count", "Members that committed messages have yet to reach.", func() float64 { return float64(l.fans.outstanding()) }),
		gauge("due_count", "Deliveries that nobody acked yet.", func() float64 { _, due := l.rows.sizes(); return float64(due) }),
		gauge("deliver_rows_count", "Delivery rows outstanding.", func() float64 { rows, _ := l.rows.sizes(); return float64(rows) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// command counts an answer.
func (m *metrics) command(cmd im.Cmd, status code.Code) {
	if status == code.OK && cmd >= 0 && int(cmd) < len(m.ok) && m.ok[cmd] != nil {
		m.ok[cmd].Inc()
		return
	}
	name := cmd.String()
	if _, known := im.Cmd_name[int32(cmd)]; !known {
		name = "unknown" // the word is the client's: not a label
	}
	m.commands.WithLabelValues(name, status.Name()).Inc()
}

func (m *metrics) shed(d laneKind) { m.sheds[d].Inc() }
