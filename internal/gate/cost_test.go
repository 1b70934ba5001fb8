package gate

import (
	"context"
	"runtime"
	"testing"
	"unsafe"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control/local"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// sink is a transport that takes everything at once.
type sink struct{ frames int }

func (s *sink) Send(frames []wire.Frame) { s.frames += len(frames) }
func (s *sink) Queued() int              { return 0 }
func (s *sink) Close(code.Code, string)  {}

type anyone struct{}

func (anyone) Verify(uid string) (token.Claims, error) {
	return token.Claims{Tenant: "demo", UID: uid, Device: "d1"}, nil
}

// quiet is a Gate that does not run: its lanes only queue.
func quiet(tb testing.TB) *Gate {
	tb.Helper()
	center, err := local.New(nil)
	if err != nil {
		tb.Fatal(err)
	}
	pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return nil, nil }, route.PoolOptions{})
	g, err := New(DefaultConfig(), Deps{Logics: pool, Keys: anyone{}})
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// session opens a session without a Logic.
func (g *Gate) session(tb testing.TB, t Transport, uid string) *Conn {
	tb.Helper()
	c := g.Open(t, Info{IP: "10.0.0.1", Transport: TCP})
	auth, err := (&im.Auth{Token: uid, Platform: "ios"}).Marshal(nil)
	if err != nil {
		tb.Fatal(err)
	}
	c.Receive(wire.Frame{Cmd: im.Cmd_AUTH, Seq: 1, Body: auth})
	g.deliverAll(tb, &tier.Down{Conn: c.id, Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: 1, SessionEpoch: 1})
	if c.phase != online {
		tb.Fatal("not logged in")
	}
	return c
}

func (g *Gate) deliverAll(tb testing.TB, items ...*tier.Down) {
	tb.Helper()
	reply, err := g.Downlink(context.Background(), &tier.DownlinkBatch{Items: items})
	if err != nil || len(reply.Gone) > 0 {
		tb.Fatalf("downlink: %v, gone %v", err, reply.Gone)
	}
}

// MF-13: what the gate keeps for a session that does nothing.
func TestMF13MemoryOfAnIdleSession(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); size > 512 {
		t.Errorf("a Conn is %d bytes", size)
	}
	const n = 10_000
	g, s := quiet(t), &sink{}
	g.cfg.UplinkQueue = 1 << 30
	sessions := make([]*Conn, n)
	before := heap()
	for i := range sessions {
		sessions[i] = g.session(t, s, "user")
		if i%100 == 99 {
			g.up = newUplink(g) // what waits in lanes is not the session's
		}
	}
	for _, c := range sessions {
		c.lane = nil
	}
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a session, %d of them the Conn", each, unsafe.Sizeof(Conn{}))
	if each > 750 { // the limiter is made with the first frame after AUTH
		t.Errorf("%.0f bytes a session", each)
	}
	runtime.KeepAlive(sessions)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// One push costs one allocation: the frame's body, which is kept until it is acknowledged.
// The reply of Downlink is another, per batch.
func TestAllocationsOfAPush(t *testing.T) {
	g, s := quiet(t), &sink{}
	c := g.session(t, s, "alice")
	body, err := (&im.Conversation{Conv: "p:alice:bob", LastSeq: 1, Messages: []*im.Message{{Text: "hello"}}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &tier.Down{Conn: c.id, Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Body: body}
	batch := &tier.DownlinkBatch{Items: []*tier.Down{d}}
	c.dirty = true // as while a CURSOR is being gathered
	got := testing.AllocsPerRun(1000, func() {
		d.Version++
		if _, err := g.Downlink(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.ackedLocked(1, d.Version)
		c.mu.Unlock()
	})
	if got > 2 && !raced {
		t.Errorf("%v allocations a push", got)
	}
}

func BenchmarkDownlink(b *testing.B) {
	g, s := quiet(b), &sink{}
	var batch tier.DownlinkBatch
	var conns []*Conn
	body := make([]byte, 250)
	for range 64 {
		c := g.session(b, s, "alice")
		c.dirty = true
		conns = append(conns, c)
		batch.Items = append(batch.Items, &tier.Down{Conn: c.id, Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Body: body})
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, d := range batch.Items {
			d.Version++
		}
		if _, err := g.Downlink(context.Background(), &batch); err != nil {
			b.Fatal(err)
		}
		for i, c := range conns {
			c.mu.Lock()
			c.ackedLocked(1, batch.Items[i].Version)
			c.mu.Unlock()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/push")
}
