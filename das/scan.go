package das

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// Limits of Scan and Pushes.
const (
	scanDefault   = 100
	scanMost      = 1000
	pushesDefault = 20
	pushesMost    = 200
)

// Scan implements tier.Das: outbox rows of any owner that are older than an age by the
// store's clock, or dated well ahead of it, in the order of their keys, one database after the other. Next, if not empty,
// is the after of the next page. Orders come without messages: they are read from the log.
func (d *Das) Scan(ctx context.Context, req *tier.ScanRequest) (*tier.ScanReply, error) {
	if req.MinAgeMs < 0 {
		return nil, code.Errorf(code.BadRequest, "min_age_ms %d is negative", req.MinAgeMs)
	}
	if req.Kind != tier.Outbox_FANOUT && req.Kind != tier.Outbox_DELIVER {
		return nil, code.Errorf(code.BadRequest, "outbox %d is unknown", req.Kind)
	}
	db, after, err := parseScanKey(req.After)
	if err != nil {
		return nil, err
	}
	limit := clamp(req.Limit, scanDefault, scanMost)
	reply := &tier.ScanReply{}
	var failed error
	for ; db < len(d.parts) && len(reply.Rows) < limit; db, after = db+1, (store.RowKey{}) {
		page, err := d.scanPart(ctx, db, req, after, limit-len(reply.Rows))
		if err != nil { // the rows of the others are not to wait for it
			failed = err
			continue
		}
		reply.Rows = append(reply.Rows, page.Rows...)
		if reply.Next = page.Next; reply.Next != "" {
			return reply, nil
		}
	}
	switch {
	case len(reply.Rows) == 0 && failed != nil:
		return nil, failed
	case db < len(d.parts):
		reply.Next = formatScanKey(db, store.RowKey{})
	}
	return reply, nil
}

// scanPart reads a page of one database. What it finds is driven again, so it must last (R19).
func (d *Das) scanPart(ctx context.Context, db int, req *tier.ScanRequest, after store.RowKey, limit int) (*tier.ScanReply, error) {
	part := d.parts[db]
	return inLane(ctx, d, d.lanes.system, "scan", func() (*tier.ScanReply, error) {
		now, err := part.Now(ctx)
		if err != nil {
			return nil, err
		}
		s := scan{das: d, ctx: ctx, now: now, created: store.OverdueAt(now, req.MinAgeMs), db: db, after: after, limit: limit}
		defer s.close()
		return once(ctx, part, func(v store.View) (*tier.ScanReply, error) {
			if req.Kind == tier.Outbox_FANOUT {
				return s.fanOut(v)
			}
			return s.deliver(v)
		}, true)
	})
}

type scan struct {
	das     *Das
	ctx     context.Context
	now     int64 // by the store's clock
	created store.Created
	db      int
	after   store.RowKey
	limit   int
	buckets store.View // of all databases, for epochs; nil = not opened
}

// epoch of a user's bucket, which may have moved away from where the row is.
func (s *scan) epoch(v store.View, user store.Key) (uint64, error) {
	if s.das.placed != nil {
		if s.buckets == nil {
			all, err := s.das.store.View(s.ctx)
			if err != nil {
				return 0, err
			}
			s.buckets = all
		}
		v = s.buckets
	}
	b, err := v.Bucket(bucketOf(user))
	return b.Epoch, err
}

func (s *scan) close() {
	if s.buckets != nil {
		s.buckets.Close()
	}
}

func (s *scan) fanOut(v store.View) (*tier.ScanReply, error) {
	rows, err := v.FanOutRows(s.after, s.created, s.limit)
	if err != nil {
		return nil, fmt.Errorf("scan fan-out rows: %w", err)
	}
	reply := &tier.ScanReply{Rows: make([]*tier.OutboxRow, len(rows))}
	for i := range rows {
		r := &rows[i]
		row := s.row(tier.Outbox_FANOUT, r.RowKey, r.CreatedMS)
		for n, e := range r.Entries {
			row.Orders = append(row.Orders, &tier.FanOutOrder{
				Owner: row.Owner, Row: row.N, Shard: row.Shard, Entry: uint32(n), Entries: uint32(len(r.Entries)),
				Tenant: e.Conv.Tenant, Members: tellMembers(e.Members, e.Conv.ID, e.Epoch, e.LastSeq, r.CreatedMS),
			})
		}
		reply.Rows[i] = row
	}
	if n := len(rows); n > 0 {
		s.next(reply, n, rows[n-1].RowKey)
	}
	return reply, nil
}

