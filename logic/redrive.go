package logic

import (
	"context"
	"strconv"
	"time"

	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// redrive finds outbox rows that are open for too long, by the store's clock, and drives
// those again that placement gives to this Logic, their owner alive or not (R05, R06).
// What this Logic is busy with anyway is skipped.
type redrive struct {
	logic *Logic
	kind  tier.Outbox
	age   time.Duration
	after map[string]string // das address -> where the scan goes on
	again map[rowKey]*retry // rows driven and not yet gone
	round int
}

type retry struct {
	next  time.Time
	tries int
	round int // last seen in
}

const (
	scanPage  = 256 // rows of one call
	scanPages = 16  // calls to one das before the next has its turn
	// driveMost bounds the pause between two drives of a row.
	driveMost = 10 * time.Minute
)

func (l *Logic) newRedrive(kind tier.Outbox, age time.Duration) *redrive {
	return &redrive{logic: l, kind: kind, age: age, after: map[string]string{}, again: map[rowKey]*retry{}}
}

// run scans until ctx ends.
func (r *redrive) run(ctx context.Context) {
	every := min(max(r.age/4, time.Second), 10*time.Second)
	for {
		start := time.Now()
		r.pass(ctx)
		// With much to find, half of the time stays free for everything else.
		if !sleep(ctx, max(every, time.Since(start))) {
			return
		}
	}
}

// pass scans a part of each das; once all were scanned to their end, rows that are gone
// are forgotten.
func (r *redrive) pass(ctx context.Context) {
	ended := true
	for _, das := range r.logic.deps.Das.All() {
		ended = r.scan(ctx, das) && ended
	}
	if !ended {
		return
	}
	for key, a := range r.again {
		if a.round < r.round {
			delete(r.again, key)
		}
	}
	r.round++
}

// scan reads some pages of one das; true: up to the end.
func (r *redrive) scan(ctx context.Context, das route.Peer[tier.Das]) bool {
	for range scanPages {
		req := &tier.ScanRequest{Kind: r.kind, MinAgeMs: r.age.Milliseconds(), After: r.after[das.Addr], Limit: scanPage}
		call, cancel := context.WithTimeout(ctx, r.logic.cfg.CallTimeout)
		reply, err := das.Client.Scan(call, req)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.logic.log.Warn("outbox cannot be scanned", "das", das.Addr, "kind", r.kind.String(), "err", err)
			}
			return true
		}
		r.drive(ctx, reply.Rows)
		if r.after[das.Addr] = reply.Next; reply.Next == "" || len(reply.Rows) == 0 {
			delete(r.after, das.Addr)
			return true
		}
	}
	return false
}

// drive drives the rows of a page that are due here.
func (r *redrive) drive(ctx context.Context, rows []*tier.OutboxRow) {
	l, now := r.logic, time.Now()
	var mine []*tier.OutboxRow
	for _, row := range rows {
		if r.due(row, now) {
			mine = append(mine, row)
		}
	}
	if len(mine) == 0 {
		return
	}
	l.met.redriven.Add(float64(len(mine)))
	if r.kind == tier.Outbox_DELIVER {
		l.driveDeliveries(ctx, mine)
		return
	}
	for _, row := range mine {
		l.driveFanOut(row)
	}
}

// due tells whether a row is this Logic's to drive, now.
func (r *redrive) due(row *tier.OutboxRow, now time.Time) bool {
	l := r.logic
	if _, here := l.home(route.Hash(row.Owner, strconv.FormatUint(row.N, 10))); !here {
		return false
	}
	key := rowKey{l.ownerName(row.Owner), row.Shard, row.N}
	if r.kind == tier.Outbox_DELIVER && l.rows.tracks(key) || r.kind == tier.Outbox_FANOUT && l.fans.tracks(key) {
		return false
	}
	a := r.again[key]
	if a == nil {
		a = &retry{}
		r.again[key] = a
	}
	a.round = r.round
	if now.Before(a.next) {
		return false
	}
	a.tries++
	a.next = now.Add(backoff(a.tries, r.age, driveMost))
	return true
}

// driveFanOut drives the entries of a row; it ends when all members are reported.
func (l *Logic) driveFanOut(row *tier.OutboxRow) {
	for _, o := range row.Orders {
		order := *o
		order.Owner, order.Row, order.Shard, order.Entries = row.Owner, row.N, row.Shard, uint32(len(row.Orders))
		l.startFanOut(&order, true)
	}
	if len(row.Orders) == 0 {
		l.endRange(tier.Outbox_FANOUT, rowRange{row.Owner, row.Shard, row.N, row.N})
	}
}

// driveDeliveries ends the rows whose users have acked or were woken, and wakes the users
// of the others.
func (l *Logic) driveDeliveries(ctx context.Context, rows []*tier.OutboxRow) {
	var users []presence.User
	for _, row := range rows {
		for _, d := range row.Due {
			users = append(users, presence.User{Tenant: d.Tenant, UID: d.Uid})
		}
	}
	progress := l.progress(ctx, users, false)
	wake := map[presence.User]*tier.Due{}
	for _, row := range rows {
		open := false
		for _, d := range row.Due {
			key := presence.User{Tenant: d.Tenant, UID: d.Uid}
			version := position{d.Epoch, d.Version}
			p := progress[key]
			if p != nil && !(position{p.Epoch, max(p.Cursor, p.Woken)}).less(version) {
				continue
			}
			open = true
			if w := wake[key]; w == nil || (position{w.Epoch, w.Version}).less(version) {
				wake[key] = d
			}
		}
		if !open {
			l.endRange(tier.Outbox_DELIVER, rowRange{row.Owner, row.Shard, row.N, row.N})
		}
	}
	msgs := make([]mq.Message, 0, len(wake))
	for key, d := range wake {
		msgs = append(msgs, offline(key, position{d.Epoch, d.Version}, d.Conv, d.Seq))
	}
	if len(msgs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	if err := l.deps.Queue.Publish(ctx, msgs...); err != nil {
		l.log.Warn("offline events cannot be published", "events", len(msgs), "err", err)
	}
}
