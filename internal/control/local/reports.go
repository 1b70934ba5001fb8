package local

import (
	"context"
	"slices"
	"sync"

	"hongyan/internal/control"
)

// reports are those of this process; the zero value is ready.
type reports struct {
	mu   sync.Mutex
	last map[reportKey]control.Report
}

type reportKey struct{ tier, addr, key string }

// Report implements control.Reports.
func (r *reports) Report(report control.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[reportKey]control.Report{}
	}
	r.last[reportKey{report.Tier, report.Addr, report.Key}] = report
}

// Reports implements control.Reports.
func (r *reports) Reports(_ context.Context, key string) ([]control.Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []control.Report
	for k, report := range r.last {
		if key == "" || k.key == key {
			list = append(list, report)
		}
	}
	slices.SortFunc(list, control.CompareReports)
	return list, nil
}
