package logic

import (
	"context"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/route"
)

// Settled takes the outcomes of what this Logic submitted, and the rows that moved. It
// answers callers at once and pushes, in the order of each user's versions; what others
// must push is passed on to their homes. Items and changes belong to this Logic from now on.
func (l *Logic) Settled(_ context.Context, b *tier.SettledBatch) (*tier.Accepted, error) {
	if l.state.Load() == created {
		return nil, l.accepts()
	}
	now := time.Now()
	causes := l.causes.Get().(causes)
	defer l.causes.Put(causes)
	defer clear(causes)
	for _, s := range b.Items {
		l.settle(causes, s)
	}
	e := &encoder{}
	for _, c := range b.Changes {
		if c.Row == nil {
			continue
		}
		if len(causes) > 0 {
			if c = l.explain(causes, c); c == nil {
				continue
			}
		}
		l.passOrPush(c, e, now)
	}
	l.leftovers(causes)
	return accepted(), nil
}

// settle takes one outcome. Answers that may carry a version wait for their change, which
// comes in the same batch.
func (l *Logic) settle(causes causes, s *tier.Settled) {
	w := l.writes.take(s.Id)
	if s.Append != nil && s.Append.Order != nil {
		// Whoever waited may have given up: what is committed is fanned out all the same (R04),
		// and driven again for a duplicate (R05).
		l.twoStage.Store(true)
		l.startFanOut(s.Append.Order, false)
	}
	if w == nil {
		return
	}
	if s.Code != uint32(code.OK) {
		err := code.Errorf(code.Code(s.Code), "%s", s.Message)
		err.RetryAfter = time.Duration(s.RetryAfterMs) * time.Millisecond
		w.outcome.failed(l, err)
		return
	}
	switch o := w.outcome.(type) {
	case *waiter:
		o.done <- settlement{settled: s}
	case *call:
		if s.Version == 0 || o.device() == "" {
			l.finish(o, s, s.Version > 0)
			break
		}
		causes.add(causeKey{o.up.Tenant, o.up.Uid, o.conv, s.Version}, o, s)
	case *fanOut:
		causes.addFanOut(causeKey{o.tenant, o.member.Uid, o.member.Conv, s.Version}, o, s)
	}
}

// finish answers a committed call.
func (l *Logic) finish(c *call, s *tier.Settled, carries bool) {
	l.respond(c.request, code.OK, c.reply(c, s, carries), &c.down)
	if c.displayed > 0 && s.Append != nil && s.Append.Order != nil {
		l.displayed(c)
	}
}

// causeKey names one change of one user.
type causeKey struct {
	tenant, uid, conv string
	version           uint64
}

// cause is what of a batch led to one change.
type cause struct {
	calls   *call // of the user himself, newest first
	settled *tier.Settled
	mixed   bool   // by several of his connections
	moves   uint32 // how many of the calls moved the row and tell so in their answers
	fans    []*fanOut
}

// causes of one SettledBatch.
type causes map[causeKey]cause

func (m causes) add(key causeKey, c *call, s *tier.Settled) {
	c.settled = s
	k := m[key]
	if k.calls != nil && k.calls.up.Conn != c.up.Conn {
		k.mixed = true
	}
	if c.next, k.calls = k.calls, c; s.Moved && !c.untold {
		k.moves++
	}
	m[key] = k
}

func (m causes) addFanOut(key causeKey, f *fanOut, s *tier.Settled) {
	k := m[key]
	k.settled, k.fans = s, append(k.fans, f)
	m[key] = k
}

// explain answers the calls that led to a change, in its place in the order of versions,
// and says which connection needs no push of it: the one whose calls are all that moved the
// row. A later connection of the same device does: it has no answer coming. A change that
// others had a part in (their messages, how far they have read) must reach the caller too,
// and then brings the version itself: an ack that moved the cursor would hide it (R11).
// Nil: the change is pushed later.
func (l *Logic) explain(causes causes, c *tier.Change) *tier.Change {
	key := causeKey{c.Tenant, c.Uid, c.Row.Conv, c.Row.Version}
	k, ok := causes[key]
	if !ok {
		return c
	}
	delete(causes, key)
	if k.calls != nil {
		alone := !k.mixed && k.moves > 0 && k.moves == c.Moves
		if alone {
			c.SkipDevice, c.SkipConn = k.calls.device(), k.calls.up.Conn
		}
		for call := k.calls; alone && call != nil; call = call.next {
			call.settled.Row = c.Row // to tell what else of it moved
		}
		l.finishAll(k.calls, alone)
	}
	if len(k.fans) > 0 {
		l.fannedOut(k.fans)
		if lacksMessages(c, k.fans) {
			l.fetchAndPush(c, 0)
			return nil
		}
		c = withMessages(c, k.fans)
	}
	return c
}

// finishAll answers calls, the oldest first.
func (l *Logic) finishAll(newest *call, carries bool) {
	var oldest *call
	for c := newest; c != nil; {
		c, c.next, oldest = c.next, oldest, c
	}
	for c := oldest; c != nil; c = c.next {
		l.finish(c, c.settled, carries)
	}
}

// withMessages gives a change of the two-stage form the messages that came with its orders.
func withMessages(c *tier.Change, fans []*fanOut) *tier.Change {
	if len(c.Row.Messages) > 0 {
		return c
	}
	var messages []*im.Message
	for _, f := range fans {
		for _, m := range f.order.Messages {
			if m.Seq <= c.Row.LastSeq {
				messages = append(messages, m)
			}
		}
	}
	slices.SortFunc(messages, func(a, b *im.Message) int { return int(a.Seq) - int(b.Seq) })
	messages = slices.CompactFunc(messages, func(a, b *im.Message) bool { return a.Seq == b.Seq })
	change, row := *c, *c.Row
	row.Messages, change.Row = messages, &row
	return &change
}

// leftovers answers calls whose change did not come with them: if one comes, it brings
// the version. It also brings level the users
// whose fan-out moved nothing: it was done before, perhaps without a push.
func (l *Logic) leftovers(causes causes) {
	for _, k := range causes {
		l.finishAll(k.calls, false)
		for _, f := range k.fans {
			l.bringLevel(f, k.settled)
		}
		l.fannedOut(k.fans)
	}
}

// passOrPush hands a change to the home of its user.
func (l *Logic) passOrPush(c *tier.Change, e *encoder, now time.Time) {
	home, here := l.home(route.Hash(c.Tenant, c.Uid))
	if here {
		l.push(c, e, now)
		return
	}
	l.pass(home, parcel{change: c})
}
