package shards

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hongyan/das/store"
)

// MapKey is where the map is in the control centre.
const MapKey = "shards/map"

// Map says which shard every bucket is in. A newer one has a higher version.
type Map struct {
	Version uint64  `json:"version"`
	Buckets []Range `json:"buckets"` // every bucket exactly once
}

// Range is the buckets From..To, both included.
type Range struct {
	From  uint32 `json:"from"`
	To    uint32 `json:"to"`
	Shard string `json:"shard"`
}

// Even is the first map: the buckets in equal pieces, in the order of the names.
func Even(names ...string) Map {
	m := Map{Version: 1}
	for i, name := range names {
		from, to := i*store.Buckets/len(names), (i+1)*store.Buckets/len(names)
		if from < to {
			m.Buckets = append(m.Buckets, Range{uint32(from), uint32(to - 1), name})
		}
	}
	return m
}

// ParseMap reads the JSON form.
func ParseMap(data []byte) (m Map, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return Map{}, fmt.Errorf("map of shards: %w", err)
	}
	return m, m.Validate()
}

// Validate wants every bucket exactly once.
func (m Map) Validate() error {
	list := slices.Clone(m.Buckets)
	slices.SortFunc(list, func(a, b Range) int { return int(a.From) - int(b.From) })
	next := uint32(0)
	for _, r := range list {
		switch {
		case r.Shard == "":
			return fmt.Errorf("map of shards: buckets %d..%d have no shard", r.From, r.To)
		case r.From > r.To || r.To >= store.Buckets:
			return fmt.Errorf("map of shards: %d..%d is no range within 0..%d", r.From, r.To, store.Buckets-1)
		case r.From < next:
			return fmt.Errorf("map of shards: bucket %d stands twice", r.From)
		case r.From > next:
			return fmt.Errorf("map of shards: buckets %d..%d are missing", next, r.From-1)
		}
		next = r.To + 1
	}
	if next != store.Buckets {
		return fmt.Errorf("map of shards: buckets %d..%d are missing", next, store.Buckets-1)
	}
	return nil
}

// Shard is where a bucket is, empty if the map does not say.
func (m Map) Shard(bucket uint32) string {
	for _, r := range m.Buckets {
		if r.From <= bucket && bucket <= r.To {
			return r.Shard
		}
	}
	return ""
}

// With is the next version, with buckets in a shard.
func (m Map) With(shard string, buckets ...uint32) Map {
	next := Map{Version: m.Version + 1}
	for b := range uint32(store.Buckets) {
		name := m.Shard(b)
		if slices.Contains(buckets, b) {
			name = shard
		}
		if n := len(next.Buckets); n > 0 && next.Buckets[n-1].Shard == name {
			next.Buckets[n-1].To = b
			continue
		}
		next.Buckets = append(next.Buckets, Range{b, b, name})
	}
	return next
}

// place is a map by the numbers of the shards.
type place struct {
	Map
	of [store.Buckets]uint8
}

var errUnknownShard = errors.New("map of shards names a shard that is not configured")

func (m Map) place(names []string) (*place, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	p := &place{Map: m}
	for _, r := range m.Buckets {
		i := slices.Index(names, r.Shard)
		if i < 0 {
			return nil, fmt.Errorf("%w: %q is none of %s", errUnknownShard, r.Shard, strings.Join(names, ", "))
		}
		for b := r.From; b <= r.To; b++ {
			p.of[b] = uint8(i)
		}
	}
	return p, nil
}
