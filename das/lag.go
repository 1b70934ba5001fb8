package das

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hongyan/das/store"
)

// appendShare is how much of the bound for appends is open: all of it until the work that
// follows commits is half way to its bound, nothing when it has reached it. That work is
// never refused, so what leads to it is slowed (law 2, R04).
func (d *Das) appendShare() float64 {
	behind := max(d.bounds[fanout].fill(), float64(d.overdue.Load())/float64(d.cfg.Lag.Rows))
	return min(1, max(0, 2-2*behind))
}

// watchLag counts the overdue fan-out rows of the store from time to time, whoever wrote
// them: a count in memory would drift.
func (d *Das) watchLag(ctx context.Context) {
	if d.oneCommit {
		return // there are none
	}
	ticker := time.NewTicker(d.cfg.Lag.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n, err := d.overdueRows(ctx)
		if err != nil {
			if ctx.Err() == nil {
				d.log.Warn("could not count overdue fan-out rows", slog.Any("error", err))
			}
			continue
		}
		d.overdue.Store(int64(n))
	}
}

func (d *Das) overdueRows(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Commit.Timeout)
	defer cancel()
	rows, failed := 0, []error(nil)
	for _, part := range d.parts { // those that are not there count for nothing
		n, err := d.overdueIn(ctx, part)
		if err != nil {
			failed = append(failed, err)
		}
		rows += n
	}
	if len(failed) < len(d.parts) {
		failed = nil
	}
	return rows, errors.Join(failed...)
}

func (d *Das) overdueIn(ctx context.Context, part store.Store) (int, error) {
	now, err := part.Now(ctx)
	if err != nil {
		return 0, err
	}
	v, err := part.View(ctx)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	rows, err := v.FanOutRows(store.RowKey{}, store.OverdueAt(now, d.cfg.Lag.Age.Milliseconds()), d.cfg.Lag.Rows)
	return len(rows), err
}
