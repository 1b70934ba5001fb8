package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Result is one run; fields that do not apply are nil. The names are a contract.
type Result struct {
	Scenario    string         `json:"scenario"`
	Params      map[string]any `json:"params"`
	Seconds     float64        `json:"seconds"`
	Interrupted bool           `json:"interrupted,omitempty"`

	Sent          *int64   `json:"sent,omitempty"`
	Acked         *int64   `json:"acked,omitempty"`
	Delivered     *int64   `json:"delivered,omitempty"`
	AckedPerS     *float64 `json:"acked_per_s,omitempty"`
	DeliveredPerS *float64 `json:"delivered_per_s,omitempty"`

	AckP50 *float64 `json:"ack_p50_ms,omitempty"`
	AckP99 *float64 `json:"ack_p99_ms,omitempty"`
	AckMax *float64 `json:"ack_max_ms,omitempty"`
	E2EP50 *float64 `json:"e2e_p50_ms,omitempty"`
	E2EP99 *float64 `json:"e2e_p99_ms,omitempty"`
	E2EMax *float64 `json:"e2e_max_ms,omitempty"`

	Lost       *int64 `json:"lost,omitempty"`
	Duplicates *int64 `json:"duplicates,omitempty"`
	Reordered  *int64 `json:"reordered,omitempty"`
	Errors     *int64 `json:"errors,omitempty"`

	ServerCPUPerMsg *float64 `json:"server_cpu_us_per_msg,omitempty"`
	ServerRSS       *int64   `json:"server_rss_bytes,omitempty"`
	BytesPerConn    *float64 `json:"bytes_per_conn,omitempty"`
	Conns           *int64   `json:"conns,omitempty"`
	CorePercent     *float64 `json:"core_percent,omitempty"`
	LoginsPerS      *float64 `json:"logins_per_s,omitempty"`

	Durable *bool `json:"durable,omitempty"`
}

// Clean tells that nothing was lost, doubled or out of order.
func (r *Result) Clean() bool {
	for _, n := range []*int64{r.Lost, r.Duplicates, r.Reordered} {
		if n != nil && *n != 0 {
			return false
		}
	}
	return true
}

// WriteJSON prints the one object that scripts read.
func (r *Result) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteTable prints it for people: the same figures, the same names.
func (r *Result) WriteTable(w io.Writer) error {
	encoded, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var values map[string]any
	if err := json.Unmarshal(encoded, &values); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range tableRows {
		if v, ok := values[row.key]; ok {
			fmt.Fprintf(t, "%s\t%s\t%s\n", row.key, format(v), row.meaning)
		}
	}
	return t.Flush()
}

var tableRows = []struct{ key, meaning string }{
	{"scenario", ""}, {"seconds", "measured, after the warm-up"},
	{"sent", "messages"}, {"acked", "stored and acknowledged"}, {"delivered", "received and checked"},
	{"acked_per_s", ""}, {"delivered_per_s", ""},
	{"ack_p50_ms", "send to ack"}, {"ack_p99_ms", ""}, {"ack_max_ms", ""},
	{"e2e_p50_ms", "send to receiver"}, {"e2e_p99_ms", ""}, {"e2e_max_ms", ""},
	{"lost", "acked and never received"}, {"duplicates", ""}, {"reordered", ""}, {"errors", "refused or failed sends, tried again"},
	{"conns", "authenticated connections"}, {"bytes_per_conn", "server memory"}, {"logins_per_s", ""},
	{"server_cpu_us_per_msg", "user and system, microseconds"}, {"server_rss_bytes", "at the end"},
	{"core_percent", "of one core, idle"}, {"durable", "an ack means flushed"}, {"interrupted", "stopped early"},
}

func format(v any) string {
	if f, ok := v.(float64); ok && f != float64(int64(f)) {
		return fmt.Sprintf("%.2f", f)
	} else if ok {
		return fmt.Sprintf("%d", int64(f))
	}
	return fmt.Sprint(v)
}

// latencies is a histogram of microseconds up to two minutes, shared by connections.
type latencies struct {
	mu sync.Mutex
	h  *hdr.Histogram
}

func newLatencies() *latencies { return &latencies{h: hdr.New(1, 120_000_000, 3)} }

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	_ = l.h.RecordValue(max(d.Microseconds(), 1)) // over two minutes: out of range, an error elsewhere
	l.mu.Unlock()
}

// addTo adds what l has to a histogram that nobody else uses.
func (l *latencies) addTo(sum *latencies) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum.h.Merge(l.h)
}

func (l *latencies) ms(quantile float64) *float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h.TotalCount() == 0 {
		return nil
	}
	v := float64(l.h.ValueAtQuantile(quantile)) / 1000
	if quantile == 100 {
		v = float64(l.h.Max()) / 1000
	}
	return &v
}

func ptr[T any](v T) *T { return &v }
