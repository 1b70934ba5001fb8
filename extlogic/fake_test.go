package extlogic

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/route"
)

// fakeDas holds one user's state.
type fakeDas struct {
	tier.Das
	mu      sync.Mutex
	down    error
	epoch   uint64
	head    uint64
	woken   uint64
	cursor  uint64
	devices []*tier.Device
	rows    []*im.Conversation // ascending version
	pushes  []*tier.PushRecord // newest first
	writes  int
}

func (d *fakeDas) Progress(_ context.Context, req *tier.ProgressRequest) (*tier.ProgressReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return nil, d.down
	}
	u := &tier.UserProgress{Uid: req.Uids[0], Epoch: d.epoch, Head: d.head, Woken: d.woken, Cursor: d.cursor}
	if req.Devices {
		u.Devices = d.devices
	}
	return &tier.ProgressReply{Users: []*tier.UserProgress{u}}, nil
}

func (d *fakeDas) Sync(_ context.Context, req *tier.SyncRequest) (*im.SyncRsp, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rsp := &im.SyncRsp{Epoch: d.epoch, Head: d.head, NextCursor: d.head}
	if req.Sync.Cursor > d.head || req.Sync.Cursor > 0 && req.Sync.Epoch != d.epoch {
		rsp.MustReset = true
		return rsp, nil
	}
	for _, row := range d.rows {
		if row.Version <= req.Sync.Cursor {
			continue
		}
		if len(rsp.Changes) == int(req.Sync.Limit) {
			rsp.More = true
			rsp.NextCursor = rsp.Changes[len(rsp.Changes)-1].Version
			break
		}
		rsp.Changes = append(rsp.Changes, row)
	}
	return rsp, nil
}

func (d *fakeDas) Unread(context.Context, *tier.UnreadRequest) (*im.UnreadRsp, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rsp := &im.UnreadRsp{}
	for _, row := range d.rows {
		rsp.Total += row.Unread
	}
	return rsp, nil
}

func (d *fakeDas) Pushes(_ context.Context, req *tier.PushesRequest) (*tier.PushesReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &tier.PushesReply{Pushes: d.pushes[:min(len(d.pushes), int(req.Limit))]}, nil
}

func (d *fakeDas) Write(_ context.Context, b *tier.SubmitBatch) (*tier.SettledBatch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return nil, d.down
	}
	d.writes++
	rsp := &tier.SettledBatch{}
	for _, it := range b.Items {
		s := &tier.Settled{Id: it.Id}
		switch {
		case b.Boot == "" || it.Tenant != "demo":
			s.Code, s.Message = uint32(code.BadRequest), "boot or tenant is missing"
		case it.Woken != nil && it.Woken.Epoch == d.epoch:
			d.woken = max(d.woken, it.Woken.Version)
		case it.Record != nil:
			d.pushes = append([]*tier.PushRecord{it.Record}, d.pushes...)
		}
		rsp.Items = append(rsp.Items, s)
	}
	return rsp, nil
}

// message puts a new message of sender into the user's row of a conversation.
func (d *fakeDas) message(conv, sender, text string) *im.Conversation {
	d.mu.Lock()
	defer d.mu.Unlock()
	row := &im.Conversation{Conv: conv, Peer: sender}
	for i, old := range d.rows {
		if old.Conv == conv {
			again := *old
			row = &again
			d.rows = append(d.rows[:i:i], d.rows[i+1:]...)
			break
		}
	}
	d.head++
	row.Version = d.head
	row.LastSeq++
	row.Unread++
	row.Messages = append(row.Messages[:len(row.Messages):len(row.Messages)],
		&im.Message{Conv: conv, Seq: row.LastSeq, Sender: sender, Kind: im.Kind_TEXT, Text: text})
	d.rows = append(d.rows, row)
	return row
}

