package bench

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// maxUnacked is how many sends a conforming client may have under way.
const maxUnacked = 32

// sender is the sending half of a pair.
type sender struct {
	*conn
	run    *pairsRun
	pair   uint32
	conv   string
	window int // 0: by rate

	next    uint64     // number of the next message, from 1
	base    uint64     // lowest unacked number
	flight  []inFlight // base..next-1
	backlog []time.Time
	retryAt time.Time // zero: nothing was refused
	acked   bits
}

type inFlight struct {
	at      time.Time // intended time of sending
	attempt uint32
	done    bool
	refused bool
}

// fill sends new messages as far as the window or the backlog goes.
func (s *sender) fill(now time.Time) {
	for len(s.flight) < maxUnacked {
		at := now
		switch {
		case s.window > 0:
			if len(s.flight) >= s.window || !s.run.sending.Load() {
				return
			}
		case len(s.backlog) > 0:
			at = s.backlog[0]
			s.backlog = s.backlog[1:]
		default:
			return
		}
		s.flight = append(s.flight, inFlight{at: at})
		s.send(s.next)
		s.next++
		s.run.sent.Add(1)
	}
}

// send queues the SEND of a number.
func (s *sender) send(number uint64) {
	m := &s.flight[number-s.base]
	m.attempt++
	m.refused = false
	buf := s.run.buffers.Get().(*[]byte)
	b := (*buf)[:0]
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, 36)
	b = appendID(b, s.run.id, s.pair, number)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(m.attempt))
	if before := s.unackedBefore(number); before > 0 {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendVarint(b, 36)
		b = appendID(b, s.run.id, s.pair, before)
	}
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	b = protowire.AppendString(b, s.conv)
	b = protowire.AppendTag(b, 6, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(im.Kind_CUSTOM))
	b = protowire.AppendTag(b, 8, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.run.cfg.Size))
	b = payload{s.pair, number, m.at.Sub(s.run.begun)}.append(b, s.run.cfg.Size)
	s.out = wire.Append(s.out, &wire.Frame{Cmd: im.Cmd_SEND, Seq: uint32(number), Body: b})
	*buf = b
	s.run.buffers.Put(buf)
}

// unackedBefore is the nearest earlier number that is not acknowledged; 0 = none (R13).
func (s *sender) unackedBefore(number uint64) uint64 {
	for n := number - 1; n >= s.base && n > 0; n-- {
		if !s.flight[n-s.base].done {
			return n
		}
	}
	return 0
}

func (s *sender) handle(f wire.Frame, now time.Time) error {
	switch {
	case f.Cmd == im.Cmd_SEND && f.Flags&wire.FlagResponse != 0:
		return s.answered(f, now)
	case f.Cmd == im.Cmd_PUSH:
		var c change
		return parsePush(f.Body, &c, func(epoch uint64, c *change) { s.moved(epoch, c.version, now) })
	case f.Cmd == im.Cmd_NOTICE:
		if s.behind(f) {
			return s.sync(now)
		}
	case f.Cmd == im.Cmd_SYNC:
		_, _, err := s.synced(f, now)
		return err
	case f.Cmd == im.Cmd_ERROR, f.Cmd == im.Cmd_KICK:
		return errorOf(f)
	}
	return nil
}

// moved applies a version of the sender's own log; what is missing before it is synced.
func (s *sender) moved(epoch, version uint64, now time.Time) {
	if !s.applied(epoch, version) {
		_ = s.sync(now) // encoding a SYNC does not fail
	}
}

func (s *sender) answered(f wire.Frame, now time.Time) error {
	i := int(f.Seq - uint32(s.base))
	if i < 0 || i >= len(s.flight) || s.flight[i].done {
		return nil // of an attempt before the one that was acked
	}
	m := &s.flight[i]
	if f.Status != code.OK {
		s.run.errors.Add(1)
		e := errorOf(f)
		if !f.Status.Retryable() {
			return e
		}
		m.refused = true
		s.retryAt = now.Add(max(e.RetryAfter, 10*time.Millisecond))
		return nil
	}
	a, err := parseAck(f.Body)
	if err != nil {
		return err
	}
	m.done = true
	s.acked.set(s.base + uint64(i))
	s.run.acked.Add(1)
	if s.run.measured(m.at.Sub(s.run.begun)) {
		s.run.ackTimes[int(s.pair)%len(s.run.ackTimes)].add(now.Sub(m.at))
	}
	s.moved(a.epoch, a.version, now)
	for len(s.flight) > 0 && s.flight[0].done {
		s.flight = s.flight[1:]
		s.base++
	}
	s.fill(now)
	return nil
}

// tick sends refused messages again, in order, and those whose answer never came.
func (s *sender) tick(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := !s.retryAt.IsZero() && now.After(s.retryAt)
	for i := range s.flight {
		m := &s.flight[i]
		late := now.Sub(m.at) > time.Duration(m.attempt)*5*time.Second
		if !m.done && (m.refused && due || !m.refused && late) {
			s.send(s.base + uint64(i))
		}
	}
	if due {
		s.retryAt = time.Time{}
	}
	s.fill(now)
	if err := s.syncIfDue(now); err != nil {
		return err
	}
	s.acknowledge(now)
	if err := s.alive(now); err != nil {
		return err
	}
	return s.flush()
}

// idle tells that nothing is under way.
func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flight) == 0 && len(s.backlog) == 0
}

// bits is a set of numbers from 1.
type bits []uint64

func (b *bits) set(n uint64) (was bool) {
	i := n / 64
	for uint64(len(*b)) <= i {
		*b = append(*b, 0)
	}
	was = (*b)[i]&(1<<(n%64)) != 0
	(*b)[i] |= 1 << (n % 64)
	return was
}

func (b bits) has(n uint64) bool {
	return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0
}
