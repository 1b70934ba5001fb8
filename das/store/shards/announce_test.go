package shards

import (
	"strings"
	"testing"

	"hongyan/internal/control"
)

func TestKnownNamesEveryDasThatLacksAShard(t *testing.T) {
	das := func(addr string, names ...string) control.Instance {
		in := control.Instance{Tier: "das", Addr: addr, Shards: Announcement(names)}
		if err := in.Validate(); err != nil {
			t.Fatal(err)
		}
		return in
	}
	m := control.Members{Slots: 3, Instances: []control.Instance{das("h:1", "a", "b, old"), das("h:2", "a", "b"), das("h:3")}}
	for shard, lacking := range map[string]string{"a": "h:3", "b": "h:1, h:3", "b, old": "h:2, h:3", "old": "h:1, h:2, h:3"} {
		if err := Known(m, shard); err == nil || !strings.Contains(err.Error(), "das "+lacking+":") {
			t.Errorf("%s: %v, want %s named", shard, err, lacking)
		}
	}
	m.Instances = m.Instances[:2]
	if err := Known(m, "a"); err != nil {
		t.Error(err)
	}
}
