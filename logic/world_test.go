package logic

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/duty"
	"hongyan/internal/mq"
	"hongyan/internal/presence/memory"
	"hongyan/internal/route"
)

// fakeGateway records what Logic sends down.
type fakeGateway struct {
	mu    sync.Mutex
	down  func() bool
	gone  map[uint64]bool
	items []*tier.Down
	boots []string
}

func (g *fakeGateway) Downlink(_ context.Context, b *tier.DownlinkBatch) (*tier.DownlinkReply, error) {
	if is(g.down) {
		return nil, code.Errorf(code.Unavailable, "gateway is down")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.boots = append(g.boots, b.Boot)
	reply := &tier.DownlinkReply{}
	for _, d := range b.Items {
		if g.gone[d.Conn] {
			reply.Gone = append(reply.Gone, d.Conn)
			continue
		}
		g.items = append(g.items, d)
	}
	return reply, nil
}

// take returns what came down a connection since the last time.
func (g *fakeGateway) take(conn uint64) []*tier.Down {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*tier.Down
	g.items = slices.DeleteFunc(g.items, func(d *tier.Down) bool {
		if d.Conn == conn {
			out = append(out, d)
		}
		return d.Conn == conn
	})
	return out
}

// fakeQueue records what is published.
type fakeQueue struct {
	mq.Queue
	mu   sync.Mutex
	down func() bool
	msgs []mq.Message
	on   func(mq.Message)
}

func (q *fakeQueue) Publish(_ context.Context, msgs ...mq.Message) error {
	if is(q.down) {
		return fmt.Errorf("queue is down")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.msgs = append(q.msgs, msgs...)
	for _, m := range msgs {
		if q.on != nil {
			q.on(m)
		}
	}
	return nil
}

// hook has fn called with each event from now on.
func (q *fakeQueue) hook(fn func(mq.Message)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.on = fn
}

func (q *fakeQueue) take() []mq.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.msgs
	q.msgs = nil
	return out
}

// world is a system with fakes around real Logics.
type world struct {
	t        testing.TB
	store    *store
	das      []*fakeDas
	logics   []*Logic
	stops    []func()
	gateway  *fakeGateway
	queue    *fakeQueue
	presence *memory.Cache
	pools    []*route.Pool[tier.Logic]
	stopped  sync.Map // addresses of dead Logics
	seq      uint32
	uids     map[string]string
	instead  tier.Das
	center   *local.Center
	serves   []string // duties of each Logic; nil = all of all
	services tier.Jtransit
}

// dasAt is the way to a das: a test may put another in its place.
type dasAt struct {
	w *world
	*fakeDas
}

func (d *dasAt) Sync(ctx context.Context, r *tier.SyncRequest) (*im.SyncRsp, error) {
	if d.w.instead != nil {
		return d.w.instead.Sync(ctx, r)
	}
	return d.fakeDas.Sync(ctx, r)
}

type option func(*world, *Config)

const tenant = "demo"

// inWorld runs fn in a bubble with nLogic Logics and nDas das.
func inWorld(t *testing.T, nLogic, nDas int, fn func(w *world), options ...option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nLogic, nDas, options...)
		defer w.close()
		fn(w)
	})
}

func newWorld(t testing.TB, nLogic, nDas int, options ...option) *world {
	w := &world{t: t, store: newStore(), queue: &fakeQueue{}, gateway: &fakeGateway{gone: map[uint64]bool{}},
		presence: memory.New(memory.Config{})}
	cfg := DefaultConfig()
	members := map[string]control.Members{"logic": {Slots: nLogic}, "das": {Slots: nDas}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range nDas {
		in := control.Instance{Tier: "das", Slot: i, Addr: "das" + strconv.Itoa(i), Boot: "d" + strconv.Itoa(i)}
		d := members["das"]
		d.Instances = append(d.Instances, in)
		members["das"] = d
		w.das = append(w.das, &fakeDas{store: w.store, addr: in.Addr, shard: uint32(i), logics: w.logicAt})
	}
	for i := range nLogic {
		m := members["logic"]
		m.Instances = append(m.Instances, control.Instance{Tier: "logic", Slot: i, Addr: "logic" + strconv.Itoa(i), Boot: "boot" + strconv.Itoa(i)})
		members["logic"] = m
	}
	for _, o := range options {
		o(w, &cfg)
	}
	for i, serves := range w.serves {
		members["logic"].Instances[i].Serves = serves
	}
	center, err := local.New(members)
	if err != nil {
		t.Fatal(err)
	}
	w.center = center
	for i := range nLogic {
		das := route.NewPool(center, "das", w.dialDas, route.PoolOptions{})
		peers := route.NewPool(center, "logic", w.dialLogic, route.PoolOptions{})
		wg.Go(func() { _ = das.Run(ctx) })
		wg.Go(func() { _ = peers.Run(ctx) })
		w.pools = append(w.pools, peers)
		l, err := New(cfg, Deps{
			Das: das, Logics: peers, Presence: w.presence, Queue: w.queue, Self: members["logic"].Instances[i],
			Gateways: func(string) (tier.Gateway, error) { return w.gateway, nil }, Center: center, Jtransit: w.services,
		})
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = l.Run(run); close(done) }()
		w.logics = append(w.logics, l)
		w.stops = append(w.stops, func() { stop(); <-done })
	}
	w.stops = append(w.stops, func() {
		cancel()
		wg.Wait()
		for _, d := range w.das {
			d.wg.Wait()
		}
		_ = center.Close()
		_ = w.presence.Close()
	})
	for _, l := range w.logics {
		for l.state.Load() != running || l.deps.Das.Slots() != nDas || l.deps.Logics.Slots() != nLogic {
			time.Sleep(time.Millisecond)
		}
	}
	return w
}