func (s *scan) deliver(v store.View) (*tier.ScanReply, error) {
	rows, err := v.DeliverRows(s.after, s.created, s.limit)
	if err != nil {
		return nil, fmt.Errorf("scan delivery rows: %w", err)
	}
	reply := &tier.ScanReply{Rows: make([]*tier.OutboxRow, 0, len(rows))}
	for i := range rows {
		row, err := s.delivery(v, &rows[i])
		switch {
		case err == nil:
			reply.Rows = append(reply.Rows, row)
		case s.das.placed == nil:
			return nil, err
		default: // a user's bucket has moved to a database that is not there now: found again later
			s.das.log.Warn("a delivery row is passed over", slog.Any("error", err))
		}
	}
	if n := len(rows); n > 0 {
		s.next(reply, n, rows[n-1].RowKey)
	}
	return reply, nil
}

func (s *scan) delivery(v store.View, r *store.DeliverRow) (*tier.OutboxRow, error) {
	row := s.row(tier.Outbox_DELIVER, r.RowKey, r.CreatedMS)
	for _, e := range r.Entries {
		epoch, err := s.epoch(v, e.User)
		if err != nil {
			return nil, fmt.Errorf("read the bucket of %q: %w", e.User.ID, err)
		}
		row.Due = append(row.Due, &tier.Due{
			Tenant: e.User.Tenant, Uid: e.User.ID, Epoch: epoch, Version: e.Version, Conv: e.Conv, Seq: e.Seq,
		})
	}
	return row, nil
}

func (s *scan) row(kind tier.Outbox, k store.RowKey, createdMS int64) *tier.OutboxRow {
	shard, n := toldN(k.N)
	return &tier.OutboxRow{
		Kind: kind, Owner: k.Owner, N: n, Shard: shard, CreatedMs: createdMS, AgeMs: max(s.now-createdMS, 0),
	}
}

// next sets where the next page begins, if this one is full.
func (s *scan) next(reply *tier.ScanReply, rows int, last store.RowKey) {
	if rows == s.limit {
		reply.Next = formatScanKey(s.db, last)
	}
}

// A place in a scan is "<n>/<owner>", n as stored, of the first database; of another
// "<database>:<n>/<owner>".
func formatScanKey(db int, k store.RowKey) string {
	at := strconv.FormatUint(k.N, 10) + "/" + k.Owner
	if db > 0 {
		at = strconv.Itoa(db) + ":" + at
	}
	return at
}

func parseScanKey(s string) (db int, k store.RowKey, err error) {
	if s == "" {
		return 0, store.RowKey{}, nil
	}
	n, owner, ok := strings.Cut(s, "/")
	if at, rest, several := strings.Cut(n, ":"); several {
		n = rest
		if db, err = strconv.Atoi(at); err != nil || db < 1 {
			ok = false
		}
	}
	v, err := strconv.ParseUint(n, 10, 64)
	if !ok || err != nil || !store.ValidID(owner) {
		return 0, store.RowKey{}, code.Errorf(code.BadRequest, "after %.80q is not the next of a scan", s)
	}
	return db, store.RowKey{Owner: owner, N: v}, nil
}

// Pushes implements tier.Das: the offline pushes recorded for a user, newest first.
func (d *Das) Pushes(ctx context.Context, req *tier.PushesRequest) (*tier.PushesReply, error) {
	user, err := userKey(req.Tenant, req.Uid)
	if err != nil {
		return nil, err
	}
	return reading(ctx, d, d.lanes.system, "pushes", func(v store.View) (*tier.PushesReply, error) {
		list, err := v.Pushes(user, clamp(req.Limit, pushesDefault, pushesMost))
		if err != nil {
			return nil, fmt.Errorf("read the pushes of %q: %w", user.ID, err)
		}
		reply := &tier.PushesReply{Pushes: make([]*tier.PushRecord, len(list))}
		for i, p := range list {
			reply.Pushes[i] = &tier.PushRecord{
				Uid: user.ID, Device: p.Device, Platform: p.Platform, Conv: p.Conv, Seq: p.Seq,
				Title: p.Title, Body: p.Body, AtMs: p.AtMS, Collapse: p.Collapse, Badge: p.Badge,
			}
		}
		return reply, nil
	})
}
