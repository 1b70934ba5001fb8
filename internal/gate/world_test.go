package gate_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/gate"
	"hongyan/internal/mq"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// world is a Gate between fake clients and fake Logics, in a synctest bubble.
type world struct {
	t      *testing.T
	gate   *gate.Gate
	pool   *route.Pool[tier.Logic]
	center *local.Center
	logics []*logic
	slots  int // registered
	stop   func()
}

type setup struct {
	logics int      // slots; default 1
	spare  int      // Logics that are not registered yet
	serves []string // duties of each slot; nil = all of all
	config func(*gate.Config)
	queue  mq.Queue
}

// inWorld runs the test in a bubble with a serving Gate.
func inWorld(t *testing.T, s setup, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer w.stop()
		test(w)
	})
}

func newWorld(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{t: t}
	members := control.Members{Slots: max(1, s.logics)}
	for slot := range members.Slots {
		in := control.Instance{Tier: "logic", Slot: slot, Addr: fmt.Sprint("logic-", slot), Boot: "b1"}
		if s.serves != nil {
			in.Serves = s.serves[slot]
		}
		members.Instances = append(members.Instances, in)
	}
	for range members.Slots + s.spare {
		w.logics = append(w.logics, &logic{})
	}
	w.slots = members.Slots
	var err error
	if w.center, err = local.New(map[string]control.Members{"logic": members}); err != nil {
		t.Fatal(err)
	}
	w.pool = route.NewPool(w.center, "logic", w.dial, route.PoolOptions{})
	cfg := gate.DefaultConfig()
	if s.config != nil {
		s.config(&cfg)
	}
	w.gate, err = gate.New(cfg, gate.Deps{
		Logics: w.pool,
		Keys:   verifier{},
		Self:   control.Instance{Tier: "entry", Addr: "gate-1", Boot: "boot-1"},
		Queue:  s.queue,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.pool.Run(ctx) })
	running.Go(func() {
		if err := w.gate.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w.stop = func() {
		cancel()
		running.Wait()
		_ = w.center.Close()
	}
	synctest.Wait()
	return w
}

func (w *world) dial(addr string) (tier.Logic, error) {
	var slot int
	if _, err := fmt.Sscanf(addr, "logic-%d", &slot); err != nil {
		return nil, err
	}
	return w.logics[slot], nil
}

// verifier takes tokens of the form "uid" or "uid/device".
type verifier struct{}

func (verifier) Verify(text string) (token.Claims, error) {
	if text == "" || text == "bad" {
		return token.Claims{}, code.Errorf(code.BadToken, "no good")
	}
	uid, device, _ := strings.Cut(text, "/")
	return token.Claims{Tenant: "demo", UID: uid, Device: device}, nil
}

// logic is a Logic that records what it gets. What the embedded interface holds is not
// called by gateways.
type logic struct {
	tier.Logic
	mu       sync.Mutex
	uplinks  []*tier.Uplink
	batches  int
	renewals []*tier.Renewal
	renewed  tier.RenewReply                 // answered to each Renew
	err      error                           // answered to every call
	hook     func(b *tier.UplinkBatch) error // before a batch is taken
	hangs    bool                            // in Renew, until the call times out
}

func (l *logic) Uplink(_ context.Context, b *tier.UplinkBatch) (*tier.Accepted, error) {
	l.mu.Lock()
	hook := l.hook
	l.mu.Unlock()
	if hook != nil {
		if err := hook(b); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	l.batches++
	l.uplinks = append(l.uplinks, b.Items...)
	return &tier.Accepted{}, nil
}

func (l *logic) Renew(ctx context.Context, b *tier.RenewBatch) (*tier.RenewReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hangs {
		l.mu.Unlock()
		<-ctx.Done()
		l.mu.Lock()
		return nil, ctx.Err()
	}
	if l.err != nil {
		return nil, l.err
	}
	l.renewals = append(l.renewals, b.Items...)
	reply := l.renewed
	return &reply, nil
}

func (l *logic) before(hook func(*tier.UplinkBatch) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = hook
}

func (l *logic) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *logic) hangInRenew(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hangs = on
}

func (l *logic) answerRenewals(reply tier.RenewReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed = reply
}

// took returns and forgets the events of a kind that have arrived.
func (l *logic) took(event tier.Uplink_Event) []*tier.Uplink {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out, rest []*tier.Uplink
	for _, u := range l.uplinks {
		if u.Event == event {
			out = append(out, u)
		} else {
			rest = append(rest, u)
		}
	}
	l.uplinks = rest
	return out
}

func (l *logic) renewalsTaken() []*tier.Renewal {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.renewals
	l.renewals = nil
	return out
}

// client is a connection as its client sees it.
type client struct {
	w    *world
	conn *gate.Conn
	seq  uint32

	mu     sync.Mutex
	frames []wire.Frame
	sends  int // calls of Send
	queued int
	closed code.Code
	why    string
}

func (w *world) open(info gate.Info) *client {
	if info.Transport == "" {
		info.Transport = gate.TCP
	}
	c := &client{w: w}
	c.conn = w.gate.Open(c, info)
	return c
}

func (c *client) Send(frames []wire.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends++
	c.frames = append(c.frames, slices.Clone(frames)...)
}

func (c *client) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queued
}

func (c *client) Close(why code.Code, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != 0 {
		c.w.t.Errorf("closed twice: %v, then %v", c.closed, why)
	}
	c.closed, c.why = why, reason
}

func (c *client) setQueued(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued = n
}

// got returns and forgets the frames that have arrived.
func (c *client) got() []wire.Frame {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.frames
	c.frames, c.sends = nil, 0
	return out
}

// closeCode is 0 while the connection is open.
func (c *client) closeCode() code.Code {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

type message interface{ Marshal([]byte) ([]byte, error) }

func encode(t testing.TB, m message) []byte { // nil: no body
	t.Helper()
	if m == nil {
		return nil
	}
	b, err := m.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do writes a request and returns its seq.
func (c *client) do(cmd im.Cmd, body message) uint32 {
	c.w.t.Helper()
	c.seq++
	c.conn.Heard()
	c.conn.Receive(wire.Frame{Cmd: cmd, Seq: c.seq, Body: encode(c.w.t, body)})
	return c.seq
}

// login opens a session: AUTH goes to the home, which answers.
func (w *world) login(uid string, auth *im.Auth) *client {
	w.t.Helper()
	c := w.open(gate.Info{IP: "10.0.0.1"})
	if auth == nil {
		auth = &im.Auth{}
	}
	if auth.Token == "" {
		auth.Token = uid + "/d1"
	}
	seq := c.do(im.Cmd_AUTH, auth)
	w.home(uid).took(tier.Uplink_PACKET)
	home := fmt.Sprint("logic-", route.Hash("demo", uid)%uint64(w.slots))
	w.downFrom(home, &tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq, SessionEpoch: 7})
	frames := c.got()
	if len(frames) != 1 || frames[0].Cmd != im.Cmd_AUTH || frames[0].Status != 0 {
		w.t.Fatalf("login of %s: got %v", uid, describe(frames))
	}
	return c
}

// home Logic of a user while all are up.
func (w *world) home(uid string) *logic {
	return w.logics[route.Hash("demo", uid)%uint64(w.slots)]
}

// down brings items to the gate and returns the connections that are gone.
func (w *world) down(items ...*tier.Down) []uint64 {
	w.t.Helper()
	return w.downFrom("logic-0", items...)
}

func (w *world) downFrom(logic string, items ...*tier.Down) []uint64 {
	w.t.Helper()
	reply, err := w.gate.Downlink(context.Background(), &tier.DownlinkBatch{Logic: logic, Items: items})
	if err != nil {
		w.t.Fatal(err)
	}
	return reply.Gone
}

// push is a change of a conversation at a version.
func (c *client) push(version uint64, text string) *tier.Down {
	change := &im.Conversation{Conv: "p:alice:bob", Version: version, LastSeq: version,
		Messages: []*im.Message{{Conv: "p:alice:bob", Seq: version, Text: text}}}
	return &tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_PUSH), Epoch: 1, Version: version, Body: encode(c.w.t, change)}
}

