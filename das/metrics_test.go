package das

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// counter is the value of a counter without labels.
func counter(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	list, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range list {
		for _, m := range f.Metric {
			sum += m.Counter.GetValue()
		}
	}
	return sum
}

// Every metric registers, and two das of one process cannot count in one.
func TestMetricsRegister(t *testing.T) {
	r := prometheus.NewRegistry()
	deps := Deps{Store: exclusive(), Logics: noLogics, Metrics: r}
	if _, err := New(DefaultConfig(), deps); err != nil {
		t.Fatal(err)
	}
	list, err := r.Gather()
	if err != nil || len(list) == 0 {
		t.Fatal(len(list), err)
	}
	if _, err := New(DefaultConfig(), deps); err == nil {
		t.Fatal("a second das registered the same metrics")
	}
}
