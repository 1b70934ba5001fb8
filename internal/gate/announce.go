package gate

import (
	"context"
	"slices"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/internal/mq"
	"hongyan/internal/notice"
	"hongyan/internal/wire"
)

const (
	// announceStep and announceEvery spread an online notice: so many connections are written
	// at a time, 20,000 a second in all.
	announceStep  = 200
	announceEvery = 10 * time.Millisecond
	// announceBacklog is how many online notices may wait; more are dropped and counted.
	announceBacklog = 64
	// announceMemory is how many ids of notices are remembered, so that one that is published
	// twice is told once.
	announceMemory = 1024
	// listenRetry is the pause before a queue that cannot be listened to is tried again.
	listenRetry = 5 * time.Second
)

// announcements tells online notices of the queue to the connections that are here, until
// ctx ends (JT-13).
func (g *Gate) announcements(ctx context.Context) {
	if g.deps.Queue == nil {
		return
	}
	waiting := make(chan *event.OnlineNotice, announceBacklog)
	hear := func(_ context.Context, m mq.Message) error {
		n, err := notice.Online(m.Payload)
		if err != nil {
			g.deps.Log.Warn("online notice cannot be told", "key", m.Key, "err", err)
			return nil
		}
		select {
		case waiting <- n:
		default:
			g.metrics.unannounced.Inc()
		}
		return nil
	}
	for {
		err := g.deps.Queue.SubscribeAll(ctx, mq.TopicOnline, hear)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		g.deps.Log.Warn("online notices cannot be heard", "err", err, "again_in", listenRetry)
		if !sleep(ctx, listenRetry) {
			return
		}
	}
	var told []string
	for {
		select {
		case n := <-waiting:
			id := n.Tenant + "\x00" + n.Id
			if n.Id != "" && slices.Contains(told, id) {
				continue
			}
			told = append(told, id)
			told = told[max(0, len(told)-announceMemory):]
			g.announce(ctx, n)
		case <-ctx.Done():
			return
		}
	}
}

// announce tells one notice to every connection it is for, spread over time. Who is slow does
// without it, and who comes later too.
func (g *Gate) announce(ctx context.Context, n *event.OnlineNotice) {
	body, _ := (&im.Announcement{Id: n.Id, Text: n.Text, Data: n.Data, AtMs: n.AtMs}).Marshal(nil) // flat: cannot fail
	frame := wire.Frame{Cmd: im.Cmd_ANNOUNCE, Flags: wire.FlagOneWay, Body: body}
	until := notice.Until(n)
	step := 0
	for shard := range shards {
		for _, c := range g.conns.of(shard) {
			if c.announce(n, frame) {
				g.metrics.announced.Inc()
				step++
			}
			if step < announceStep {
				continue
			}
			step = 0
			if !sleep(ctx, announceEvery) {
				return
			}
		}
		if !until.IsZero() && time.Now().After(until) {
			return
		}
	}
}

// announce sends the notice if it is for this connection.
func (c *Conn) announce(n *event.OnlineNotice, frame wire.Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != online || c.tenant != n.Tenant || !among(n.Platforms, c.platform) || !among(n.Classes, c.class) {
		return false
	}
	if c.slow || c.link.Queued() > c.gate.cfg.SlowBytes {
		return false // it would be late, and is not worth more of a queue
	}
	c.sendLocked(frame)
	return true
}

// among: an empty list means everybody.
func among(list []string, one string) bool { return len(list) == 0 || slices.Contains(list, one) }

// sleep returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