func (c *client) ack(epoch, cursor uint64) {
	c.do(im.Cmd_PUSH_ACK, &im.PushAck{Epoch: epoch, Cursor: cursor})
}

// describe puts frames into words: "PUSH 1:5,6 | NOTICE SYNC 7 | SEND! 503".
func describe(frames []wire.Frame) string {
	var words []string
	for _, f := range frames {
		words = append(words, describeOne(f))
	}
	return strings.Join(words, " | ")
}

func describeOne(f wire.Frame) string {
	name := f.Cmd.String()
	if f.Flags&wire.FlagResponse != 0 {
		name += "!"
	}
	if f.Status != 0 {
		return fmt.Sprintf("%s %d", name, f.Status)
	}
	switch f.Cmd {
	case im.Cmd_PUSH:
		var p im.Push
		if err := p.Unmarshal(f.Body); err != nil {
			return name + " " + err.Error()
		}
		var versions []string
		for _, c := range p.Changes {
			versions = append(versions, fmt.Sprint(c.Version))
		}
		return fmt.Sprintf("%s %d:%s", name, p.Epoch, strings.Join(versions, ","))
	case im.Cmd_NOTICE:
		var n im.Notice
		_ = n.Unmarshal(f.Body)
		return fmt.Sprintf("%s %d:%d", name, n.Epoch, n.Head)
	case im.Cmd_ERROR:
		var e im.Error
		_ = e.Unmarshal(f.Body)
		return fmt.Sprintf("%s %d", name, e.Code)
	case im.Cmd_KICK:
		var k im.Kick
		_ = k.Unmarshal(f.Body)
		return fmt.Sprintf("%s %d %s", name, k.Code, k.Reason)
	}
	return name
}

// expect compares the frames that have arrived.
func (c *client) expect(want string) {
	c.w.t.Helper()
	if got := describe(c.got()); got != want {
		c.w.t.Errorf("at %v: got %q, want %q", time.Now().Format("15:04:05.000"), got, want)
	}
}

func (c *client) expectClose(want code.Code) {
	c.w.t.Helper()
	if got := c.closeCode(); got != want {
		c.w.t.Errorf("close code %v (%s), want %v", uint32(got), c.why, uint32(want))
	}
}
