package etcd

import (
	"bytes"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Whatever stands in etcd, the centre shows members that keep the contract.
func FuzzRecords(f *testing.F) {
	f.Add("logic/0/live", []byte(`{"addr":"a:1","boot":"b","life":"l"}`), "logic/0/slot", []byte(`{"addr":"a:1"}`))
	f.Add("logic/1/live", []byte(`{"addr":"a:1"}`), "logic/0/live", []byte(`{"addr":"a:1"}`))
	f.Add("x", []byte("{"), "a b/3/slot", []byte("null"))
	f.Fuzz(func(t *testing.T, key1 string, data1 []byte, key2 string, data2 []byte) {
		c := newCenter(DefaultConfig(), Deps{})
		defer c.Close()
		services := newMirror("s/", servicesGrace)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range []*mirror{c.members, c.values, services} {
			for i, away := range []bool{false, true} {
				c.away = away
				c.applyLocked(m, []*clientv3.Event{event(m, mvccpb.Event_PUT, key1, data1), event(m, mvccpb.Event_PUT, key2, data2)}, int64(2*i+1))
				check(t, c)
				c.valuesUnderLocked("")
				c.readEndpointsLocked(services)
				c.applyLocked(m, []*clientv3.Event{event(m, mvccpb.Event_DELETE, key1, nil)}, int64(2*i+2))
				check(t, c)
			}
		}
	})
}

func event(m *mirror, kind mvccpb.Event_EventType, key string, data []byte) *clientv3.Event {
	return &clientv3.Event{Type: kind, Kv: &mvccpb.KeyValue{Key: []byte(m.prefix + key), Value: data}}
}

func check(t *testing.T, c *Center) {
	for tier, m := range c.tiers {
		last, addrs := -1, map[string]bool{}
		for _, in := range m.Instances {
			if in.Slot <= last || in.Slot >= m.Slots || in.Tier != tier || addrs[in.Addr] || in.Validate() != nil {
				t.Fatalf("%s: members %+v", tier, m)
			}
			last, addrs[in.Addr] = in.Slot, true
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"members":{"at":{"cluster":"x","revision":2},"entries":{"logic/0/live":{"text":"{\"addr\":\"a:1\"}","revision":1}}},"values":{"entries":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSnapshot(data)
		if err != nil {
			return
		}
		c := newCenter(DefaultConfig(), Deps{})
		defer c.Close()
		c.useSnapshot(s)
		c.mu.Lock()
		check(t, c)
		c.members.listed, c.values.listed = true, true
		c.mu.Unlock()
		first, _ := c.encodeSnapshot()
		again, err := decodeSnapshot(first)
		if err != nil {
			t.Fatal(err)
		}
		if got := store(c.members.all()); len(got) != len(again.Members.Entries) || bytes.Contains(first, []byte("\x00")) {
			t.Fatalf("%d entries came back as %d", len(got), len(again.Members.Entries))
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"tier":"logic","key":"k","since":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = decodeReport(data) })
}
