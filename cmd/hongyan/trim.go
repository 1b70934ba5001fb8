package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A storm of logins or messages leaves garbage and free pages behind, which the runtime
// keeps until it needs them. trimmer gives them back once the process is quiet again, when a
// collection costs nobody anything: an idle connection is then charged what it holds.
type trimmer struct {
	every time.Duration
	quiet uint64 // bytes allocated in a period: below it, the process is quiet
	waste uint64 // bytes of garbage and free pages that are worth a collection
	free  func() // gives memory back

	allocated uint64 // at the last look
}

func newTrimmer() *trimmer {
	return &trimmer{every: 5 * time.Second, quiet: 32 << 20, waste: 8 << 20, free: debug.FreeOSMemory}
}

func (t *trimmer) run(ctx context.Context) error {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.look(readHeap())
		}
	}
}

// heap is what look decides by, bytes.
type heap struct {
	allocated uint64 // since the start
	objects   uint64 // live and garbage
	live      uint64 // found by the last collection
	unused    uint64 // free memory the system does not have back
}

func (t *trimmer) look(h heap) {
	rate := h.allocated - t.allocated
	t.allocated = h.allocated
	waste := h.unused
	if h.objects > h.live {
		waste += h.objects - h.live
	}
	if rate < t.quiet && waste > t.waste && waste > h.live/8 {
		t.free()
	}
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}