func (d *fakeDas) set(change func(*fakeDas)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// fakeVendor keeps what is pushed.
type fakeVendor struct {
	mu    sync.Mutex
	got   []Notification
	tries int
	push  func(context.Context, Notification) (Result, error) // nil = accept
}

func (v *fakeVendor) Name() string { return "fake" }

func (v *fakeVendor) Push(ctx context.Context, n Notification) (Result, error) {
	v.mu.Lock()
	v.tries++
	push := v.push
	v.mu.Unlock()
	if push != nil {
		if r, err := push(ctx, n); err != nil || r != Accepted {
			return r, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got = append(v.got, n)
	return Accepted, nil
}

// sent is what was accepted as device:conv/seq, in order.
func (v *fakeVendor) sent() []Notification {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]Notification(nil), v.got...)
}

type fakeLogic struct {
	tier.Logic
	mu     sync.Mutex
	asked  []*tier.ExecuteRequest
	answer func(*tier.ExecuteRequest) (*tier.ExecuteReply, error)
}

func (l *fakeLogic) Execute(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, req)
	if l.answer == nil {
		return &tier.ExecuteReply{}, nil
	}
	return l.answer(req)
}

// world is an extlogic between fakes, in virtual time.
type world struct {
	*testing.T
	das    *fakeDas
	logic  *fakeLogic
	vendor *fakeVendor
	queue  mq.Queue
	cfg    Config

	dases  *route.Pool[tier.Das]
	logics *route.Pool[tier.Logic]
}

func bubble(t *testing.T, body func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		one := control.Members{Instances: []control.Instance{{Addr: "x"}}}
		center, err := local.New(map[string]control.Members{"das": one, "logic": one})
		if err != nil {
			t.Fatal(err)
		}
		queue, err := memory.Open(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{
			T: t, das: &fakeDas{epoch: 1}, logic: &fakeLogic{}, vendor: &fakeVendor{}, queue: queue, cfg: DefaultConfig(),
		}
		w.dases = route.NewPool(center, "das", func(string) (tier.Das, error) { return w.das, nil }, route.PoolOptions{})
		w.logics = route.NewPool(center, "logic", func(string) (tier.Logic, error) { return w.logic, nil }, route.PoolOptions{})
		ctx, stop := context.WithCancel(t.Context())
		var pools sync.WaitGroup
		pools.Go(func() { _ = w.dases.Run(ctx) })
		pools.Go(func() { _ = w.logics.Run(ctx) })
		synctest.Wait()
		body(w)
		if err := queue.Close(); err != nil {
			t.Error(err)
		}
		stop()
		pools.Wait()
		_ = center.Close()
	})
}

// start runs one instance; stop ends it and waits.
func (w *world) start() (stop func()) {
	w.Helper()
	e, err := New(w.cfg, Deps{
		Das: w.dases, Logics: w.logics, Queue: w.queue, Vendors: map[string]Vendor{"": w.vendor},
		Self: control.Instance{Addr: "ext", Boot: "b1"},
	})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	synctest.Wait()
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.Error(err)
			}
		})
	}
}

// offline publishes an event for alice's version and lets everything settle.
func (w *world) offline(version uint64) {
	w.Helper()
	payload, err := (&event.Offline{Tenant: "demo", Uid: "alice", Epoch: 1, Version: version, Conv: "p:alice:bob", Seq: 1}).Marshal(nil)
	if err != nil {
		w.Fatal(err)
	}
	w.publish(mq.TopicOffline, payload)
}

func (w *world) publish(topic string, payload []byte) {
	w.Helper()
	if err := w.queue.Publish(w.Context(), mq.Message{Topic: topic, Key: "demo/alice", Payload: payload}); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) wantWoken(version uint64) {
	w.Helper()
	w.das.mu.Lock()
	defer w.das.mu.Unlock()
	if w.das.woken != version {
		w.Errorf("woken_version is %d, want %d", w.das.woken, version)
	}
}

func (w *world) wantPushes(n int) []Notification {
	w.Helper()
	got := w.vendor.sent()
	if len(got) != n {
		w.Fatalf("%d pushes, want %d: %+v", len(got), n, got)
	}
	return got
}

func (w *world) dead(topic, group string) int {
	w.Helper()
	dead, err := w.queue.Dead(w.Context(), topic, group, 100)
	if err != nil {
		w.Fatal(err)
	}
	return len(dead)
}

func device(id, platform string) *tier.Device {
	return &tier.Device{Device: id, Platform: platform, PushToken: "token of " + id}
}

var errVendor = errors.New("vendor is down")

// long is more than all attempts of a message take.
const long = 15 * time.Minute
