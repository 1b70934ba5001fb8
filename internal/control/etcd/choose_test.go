package etcd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hongyan/internal/control"
)

func TestChooseASlot(t *testing.T) {
	live := func(addr, life string) seatState {
		return seatState{slot: slotRecord{Addr: addr}, live: liveRecord{control.Instance{Addr: addr}, life}, slotRev: 1, liveRev: 1}
	}
	left := func(addr string) seatState { return seatState{slot: slotRecord{Addr: addr, Left: "x"}, slotRev: 1} }
	dead := func(addr string) seatState { return seatState{slot: slotRecord{Addr: addr}, slotRev: 1} }
	full := seats{}
	for slot := range control.MaxSlots {
		full[slot] = live("other", "x")
	}
	const grace = time.Second
	start := time.Unix(0, 0)
	waited := func(slot int, ago time.Duration) patience { return patience{slot: {1, start.Add(-ago)}} }
	for name, c := range map[string]struct {
		seats seats
		r     registration
		slot  int
		err   error
	}{
		"the first":                                 {seats{}, registration{}, 0, nil},
		"after live ones":                           {seats{0: live("a", "1"), 1: live("b", "1")}, registration{}, 2, nil},
		"a gap":                                     {seats{0: live("a", "1"), 2: live("b", "1")}, registration{}, 1, nil},
		"one that was left":                         {seats{0: live("a", "1"), 1: left("b"), 2: live("c", "1")}, registration{}, 1, nil},
		"its own, live from an earlier life":        {seats{0: left("z"), 1: live("me", "old")}, registration{}, 1, nil},
		"its own, dead":                             {seats{0: left("z"), 1: dead("me")}, registration{}, 1, nil},
		"its own is held by another":                {seats{0: live("a", "1"), 1: {slot: slotRecord{Addr: "me"}, live: liveRecord{Instance: control.Instance{Addr: "b"}}, slotRev: 1, liveRev: 2}}, registration{}, 2, nil},
		"a dead one's, not yet":                     {seats{0: dead("a")}, registration{}, 0, errWait},
		"a dead one's, after less than the grace":   {seats{0: dead("a")}, registration{patience: waited(0, grace/2)}, 0, errWait},
		"a dead one's, after the grace":             {seats{0: dead("a")}, registration{patience: waited(0, grace)}, 0, nil},
		"a dead one's that came and went meanwhile": {seats{0: {slot: slotRecord{Addr: "a"}, slotRev: 5}}, registration{patience: waited(0, grace)}, 0, errWait},
		"a left one rather than to wait":            {seats{0: dead("a"), 1: left("b")}, registration{}, 1, nil},
		"none is left":                              {full, registration{}, 0, control.ErrSlotTaken},
		"asked for, free":                           {seats{}, registration{settled: true, in: control.Instance{Slot: 5}}, 5, nil},
		"asked for, dead":                           {seats{5: dead("a")}, registration{settled: true, in: control.Instance{Slot: 5}}, 5, nil},
		"asked for, taken":                          {seats{5: live("a", "1")}, registration{settled: true, in: control.Instance{Slot: 5}}, 5, control.ErrSlotTaken},
		"asked for, its own earlier life's":         {seats{5: live("me", "old")}, registration{settled: true, in: control.Instance{Slot: 5}}, 5, nil},
		"lived here, a newer life is there":         {seats{5: live("me", "new")}, registration{settled: true, lived: true, life: "old", in: control.Instance{Slot: 5}}, 5, errSuperseded},
		"lived here, a newer life is elsewhere":     {seats{2: live("me", "new")}, registration{settled: true, lived: true, life: "old", in: control.Instance{Slot: 5}}, 5, errSuperseded},
		"lived here, is still here":                 {seats{5: live("me", "this")}, registration{settled: true, lived: true, life: "this", in: control.Instance{Slot: 5}}, 5, nil},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			c.r.in.Addr = "me"
			slot, err := choose(c.seats, &c.r, start, grace)
			if !errors.Is(err, c.err) || err == nil && slot != c.slot {
				t.Fatalf("got slot %d, %v; want %d, %v", slot, err, c.slot, c.err)
			}
		})
	}
}
