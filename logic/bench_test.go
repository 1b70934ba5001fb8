package logic

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/conv"
	"hongyan/internal/route"
)

// benchDas settles every append at once, on the caller's goroutine, with as little work of
// its own as the interface allows.
type benchDas struct {
	tier.Das
	logic   *Logic
	seq     uint64
	version map[string]uint64
	settled atomic.Int64
}

// benchReply is all that one settled append needs, in one piece.
type benchReply struct {
	settled  tier.Settled
	appended tier.Appended
	message  im.Message
	list     [1]*im.Message
	changes  [2]tier.Change
	rows     [2]im.Conversation
}

func (d *benchDas) Submit(_ context.Context, b *tier.SubmitBatch) (*tier.SubmitReply, error) {
	out := &tier.SettledBatch{}
	d.seq++
	for _, it := range b.Items {
		a := it.Append
		if a == nil {
			continue
		}
		id, _ := conv.Parse(a.Conv)
		r := &benchReply{}
		r.message = im.Message{Conv: a.Conv, Seq: d.seq, Sender: a.Sender, ClientMsgId: a.ClientMsgId, Kind: a.Kind, Text: a.Text, CreatedMs: 1}
		r.list[0] = &r.message
		r.appended = tier.Appended{Conv: a.Conv, Seq: d.seq, CreatedMs: 1}
		for i, uid := range [2]string{id.A, id.B} {
			v := d.version[uid] + 1
			d.version[uid] = v
			if uid == a.Sender {
				r.settled = tier.Settled{Id: it.Id, Append: &r.appended, Epoch: 1, Version: v, LastSeq: d.seq, Moved: true}
			}
			r.rows[i] = im.Conversation{Conv: a.Conv, Version: v, LastSeq: d.seq, Unread: 1, Messages: r.list[:], Peer: id.Peer(uid)}
			r.changes[i] = tier.Change{Tenant: it.Tenant, Uid: uid, Epoch: 1, Row: &r.rows[i], Owner: b.Boot, Deliver: d.seq, Entries: uint32(2 * len(b.Items)), Moves: 1}
			out.Changes = append(out.Changes, &r.changes[i])
		}
		out.Items = append(out.Items, &r.settled)
	}
	if len(out.Items) > 0 {
		_, _ = d.logic.Settled(context.Background(), out)
		d.settled.Add(int64(len(out.Items)))
	}
	return &tier.SubmitReply{}, nil
}

func (d *benchDas) Scan(context.Context, *tier.ScanRequest) (*tier.ScanReply, error) {
	return &tier.ScanReply{}, nil
}

func (d *benchDas) Progress(context.Context, *tier.ProgressRequest) (*tier.ProgressReply, error) {
	return &tier.ProgressReply{}, nil
}

type benchGateway struct {
	acks, pushes atomic.Int64
}

func (g *benchGateway) Downlink(_ context.Context, b *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	var acks, pushes int64
	for _, d := range b.Items {
		if d.Response {
			acks++
		} else {
			pushes++
		}
	}
	g.acks.Add(acks)
	g.pushes.Add(pushes)
	return &tier.DownlinkReply{}, nil
}

// BenchmarkSend is the CPU of a message within Logic in the one-commit form: from Uplink to
// the ack and the push handed to the gateway, the receiver's ack included. 200 pairs, a
// body of 64 bytes, batches of 64, the fakes' share included.
func BenchmarkSend(b *testing.B) {
	w := newWorld(b, 1, 1)
	defer w.close()
	l := w.logics[0]
	das, gateway := &benchDas{logic: l, version: map[string]uint64{}}, &benchGateway{}
	benchSwap(b, l, das, gateway)
	const pairs, size = 200, 64
	bodies := make([][]byte, pairs)
	for i := range bodies {
		bodies[i], _ = (&im.Send{ClientMsgId: fmt.Sprintf("0198c5d2-7a3e-7000-8000-%012d", i), Attempt: 1, To: fmt.Sprintf("bob%03d", i),
			Kind: im.Kind_TEXT, Text: "sixty-four bytes of text, as people write them to each other ...."}).Marshal(nil)
		for conn, uid := range map[uint64]string{uint64(2*i + 1): fmt.Sprintf("alice%03d", i), uint64(2*i + 2): fmt.Sprintf("bob%03d", i)} {
			_, _ = l.Renew(context.Background(), &tier.RenewBatch{Gateway: "gw", Boot: "gwboot", Items: []*tier.Renewal{
				{Conn: conn, Tenant: tenant, Uid: uid, Device: "d", Class: "web", SessionEpoch: 1},
			}})
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu(b)
	for sent := 0; sent < b.N; sent += size {
		batch := &tier.UplinkBatch{Gateway: "gw", Boot: "gwboot", Items: make([]*tier.Uplink, 0, 2*size)}
		for i := range min(size, b.N-sent) {
			p := (sent + i) % pairs
			batch.Items = append(batch.Items, &tier.Uplink{Conn: uint64(2*p + 1), Tenant: tenant, Uid: w.names(p, "alice"), Device: "d",
				SessionEpoch: 1, Cmd: uint32(im.Cmd_SEND), Seq: 1, Body: bodies[p]})
			batch.Items = append(batch.Items, &tier.Uplink{Event: tier.Uplink_CURSOR, Conn: uint64(2*p + 2), Tenant: tenant, Uid: w.names(p, "bob"), Device: "d",
				Epoch: 1, Cursor: 1 << 40})
		}
		for int64(sent)-das.settled.Load() > 16*size {
			benchPause()
		}
		if _, err := l.Uplink(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	for gateway.acks.Load() < int64(b.N) || gateway.pushes.Load() < int64(b.N) {
		benchPause()
	}
	b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N), "cpu-us/msg")
}

func benchPause() { time.Sleep(100 * time.Microsecond) }

// cpu is the CPU time of this process so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// names of the users of a benchmark, made once.
func (w *world) names(i int, kind string) string {
	key := kind + strconv.Itoa(i)
	if w.uids == nil {
		w.uids = map[string]string{}
	}
	name := w.uids[key]
	if name == "" {
		name = fmt.Sprintf("%s%03d", kind, i)
		w.uids[key] = name
	}
	return name
}

// benchSwap gives a Logic other ends than the world's.
func benchSwap(b *testing.B, l *Logic, das tier.Das, gateway tier.Gateway) {
	b.Helper()
	center, err := local.New(map[string]control.Members{"das": {Slots: 1, Instances: []control.Instance{{Tier: "das", Addr: "bench"}}}})
	if err != nil {
		b.Fatal(err)
	}
	pool := route.NewPool(center, "das", func(string) (tier.Das, error) { return das, nil }, route.PoolOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = pool.Run(ctx); close(done) }()
	b.Cleanup(func() { cancel(); <-done; _ = center.Close() })
	for pool.Slots() == 0 {
		benchPause()
	}
	l.deps.Das = pool
	l.deps.Gateways = func(string) (tier.Gateway, error) { return gateway, nil }
}
