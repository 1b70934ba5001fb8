package gate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/batch"
	"hongyan/internal/route"
)

// lane carries the packets that some users have for one slot, one batch at a time.
type lane struct {
	up      *uplink
	sender  *batch.Sender[packet]
	timeout *batch.Timeout // of calls; send's alone
}

func newLane(u *uplink) *lane {
	l := &lane{up: u, timeout: batch.NewTimeout(u.gate.cfg.CallTimeout)}
	l.sender = batch.New(u.gate.cfg.BatchMax, u.gate.cfg.UplinkQueue, l.send)
	return l
}

// send brings packets to where their users are at home, or where their duty is served, and
// when an instance fails to where that is then, until all are accepted or have outlived their life. What comes
// later waits behind them: that keeps the order. It grows old as well, so a batch that is
// stuck takes it in.
func (l *lane) send(ctx context.Context, items []packet) {
	g := l.up.gate
	g.metrics.uplinkWait.Observe(time.Duration(g.now() - items[0].since).Seconds())
	for try := 1; ; try++ {
		items = l.expire(items)
		n := l.portion(items)
		left := l.attempt(ctx, items[:n:n])
		items = append(left, items[n:]...)
		switch {
		case len(items) == 0 || ctx.Err() != nil:
			return
		case len(left) == 0: // there was more than one call holds
			try = 0
			continue
		case try >= g.deps.Logics.Slots(): // everyone was asked
			pause(ctx, try)
		}
		items = append(items, l.sender.More(g.cfg.UplinkQueue-len(items))...)
	}
}

// maxBatchBytes is how much a call carries, unless one packet is more: it must stay far from
// what an RPC message may be.
const maxBatchBytes = 1 << 20

// portion is how many of the items go into one call.
func (l *lane) portion(items []packet) int {
	bytes := 0
	for i := range items {
		if bytes += len(items[i].up.Body); i > 0 && bytes > maxBatchBytes || i == l.up.gate.cfg.BatchMax {
			return i
		}
	}
	return len(items)
}

const (
	firstPause = 20 * time.Millisecond
	maxPause   = 200 * time.Millisecond
)

func pause(ctx context.Context, try int) {
	timer := time.NewTimer(min(maxPause, firstPause<<min(try-1, 4)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// expire answers and drops what has outlived its life.
func (l *lane) expire(items []packet) []packet {
	now := l.up.gate.now()
	live := items[:0]
	for i := range items {
		if items[i].due > now {
			live = append(live, items[i])
			continue
		}
		items[i].fail(code.Errorf(code.Unavailable, "no server could take the request in time"))
		l.up.done(&items[i])
	}
	return live
}

// share is the part of a batch that goes to one instance.
type share struct {
	peer  route.Peer[tier.Logic]
	err   error // no instance can be picked
	items []packet
}

// attempt calls each instance that is the home of some of the users, and returns what has
// to be tried again. One user's packets stay together and in order.
func (l *lane) attempt(ctx context.Context, items []packet) []packet {
	shares := l.split(items)
	bounded := l.timeout.Context(ctx)
	if len(shares) == 1 { // as long as the home is up
		return l.call(ctx, bounded, &shares[0])
	}
	left := make([][]packet, len(shares))
	var calls sync.WaitGroup
	for i := range shares {
		calls.Go(func() { left[i] = l.call(ctx, bounded, &shares[i]) })
	}
	calls.Wait()
	var again []packet
	for _, items := range left {
		again = append(again, items...)
	}
	return again
}

func (l *lane) split(items []packet) []share {
	if len(items) == 0 {
		return nil
	}
	whole := l.pick(&items[0])
	for i := range items {
		if s := l.pick(&items[i]); !s.same(&whole) {
			return l.scatter(items)
		}
	}
	whole.items = items
	return []share{whole}
}

// scatter splits what goes to several instances.
func (l *lane) scatter(items []packet) []share {
	var shares []share
	for i := range items {
		s := l.pick(&items[i])
		at := slices.IndexFunc(shares, func(other share) bool { return s.same(&other) })
		if at < 0 {
			at, shares = len(shares), append(shares, s)
		}
		shares[at].items = append(shares[at].items, items[i])
	}
	return shares
}

func (l *lane) pick(p *packet) share {
	peer, err := l.up.gate.deps.Logics.PickFor(dutyOf(p.up), p.conn.hash)
	return share{peer: peer, err: err}
}

func (s *share) same(other *share) bool {
	return s.peer.Instance == other.peer.Instance && (s.err == nil) == (other.err == nil)
}

// call hands a share over, within the time that bounded has. It returns the packets when
// nobody knows whether they arrived.
func (l *lane) call(ctx, bounded context.Context, s *share) []packet {
	if s.err != nil || len(s.items) == 0 {
		return s.items
	}
	g := l.up.gate
	request := &tier.UplinkBatch{
		Gateway: g.deps.Self.Addr,
		Boot:    g.deps.Self.Boot,
		Items:   make([]*tier.Uplink, len(s.items)),
	}
	now, first := g.now(), !s.items[0].tried
	for i := range s.items {
		request.Items[i] = s.items[i].attempt(now)
	}
	_, err := s.peer.Client.Uplink(bounded, request)
	switch refusal := (*code.Error)(nil); {
	case err == nil:
	case refused(err, &refusal):
		for i := range s.items {
			s.items[i].fail(refusal)
		}
	case ctx.Err() != nil:
		return s.items
	default:
		g.metrics.uplinkFailures.Inc()
		if first { // an outage is many attempts
			g.deps.Log.Warn("a logic did not take packets; they are tried elsewhere",
				"logic", s.peer.Addr, "packets", len(s.items), "err", err)
		}
		g.deps.Logics.Failed(s.peer)
		return s.items
	}
	for i := range s.items {
		l.up.done(&s.items[i])
	}
	return nil
}

// attempt is the packet as it is now handed over. Who got it in an earlier attempt may
// still use it, so another gets a copy, marked as repeated (R10).
func (p *packet) attempt(now int64) *tier.Uplink {
	if p.tried {
		again := *p.up
		again.Repeated = true
		p.up = &again
	}
	p.tried = true
	p.up.TtlMs = max(1, time.Duration(p.due-now).Milliseconds())
	return p.up
}

// refused tells an answer of a living Logic, which is passed on, from a call that failed.
func refused(err error, refusal **code.Error) bool {
	if !errors.As(err, refusal) {
		return false
	}
	switch (*refusal).Code {
	case code.Unavailable, code.Expired, code.UnknownOutcome:
		return false
	}
	return true
}
