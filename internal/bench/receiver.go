package bench

import (
	"time"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// gapDelay is how long a gap may fill by itself before it is fetched.
const gapDelay = 200 * time.Millisecond

// receiver is the receiving half of a pair: a client of one conversation.
type receiver struct {
	*conn
	run  *pairsRun
	pair uint32
	conv string

	first   uint64            // what is up to here is of earlier runs, and not looked at
	named   bool              // the list has the conversation
	held    uint64            // every seq up to here was received and checked
	ahead   map[uint64]uint64 // seq -> number, beyond held
	lastSeq uint64            // of the conversation, as far as known
	last    uint64            // number of the message at held
	seen    bits              // numbers, of what the server has
	change  change

	// What was counted, by number and by seq: after RESET everything is read again.
	ever, doubled, moved, damaged bits

	fetched  time.Time // of the last HISTORY; zero = the next may be asked
	gapSince time.Time
}

func (r *receiver) handle(f wire.Frame, now time.Time) error {
	switch {
	case f.Cmd == im.Cmd_PUSH:
		return parsePush(f.Body, &r.change, func(epoch uint64, c *change) { r.apply(epoch, c, now) })
	case f.Cmd == im.Cmd_NOTICE:
		if r.behind(f) {
			return r.sync(now)
		}
	case f.Cmd == im.Cmd_SYNC:
		return r.listed(f, now)
	case f.Cmd == im.Cmd_HISTORY:
		return r.read(f, now)
	case f.Cmd == im.Cmd_ERROR, f.Cmd == im.Cmd_KICK:
		return errorOf(f)
	}
	return nil
}

func (r *receiver) apply(epoch uint64, c *change, now time.Time) {
	if !r.applied(epoch, c.version) {
		_ = r.sync(now) // encoding a SYNC does not fail
	}
	if epoch != r.epoch {
		return // of a log that is not ours any more, or not yet: SYNC tells
	}
	for _, m := range c.messages {
		r.take(m.seq, m.data, now)
	}
	r.know(c.lastSeq, now)
}

// take checks one message. What was received before is dropped by its seq.
func (r *receiver) take(seq uint64, data []byte, now time.Time) {
	if _, have := r.ahead[seq]; have || seq <= r.held {
		return
	}
	p, ok := parsePayload(data)
	if ok && p.pair == r.pair {
		r.count(p, now)
	} else if !r.damaged.set(seq) {
		r.run.damaged.Add(1)
	}
	r.ahead[seq] = p.number
	for {
		number, have := r.ahead[r.held+1]
		if !have {
			return
		}
		r.held++
		delete(r.ahead, r.held)
		if number < r.last && !r.moved.set(number) {
			r.run.reordered.Add(1)
		}
		r.last = number
	}
}

// count notes a message that the server has, once in each reading.
func (r *receiver) count(p payload, now time.Time) {
	switch twice, before := r.seen.set(p.number), r.ever.set(p.number); {
	case twice:
		if !r.doubled.set(p.number) {
			r.run.duplicates.Add(1)
			r.run.delivered.Add(1)
		}
	case before:
		r.run.confirmed.Add(1)
	default:
		r.run.delivered.Add(1)
		if r.run.measured(p.at) {
			r.run.e2eTimes[int(r.pair)%len(r.run.e2eTimes)].add(now.Sub(r.run.begun) - p.at)
		}
	}
}

func (r *receiver) know(lastSeq uint64, now time.Time) {
	r.lastSeq = max(r.lastSeq, lastSeq)
	if r.held >= r.lastSeq {
		r.gapSince = time.Time{}
	} else if r.gapSince.IsZero() {
		r.gapSince = now
	}
}

// listed takes the answer to SYNC.
func (r *receiver) listed(f wire.Frame, now time.Time) error {
	rsp, reset, err := r.synced(f, now)
	if reset {
		r.forget()
	}
	if rsp == nil {
		return err
	}
	for _, c := range rsp.Changes {
		if c.Conv != r.conv {
			continue
		}
		r.name(c.LastSeq)
		for _, m := range c.Messages {
			r.take(m.Seq, m.Data, now)
		}
		r.know(c.LastSeq, now)
	}
	if !r.renewing && !r.named {
		r.name(0) // the whole list was read: the server does not have it
	}
	return err
}

// forget drops what is held, after RESET: only what the server still has counts as received,
// and it is all read again and checked.
func (r *receiver) forget() {
	r.held, r.last, r.lastSeq, r.gapSince, r.fetched = r.first, 0, 0, time.Time{}, time.Time{}
	r.seen, r.named = nil, false
	clear(r.ahead)
}

// name: the list has the conversation up to last. Seqs that are gone are given again.
func (r *receiver) name(last uint64) {
	if !r.named && last < r.first {
		r.first, r.held = last, min(r.held, last)
	}
	r.named = true
}

// read takes the answer to HISTORY, if it was asked since the last RESET.
func (r *receiver) read(f wire.Frame, now time.Time) error {
	if f.Status != 0 || f.Seq != r.historySeq() {
		return nil // tick asks again
	}
	var rsp im.HistoryRsp
	if err := rsp.Unmarshal(f.Body); err != nil {
		return err
	}
	held := r.held
	for _, m := range rsp.Messages {
		r.take(m.Seq, m.Data, now)
	}
	r.know(0, now)
	if r.held > held {
		r.fetched = time.Time{}
	}
	return nil
}

// historySeq tells the answers to what was asked after the last RESET from earlier ones.
func (r *receiver) historySeq() uint32 { return uint32(r.resets) + 1 }

// tick acknowledges, fetches gaps, and asks again where no answer came.
func (r *receiver) tick(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.syncIfDue(now); err != nil {
		return err
	}
	if r.asked.IsZero() && !r.gapSince.IsZero() && now.Sub(r.gapSince) > gapDelay && now.Sub(r.fetched) > gapDelay {
		r.fetched = now
		r.run.fetches.Add(1)
		err := r.queue(im.Cmd_HISTORY, r.historySeq(), 0, &im.History{Conv: r.conv, FromSeq: r.held + 1, ToSeq: min(r.held+200, r.lastSeq), Limit: 200})
		if err != nil {
			return err
		}
	}
	r.acknowledge(now)
	if err := r.alive(now); err != nil {
		return err
	}
	return r.flush()
}

// level tells that everything the server has was received.
func (r *receiver) level() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.renewing && r.held >= r.lastSeq
}
