package main

import "testing"

func TestTrimmerFreesOnlyWhatIsWorthItAndOnlyWhenQuiet(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		h    heap
		want bool
	}{
		"quiet with garbage":    {heap{allocated: 100*mb + 1, objects: 80 * mb, live: 40 * mb}, true},
		"quiet with free pages": {heap{allocated: 100*mb + 1, objects: 40 * mb, live: 40 * mb, unused: 30 * mb}, true},
		"busy":                  {heap{allocated: 200 * mb, objects: 80 * mb, live: 40 * mb}, false},
		"little waste":          {heap{allocated: 100*mb + 1, objects: 44 * mb, live: 40 * mb}, false},
		"small against live":    {heap{allocated: 100*mb + 1, objects: 1010 * mb, live: 1000 * mb}, false},
	} {
		freed := false
		tr := &trimmer{quiet: 8 * mb, waste: 8 * mb, allocated: 100 * mb, free: func() { freed = true }}
		if tr.look(c.h); freed != c.want {
			t.Errorf("%s: freed %v", name, freed)
		}
	}
	if h := readHeap(); h.allocated == 0 || h.objects == 0 {
		t.Errorf("the runtime tells nothing: %+v", h)
	}
}