func (w *world) close() {
	for _, stop := range w.stops {
		stop()
	}
}

func (w *world) dialDas(addr string) (tier.Das, error) {
	for _, d := range w.das {
		if d.addr == addr {
			return &dasAt{w: w, fakeDas: d}, nil
		}
	}
	return nil, fmt.Errorf("no das at %s", addr)
}

// forgetUsers empties the memory of a Logic.
func (w *world) forgetUsers(i int) {
	for j := range w.logics[i].users.shards {
		s := &w.logics[i].users.shards[j]
		s.Lock()
		clear(s.all)
		s.watch, s.dirty = nil, nil
		s.Unlock()
	}
}

// swapDas puts another das in the place of the first.
func (w *world) swapDas(das tier.Das) { w.instead = das }

func (w *world) dialLogic(addr string) (tier.Logic, error) { return w.logicAt(addr), nil }

// kill makes a Logic unreachable and stops it, as if it had crashed: nothing it does any
// more has an effect that matters.
func (w *world) kill(i int) {
	w.stopped.Store(w.logics[i].self.Addr, true)
	w.stops[i]()
	w.stops[i] = func() {}
}

func (w *world) dead(addr string) bool {
	_, dead := w.stopped.Load(addr)
	return dead
}

func (w *world) logicAt(addr string) tier.Logic {
	for _, l := range w.logics {
		if l.self.Addr == addr && !w.dead(addr) {
			return l
		}
	}
	return deadLogic{}
}

// deadLogic is an instance that cannot be reached.
type deadLogic struct{ tier.Logic }

var errDead = code.Errorf(code.Unavailable, "connection refused")

func (deadLogic) Settled(context.Context, *tier.SettledBatch) (*tier.Accepted, error) {
	return nil, errDead
}
func (deadLogic) Deliver(context.Context, *tier.DeliverBatch) (*tier.Accepted, error) {
	return nil, errDead
}
func (deadLogic) Renew(context.Context, *tier.RenewBatch) (*tier.RenewReply, error) {
	return nil, errDead
}
func (deadLogic) FannedOut(context.Context, *tier.FannedOutBatch) (*tier.Accepted, error) {
	return nil, errDead
}

// home returns the Logic of a user.
func (w *world) home(uid string) *Logic { return w.server(duty.Message, uid) }

