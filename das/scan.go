package das

import (
	"context"
	"fmt"
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
// store's clock, in the order of their keys. Next, if not empty, is the after of the next
// page. Orders come without messages: they are read from the log.
func (d *Das) Scan(ctx context.Context, req *tier.ScanRequest) (*tier.ScanReply, error) {
	if req.MinAgeMs < 0 {
		return nil, code.Errorf(code.BadRequest, "min_age_ms %d is negative", req.MinAgeMs)
	}
	after, err := parseRowKey(req.After)
	if err != nil {
		return nil, err
	}
	now, err := d.store.Now(ctx)
	if err != nil {
		return nil, d.readError("scan", err)
	}
	s := scan{now: now, before: now - req.MinAgeMs, after: after, limit: clamp(req.Limit, scanDefault, scanMost)}
	return reading(ctx, d, d.lanes.system, "scan", func(v store.View) (*tier.ScanReply, error) {
		switch req.Kind {
		case tier.Outbox_FANOUT:
			return s.fanOut(v)
		case tier.Outbox_DELIVER:
			return s.deliver(v)
		}
		return nil, code.Errorf(code.BadRequest, "outbox %d is unknown", req.Kind)
	})
}

type scan struct {
	now, before int64
	after       store.RowKey
	limit       int
}

func (s *scan) fanOut(v store.View) (*tier.ScanReply, error) {
	rows, err := v.FanOutRows(s.after, s.before, s.limit)
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
				Tenant: e.Conv.Tenant, Members: tellMembers(e.Members, e.Conv.ID, e.LastSeq, r.CreatedMS),
			})
		}
		reply.Rows[i] = row
	}
	s.next(reply)
	return reply, nil
}

func (s *scan) deliver(v store.View) (*tier.ScanReply, error) {
	rows, err := v.DeliverRows(s.after, s.before, s.limit)
	if err != nil {
		return nil, fmt.Errorf("scan delivery rows: %w", err)
	}
	reply := &tier.ScanReply{Rows: make([]*tier.OutboxRow, len(rows))}
	for i := range rows {
		r := &rows[i]
		row := s.row(tier.Outbox_DELIVER, r.RowKey, r.CreatedMS)
		for _, e := range r.Entries {
			epoch, err := v.Bucket(bucketOf(e.User))
			if err != nil {
				return nil, fmt.Errorf("read the bucket of %q: %w", e.User.ID, err)
			}
			row.Due = append(row.Due, &tier.Due{
				Tenant: e.User.Tenant, Uid: e.User.ID, Epoch: epoch.Epoch, Version: e.Version, Conv: e.Conv, Seq: e.Seq,
			})
		}
		reply.Rows[i] = row
	}
	s.next(reply)
	return reply, nil
}

func (s *scan) row(kind tier.Outbox, k store.RowKey, createdMS int64) *tier.OutboxRow {
	shard, n := toldN(k.N)
	return &tier.OutboxRow{
		Kind: kind, Owner: k.Owner, N: n, Shard: shard, CreatedMs: createdMS, AgeMs: max(s.now-createdMS, 0),
	}
}

// next sets where the next page begins, if this one is full.
func (s *scan) next(reply *tier.ScanReply) {
	if len(reply.Rows) == s.limit {
		last := reply.Rows[s.limit-1]
		reply.Next = formatRowKey(store.RowKey{Owner: last.Owner, N: storedN(last.Shard, last.N)})
	}
}

// A row key in text is "<n>/<owner>", n as stored.
func formatRowKey(k store.RowKey) string { return strconv.FormatUint(k.N, 10) + "/" + k.Owner }

func parseRowKey(s string) (store.RowKey, error) {
	if s == "" {
		return store.RowKey{}, nil
	}
	n, owner, ok := strings.Cut(s, "/")
	v, err := strconv.ParseUint(n, 10, 64)
	if !ok || err != nil || !store.ValidID(owner) {
		return store.RowKey{}, code.Errorf(code.BadRequest, "after %.80q is not the next of a scan", s)
	}
	return store.RowKey{Owner: owner, N: v}, nil
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
