package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hongyan/internal/control"
)

// Keys under Config.Prefix:
//
//	id                           of this etcd's data, made by whoever finds none: data that is
//	                             lost is noticed
//	members/<tier>/<slot>/slot   who held the slot last; no lease: a dead instance keeps its slot
//	members/<tier>/<slot>/live   who holds it now; goes with the lease
//	values/<key>                 a live setting
//	reports/<tier>/<addr>/<key>  what a process made of a value; goes with its lease
//
// and under Config.ServicesPrefix, as Kitex's stock etcd registry has it:
//
//	/<service>/<addr>            an endpoint; goes with the lease
const (
	idKey      = "id"
	membersDir = "members/"
	valuesDir  = "values/"
	reportsDir = "reports/"
)

// slotRecord is the value of members/<tier>/<slot>/slot.
type slotRecord struct {
	Addr string `json:"addr"`
	// Left is the life that gave the slot up by itself. Only then is the slot free for anybody
	// at once: an instance whose lease ran out may be back in a moment.
	Left string `json:"left,omitempty"`
}

// liveRecord is the value of members/<tier>/<slot>/live.
type liveRecord struct {
	control.Instance        // tier and slot are those of the key
	Life             string `json:"life"` // of one registration
}

// seat is one slot of a tier.
type seat struct {
	tier string
	slot int
}

func (s seat) slotKey() string { return fmt.Sprintf("%s/%d/slot", s.tier, s.slot) }
func (s seat) liveKey() string { return fmt.Sprintf("%s/%d/live", s.tier, s.slot) }

// parseMember takes a key under members/ apart.
func parseMember(key string) (s seat, live bool, err error) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 || parts[0] == "" || parts[2] != "slot" && parts[2] != "live" {
		return s, false, errors.New("want members/<tier>/<slot>/slot or live")
	}
	slot, err := strconv.Atoi(parts[1])
	if err != nil || slot < 0 || slot >= control.MaxSlots || strconv.Itoa(slot) != parts[1] {
		return s, false, fmt.Errorf("slot %.20q is not within 0..%d", parts[1], control.MaxSlots-1)
	}
	return seat{parts[0], slot}, parts[2] == "live", nil
}

func decodeSlot(data []byte) (slotRecord, error) {
	var r slotRecord
	err := json.Unmarshal(data, &r)
	return r, err
}

func decodeLive(s seat, data []byte) (liveRecord, control.Instance, error) {
	var r liveRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return r, control.Instance{}, err
	}
	r.Tier, r.Slot = s.tier, s.slot
	return r, r.Instance, r.Validate()
}

func decodeEndpoint(data []byte) (control.Endpoint, error) {
	var e control.Endpoint
	if err := json.Unmarshal(data, &e); err != nil {
		return e, err
	}
	return e.Normalize()
}

// encode of our own records never fails.
func encode(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}