// server returns the Logic of a user for a duty.
func (w *world) server(task, uid string) *Logic {
	w.t.Helper()
	for i, p := range w.pools {
		if w.dead(w.logics[i].self.Addr) {
			continue
		}
		peer, err := p.PickFor(task, route.Hash(tenant, uid))
		for err == nil && w.dead(peer.Addr) { // as a gateway finds out
			p.Failed(peer)
			peer, err = p.PickFor(task, route.Hash(tenant, uid))
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for _, l := range w.logics {
			if l.self.Addr == peer.Addr {
				return l
			}
		}
	}
	w.t.Fatal("no home of " + uid)
	return nil
}

// client is a connection of a user.
type client struct {
	w           *world
	uid, device string
	conn        uint64
	session     uint64
	counter     uint64
}

func (w *world) client(uid, device string, conn uint64) *client {
	return &client{w: w, uid: uid, device: device, conn: conn, counter: conn}
}

// up sends an event to the user's home.
func (c *client) up(up *tier.Uplink) {
	c.w.t.Helper()
	up.Tenant, up.Uid, up.Device, up.Conn, up.SessionEpoch = tenant, c.uid, c.device, c.conn, c.session
	if up.Platform == "" {
		up.Platform, up.Class = "web", "web"
	}
	task := duty.Message
	if up.Event == tier.Uplink_PACKET {
		task = duty.Of(im.Cmd(up.Cmd))
	}
	if _, err := c.w.server(task, c.uid).Uplink(context.Background(), &tier.UplinkBatch{Gateway: "gw", Boot: "gwboot", Items: []*tier.Uplink{up}}); err != nil {
		c.w.t.Fatalf("uplink of %s: %v", c.uid, err)
	}
}

// request sends a command and returns its seq.
func (c *client) request(cmd im.Cmd, body message) uint32 {
	c.w.t.Helper()
	b, err := body.Marshal(nil)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.w.seq++
	c.up(&tier.Uplink{Cmd: uint32(cmd), Seq: c.w.seq, Body: b})
	return c.w.seq
}

// frames lets everything settle and returns what came down, responses and pushes.
func (c *client) frames() []*tier.Down {
	synctest.Wait()
	return c.w.gateway.take(c.conn)
}

// login authenticates with a cursor and returns the answer.
func (c *client) login(cursor uint64) *im.AuthAck {
	c.w.t.Helper()
	c.request(im.Cmd_AUTH, &im.Auth{Device: c.device, Cursor: cursor, Epoch: min(cursor, 1), ConnectionCounter: c.counter})
	ack := &im.AuthAck{}
	d := one(c.w.t, c.frames(), im.Cmd_AUTH)
	decode(c.w.t, d, ack)
	c.session = d.SessionEpoch
	return ack
}

// ack confirms a cursor.
func (c *client) ack(cursor uint64) {
	c.up(&tier.Uplink{Event: tier.Uplink_CURSOR, Epoch: 1, Cursor: cursor})
}

// send sends a text and returns the seq of its request.
func (c *client) send(to, id, text string) uint32 {
	c.w.t.Helper()
	return c.request(im.Cmd_SEND, &im.Send{ClientMsgId: id, Attempt: 1, To: to, Text: text})
}

// errorOf returns the error that answers a command.
func errorOf(t testing.TB, frames []*tier.Down, cmd im.Cmd) *im.Error {
	t.Helper()
	d := one(t, frames, cmd)
	e := &im.Error{}
	if err := e.Unmarshal(d.Body); err != nil || d.Status == 0 {
		t.Fatalf("%s was answered with status %d (%v)", cmd, d.Status, err)
	}
	equal(t, "code in status and body", e.Code, d.Status)
	return e
}

// one returns the only frame of a command.
func one(t testing.TB, frames []*tier.Down, cmd im.Cmd) *tier.Down {
	t.Helper()
	var found *tier.Down
	for _, d := range frames {
		if d.Cmd == uint32(cmd) {
			if found != nil {
				t.Fatalf("more than one %s", cmd)
			}
			found = d
		}
	}
	if found == nil {
		t.Fatalf("no %s among %s", cmd, names(frames))
	}
	return found
}

func names(frames []*tier.Down) (out []string) {
	for _, d := range frames {
		out = append(out, im.Cmd(d.Cmd).String()+":"+code.Code(d.Status).Name())
	}
	return out
}

func decode[T any, P decoder[T]](t testing.TB, d *tier.Down, to P) P {
	t.Helper()
	if d.Status != 0 {
		e := &im.Error{}
		_ = e.Unmarshal(d.Body)
		t.Fatalf("%s failed: %s %s", im.Cmd(d.Cmd), e.Name, e.Message)
	}
	if err := to.Unmarshal(d.Body); err != nil {
		t.Fatal(err)
	}
	return to
}

// pushes returns the changes among frames.
func pushes(t testing.TB, frames []*tier.Down) (out []*im.Conversation) {
	t.Helper()
	for _, d := range frames {
		if d.Cmd == uint32(im.Cmd_PUSH) {
			out = append(out, decode(t, d, &im.Conversation{}))
		}
	}
	return out
}

func texts(changes []*im.Conversation) (out []string) {
	for _, c := range changes {
		for _, m := range c.Messages {
			out = append(out, m.Text)
		}
	}
	return out
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// pass lets time pass, and everything that is due then settle.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// rows is how many outbox rows are stored.
func (w *world) rows(kind tier.Outbox) int {
	w.store.Lock()
	defer w.store.Unlock()
	if kind == tier.Outbox_FANOUT {
		return len(w.store.fanout)
	}
	return len(w.store.deliver)
}

// user is a copy of what is stored of a user.
func (w *world) user(uid string) fakeUser {
	w.store.Lock()
	defer w.store.Unlock()
	u := *w.store.user(tenant, uid)
	u.rows, u.sessions = maps.Clone(u.rows), slices.Clone(u.sessions)
	return u
}

// due is how many deliveries the first Logic has outstanding.
func (w *world) due() int {
	_, due := w.logics[0].rows.sizes()
	return due
}
