package load

import (
	"strings"
	"testing"
)

// The oracle notices what it is there for.
func TestOracleNotices(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *writer, other *device)
		want  string
	}{
		"nothing": {func(*writer, *device) {}, ""},
		"lost":    {func(_ *writer, o *device) { delete(o.shown, "2"); delete(o.seqs, "2") }, "acked 2 was shown 0 times"},
		"doubled": {func(_ *writer, o *device) { o.shown["1"] = 2 }, "acked 1 was shown 2 times"},
		"unacked, doubled": {func(w *writer, o *device) {
			delete(w.acked, "3")
			o.shown["3"] = 2
		}, "unacked 3 was shown 2 times"},
		"two orders": {func(_ *writer, o *device) { o.seqs["1"], o.seqs["2"] = 2, 1 }, "elsewhere"},
		"inverted": {func(w *writer, o *device) {
			for _, d := range []*device{w.device, o} {
				d.seqs["1"], d.seqs["2"] = 2, 1
			}
		}, "an earlier one at"},
		"a hole":  {func(w *writer, o *device) { w.seqs["3"], o.seqs["3"] = 4, 4 }, "the last is at 4"},
		"foreign": {func(_ *writer, o *device) { o.shown["x"], o.seqs["x"] = 1, 4 }, "nobody's"},
	} {
		a, b := newDevice("a"), newDevice("b")
		w := &writer{device: a, sends: []string{"1", "2", "3"}}
		for i, id := range w.sends {
			for _, d := range []*device{a, b} {
				d.shown[id], d.seqs[id] = 1, uint64(i+1)
			}
			a.acked[id] = true
		}
		c.spoil(w, b)
		var r report
		(&talk{conv: "p:a:b", writers: []*writer{w}, devices: []*device{a, b}}).look(&r)
		if got := strings.Join(r.violations, "\n"); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
