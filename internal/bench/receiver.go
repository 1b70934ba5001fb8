package bench

import (
	"fmt"
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

	held     uint64            // every seq up to here was received and checked
	ahead    map[uint64]uint64 // seq -> number, beyond held
	lastSeq  uint64            // of the conversation, as far as known
	last     uint64            // number of the message at held
	seen     bits              // numbers
	syncing  bool
	asked    time.Time // of the last SYNC or HISTORY
	gapSince time.Time
	change   change
}

func (r *receiver) handle(f wire.Frame, now time.Time) error {
	switch {
	case f.Cmd == im.Cmd_PUSH:
		return parsePush(f.Body, &r.change, func(_ uint64, c *change) { r.apply(c, now) })
	case f.Cmd == im.Cmd_NOTICE:
		if r.behind(f) {
			return r.sync(now)
		}
	case f.Cmd == im.Cmd_SYNC:
		return r.synced(f, now)
	case f.Cmd == im.Cmd_HISTORY:
		return r.fetched(f, now)
	case f.Cmd == im.Cmd_ERROR, f.Cmd == im.Cmd_KICK:
		return errorOf(f)
	}
	return nil
}

func (r *receiver) apply(c *change, now time.Time) {
	if !r.applied(c.version) {
		_ = r.sync(now) // encoding a SYNC does not fail
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
	if !ok || p.pair != r.pair {
		r.run.damaged.Add(1)
	} else {
		if r.seen.set(p.number) {
			r.run.duplicates.Add(1)
		}
		r.run.delivered.Add(1)
		if r.run.measured(p.at) {
			r.run.e2eTimes[int(r.pair)%len(r.run.e2eTimes)].add(now.Sub(r.run.begun) - p.at)
		}
	}
	r.ahead[seq] = p.number
	for {
		number, have := r.ahead[r.held+1]
		if !have {
			return
		}
		r.held++
		delete(r.ahead, r.held)
		if number < r.last {
			r.run.reordered.Add(1)
		}
		r.last = number
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

func (r *receiver) sync(now time.Time) error {
	if r.syncing {
		return nil
	}
	r.syncing, r.asked = true, now
	r.run.syncs.Add(1)
	return r.queue(im.Cmd_SYNC, 1, 0, &im.Sync{Epoch: r.epoch, Cursor: r.cursor, Limit: 100, Messages: 100})
}

func (r *receiver) synced(f wire.Frame, now time.Time) error {
	r.syncing = false
	if f.Status != 0 {
		return nil // tick asks again
	}
	var rsp im.SyncRsp
	if err := rsp.Unmarshal(f.Body); err != nil {
		return err
	}
	if rsp.MustReset {
		return fmt.Errorf("%s: the server says RESET to cursor %d", r.uid, r.cursor)
	}
	for _, c := range rsp.Changes {
		for _, m := range c.Messages {
			r.take(m.Seq, m.Data, now)
		}
		r.know(c.LastSeq, now)
	}
	r.epoch, r.cursor = rsp.Epoch, max(r.cursor, rsp.NextCursor)
	r.items++
	return nil
}

func (r *receiver) fetched(f wire.Frame, now time.Time) error {
	if f.Status != 0 {
		return nil
	}
	var rsp im.HistoryRsp
	if err := rsp.Unmarshal(f.Body); err != nil {
		return err
	}
	for _, m := range rsp.Messages {
		r.take(m.Seq, m.Data, now)
	}
	r.know(0, now)
	return nil
}

// tick acknowledges, fetches gaps, and asks again where no answer came.
func (r *receiver) tick(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.syncing && now.Sub(r.asked) > 5*time.Second {
		r.syncing = false
		if err := r.sync(now); err != nil {
			return err
		}
	}
	if !r.syncing && !r.gapSince.IsZero() && now.Sub(r.gapSince) > gapDelay && now.Sub(r.asked) > gapDelay {
		r.asked = now
		r.run.fetches.Add(1)
		err := r.queue(im.Cmd_HISTORY, 2, 0, &im.History{Conv: r.conv, FromSeq: r.held + 1, ToSeq: min(r.held+200, r.lastSeq), Limit: 200})
		if err != nil {
			return err
		}
	}
	r.acknowledge(now)
	return r.flush()
}
