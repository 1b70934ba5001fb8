package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// seats are the slots of one tier as etcd has them at one moment.
type seats map[int]seatState

type seatState struct {
	slot             slotRecord
	live             liveRecord // of nobody if liveRev is 0
	slotRev, liveRev int64      // 0: there is no such record
}

// add takes a record in. One that cannot be read counts as held by nobody we know.
func (s seats) add(key string, kv *mvccpb.KeyValue) {
	at, live, err := parseMember(key)
	if err != nil {
		return
	}
	state := s[at.slot]
	if live {
		state.live, _, _ = decodeLive(at, kv.Value)
		state.liveRev = kv.ModRevision
	} else {
		state.slot, _ = decodeSlot(kv.Value)
		state.slotRev = kv.ModRevision
	}
	s[at.slot] = state
}

// errWait: a slot may be had if its holder does not come back.
var errWait = errors.New("waiting whether the holder of a slot comes back")

// patience remembers which slots were found without a holder, and since when.
type patience map[int]waiting

type waiting struct {
	slotRev int64
	since   time.Time
}

// choose picks the slot for r. A slot whose holder did not leave but ran out of its lease is
// given to another address only after grace: he may be back in a moment, and must find it.
func choose(s seats, r *registration, now time.Time, grace time.Duration) (int, error) {
	if r.settled {
		return r.in.Slot, s.mayTake(r)
	}
	if slot, ok := s.home(r.in.Addr); ok {
		return slot, nil
	}
	n, wait := s.count(), false
	for slot := range n {
		state := s[slot]
		switch {
		case state.liveRev > 0:
		case state.slotRev == 0, state.slot.Left != "", r.overdue(slot, state.slotRev, now, grace):
			return slot, nil
		default:
			wait = true
		}
	}
	if wait {
		return 0, errWait
	}
	if n >= control.MaxSlots {
		return 0, fmt.Errorf("all %d slots are taken: %w", control.MaxSlots, control.ErrSlotTaken)
	}
	return n, nil
}

// mayTake tells whether r may have the slot it is bound to.
func (s seats) mayTake(r *registration) error {
	for _, state := range s {
		if r.lived && state.live.Addr == r.in.Addr && state.live.Life != r.life {
			return errSuperseded
		}
	}
	if held := s[r.in.Slot]; held.liveRev > 0 && held.live.Addr != r.in.Addr {
		return fmt.Errorf("slot %d is held by %s: %w", r.in.Slot, held.live.Addr, control.ErrSlotTaken)
	}
	return nil
}

// count is the highest slot + 1.
func (s seats) count() int {
	n := 0
	for slot := range s {
		n = max(n, slot+1)
	}
	return n
}

// home is the slot that an address holds or held.
func (s seats) home(addr string) (int, bool) {
	found, ok := 0, false
	for slot, state := range s {
		if state.liveRev > 0 && state.live.Addr == addr {
			return slot, true
		}
		if state.liveRev == 0 && state.slotRev > 0 && state.slot.Addr == addr && (!ok || slot < found) {
			found, ok = slot, true
		}
	}
	return found, ok
}

// overdue tells whether the holder of a slot has had the time to come back.
func (r *registration) overdue(slot int, slotRev int64, now time.Time, grace time.Duration) bool {
	if r.patience == nil {
		r.patience = patience{}
	}
	if w, ok := r.patience[slot]; ok && w.slotRev == slotRev {
		return now.Sub(w.since) >= grace
	}
	r.patience[slot] = waiting{slotRev, now}
	return false
}

// Forget releases the last slot of a tier, whose instance must be gone: from now on keys are
// spread over one slot less.
func (c *Center) Forget(ctx context.Context, tier string, slot int) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	seats, err := c.readSeats(ctx, client, tier)
	if err != nil {
		return err
	}
	have, known := seats[slot]
	last := seats.count() - 1
	switch {
	case !known:
		return fmt.Errorf("%s has no slot %d", tier, slot)
	case have.liveRev > 0:
		return fmt.Errorf("slot %d of %s is held by %s, which lives: stop it first", slot, tier, have.live.Addr)
	case slot != last:
		return fmt.Errorf("slot %d of %s is not the last one: keys are spread over 0..%d, so forget %d first", slot, tier, last, last)
	}
	at := seat{tier, slot}
	slotKey, liveKey := c.members.prefix+at.slotKey(), c.members.prefix+at.liveKey()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(slotKey), "=", have.slotRev), clientv3.Compare(clientv3.ModRevision(liveKey), "=", 0)).
		Then(clientv3.OpDelete(slotKey)).Commit()
	if err != nil {
		return fmt.Errorf("forget slot %d of %s: %w", slot, tier, err)
	}
	if !resp.Succeeded {
		return fmt.Errorf("slot %d of %s was taken in this moment", slot, tier)
	}
	c.awaitRevision(ctx, c.members, resp.Header.Revision)
	return nil
}
