package controltest

import (
	"testing"
	"time"

	"hongyan/internal/control"
)

// RunReports runs the suite that every control.Reports passes. open returns new, empty ones.
func RunReports(t *testing.T, open func(t *testing.T) control.Reports) {
	reports := open(t)
	if closer, ok := reports.(interface{ Close() error }); ok {
		t.Cleanup(func() { _ = closer.Close() })
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	reports.Report(control.Report{Tier: "logic", Addr: "b:1", Key: "k", Revision: 2, InForce: 1, Err: "too big", Since: since})
	reports.Report(control.Report{Tier: "logic", Addr: "a:1", Key: "k", Revision: 1, InForce: 1, Since: since})
	reports.Report(control.Report{Tier: "das", Addr: "c:1", Key: "other", Revision: 1, Since: since})
	reports.Report(control.Report{Tier: "logic", Addr: "a:1", Key: "k", Revision: 2, InForce: 2, Since: since})

	deadline := time.Now().Add(patience)
	for {
		k, err := reports.Reports(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		all, err := reports.Reports(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(k) == 2 && len(all) == 3 && k[0].Addr == "a:1" && k[0].InForce == 2 && k[1].Err == "too big" && k[1].Since.Equal(since) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("reported of k: %+v, of all: %+v", k, all)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
