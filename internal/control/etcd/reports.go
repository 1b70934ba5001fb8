package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// reporter keeps this process's reports in etcd, under one lease.
type reporter struct {
	c       *Center
	tenure  *tenure
	started sync.Once

	mu      sync.Mutex
	reports map[string]control.Report // by key below reportsDir
	pending map[string]bool           // to be written
	lease   clientv3.LeaseID          // that all the others were written with
}

func newReporter(c *Center) *reporter {
	r := &reporter{c: c, reports: map[string]control.Report{}, pending: map[string]bool{}}
	r.tenure = &tenure{
		what: "reports", again: make(chan struct{}, 1),
		claim: r.write,
		holds: func(context.Context, *clientv3.Client, clientv3.LeaseID) (bool, error) { return true, nil },
	}
	return r
}

// Report implements control.Reports.
func (c *Center) Report(report control.Report) {
	r := c.reports
	key := fmt.Sprintf("%s/%s/%s", report.Tier, report.Addr, report.Key)
	r.mu.Lock()
	r.reports[key] = report
	r.pending[key] = true
	r.mu.Unlock()
	r.started.Do(func() { _ = c.spawn(func() { c.keep(c.life, r.tenure) }) })
	select {
	case r.tenure.again <- struct{}{}:
	default:
	}
}

// write puts what is pending, or, with a new lease, everything.
func (r *reporter) write(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID) error {
	r.mu.Lock()
	if r.lease != lease {
		for key := range r.reports {
			r.pending[key] = true
		}
		r.lease = lease
	}
	todo := make(map[string]string, len(r.pending))
	for key := range r.pending {
		todo[key] = encode(r.reports[key])
	}
	clear(r.pending)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, r.c.cfg.Timeout)
	defer cancel()
	for _, key := range slices.Sorted(maps.Keys(todo)) {
		if _, err := client.Put(ctx, r.c.cfg.Prefix+reportsDir+key, todo[key], clientv3.WithLease(lease)); err != nil {
			r.mu.Lock()
			r.lease = clientv3.NoLease // all of it again
			r.mu.Unlock()
			select {
			case r.tenure.again <- struct{}{}:
			default:
			}
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// Reports implements control.Reports. It needs etcd.
func (c *Center) Reports(ctx context.Context, key string) ([]control.Report, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	client, err := c.connected()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := client.Get(ctx, c.cfg.Prefix+reportsDir, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	var out []control.Report
	for _, kv := range resp.Kvs {
		report, err := decodeReport(kv.Value)
		if err != nil {
			c.log.Warn("report cannot be read", "key", strings.TrimPrefix(string(kv.Key), c.cfg.Prefix), "err", err)
			continue
		}
		if key == "" || report.Key == key {
			out = append(out, report)
		}
	}
	slices.SortFunc(out, control.CompareReports)
	return out, nil
}

func decodeReport(data []byte) (control.Report, error) {
	var r control.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	if r.Tier == "" || r.Key == "" {
		return r, errors.New("tier or key is missing")
	}
	return r, nil
}
