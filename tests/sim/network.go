package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// network carries the calls between simulated processes. Every message is encoded and
// decoded again, so nothing is shared. Each edge (from, to) draws its own fate from the
// seed: how long a message takes, whether a request or a reply is lost.
//
// A call to a process that is down fails at once, for its port is closed. A request to a
// paused one stays in its buffers and is served when it wakes, whether its caller still
// waits or not; a request or reply of a paused one leaves when it wakes.
type network struct {
	stats *stats
	odds  netOdds

	mu    sync.Mutex
	seed  uint64
	calm  bool
	procs map[string]*process
	edges map[edgeName]*edge
	crash func(p *process, how string) // for crash points

	healed chan struct{} // closed with calm

	hands chan func() // capacity 0: goroutines that wait for something to do
	work  *sync.WaitGroup
	done  <-chan struct{}
}

// netOdds are how likely a single message meets what.
type netOdds struct {
	lostRequest, lostReply float64
	late                   float64 // up to 200 ms
	veryLate               float64 // up to 5 s
	hung                   float64 // up to a minute: its caller has long given up
	crashPoint             float64 // the callee dies having done what was asked, before it replies
}

type edgeName struct{ from, to string }

// edge is one direction between two addresses.
type edge struct {
	rng *rand.Rand
	cut cut
}

// cut is how an edge is broken.
type cut uint8

const (
	whole   cut = iota
	silent      // what is sent never arrives
	refused     // calls fail at once
)

// callTimeout is the longest that anybody waits for a reply, in a network that loses them.
const callTimeout = 3 * time.Second

var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset")
)

func newNetwork(seed uint64, odds netOdds, s *stats) *network {
	return &network{
		stats: s, odds: odds, seed: seed,
		procs: map[string]*process{}, edges: map[edgeName]*edge{}, healed: make(chan struct{}), hands: make(chan func()),
	}
}

// fate is what happens to one call on its way.
type fate struct {
	there, back            time.Duration
	lostRequest, lostReply bool
	refused, crash         bool
}

// draw decides the fate of one call.
func (n *network) draw(from, to string) fate {
	n.mu.Lock()
	defer n.mu.Unlock()
	there, back := n.edgeLocked(from, to), n.edgeLocked(to, from)
	// Always as many numbers, so that what one edge meets does not depend on the others.
	f := fate{there: n.transitLocked(there.rng), back: n.transitLocked(there.rng)}
	r1, r2, r3 := there.rng.Float64(), there.rng.Float64(), there.rng.Float64()
	f.refused = there.cut == refused
	f.lostRequest, f.lostReply = there.cut == silent, back.cut != whole
	if !n.calm {
		f.lostRequest = f.lostRequest || r1 < n.odds.lostRequest
		f.lostReply = f.lostReply || r2 < n.odds.lostReply
		f.crash = r3 < n.odds.crashPoint
	}
	return f
}

func (n *network) edgeLocked(from, to string) *edge {
	name := edgeName{from, to}
	e := n.edges[name]
	if e == nil {
		e = &edge{rng: newRand(n.seed, "edge", from, to)}
		n.edges[name] = e
	}
	return e
}

// transitLocked is how long one direction of one call takes.
func (n *network) transitLocked(rng *rand.Rand) time.Duration {
	kind, size := rng.Float64(), rng.Float64()
	d := 50*time.Microsecond + time.Duration(size*float64(400*time.Microsecond))
	if n.calm {
		return d
	}
	for _, o := range []struct {
		odds float64
		most time.Duration
	}{{n.odds.hung, time.Minute}, {n.odds.veryLate, 5 * time.Second}, {n.odds.late, 200 * time.Millisecond}} {
		if kind < o.odds {
			return d + time.Duration(size*float64(o.most))
		}
		kind -= o.odds
	}
	return d
}

// setCalm ends all faults of the network.
func (n *network) setCalm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.calm {
		n.calm = true
		close(n.healed)
	}
	for _, e := range n.edges {
		e.cut = whole
	}
}

// cutEdge breaks or mends the way from one address to another.
func (n *network) cutEdge(from, to string, c cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.calm || c == whole {
		n.edgeLocked(from, to).cut = c
	}
}

func (n *network) at(addr string) *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.procs[addr]
}

func (n *network) put(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.procs[p.Addr] = p
}

// remove takes a process off the network, unless a later life stands there.
func (n *network) remove(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.procs[p.Addr] == p {
		delete(n.procs, p.Addr)
	}
}

// message is what the generated types have in common.
type message[T any] interface {
	*T
	Marshal(in []byte) ([]byte, error)
	Unmarshal(in []byte) error
}

func copyMessage[T any, P message[T]](m P) (P, error) {
	b, err := m.Marshal(nil)
	if err != nil {
		return nil, err
	}
	out := P(new(T))
	return out, out.Unmarshal(b)
}

// call takes req from a process to the handler at an address, and its reply back.
func call[Req, Rsp any, PReq message[Req], PRsp message[Rsp]](
	ctx context.Context, n *network, from *process, to string, req PReq,
	handle func(h any, ctx context.Context, req PReq) (PRsp, error),
) (PRsp, error) {
	sent, err := copyMessage[Req, PReq](req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f := n.draw(from.Addr, to)
	if err := from.awake(ctx); err != nil {
		return nil, err
	}
	dest := n.at(to)
	switch {
	case dest == nil || f.refused:
		if err := sleep(ctx, min(f.there, time.Millisecond)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("call %s: %w", to, errRefused)
	case f.lostRequest:
		n.stats.count("request lost")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	done := make(chan outcome[PRsp], 1)
	n.start(func() { done <- serve[Rsp](n, dest, f, sent, handle) })
	var out outcome[PRsp]
	select {
	case out = <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-dest.ctx.Done():
		return nil, fmt.Errorf("call %s: %w", to, errReset)
	case <-from.ctx.Done():
		return nil, errReset
	}
	if f.lostReply {
		n.stats.count("reply lost")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := from.awake(ctx); err != nil {
		return nil, err
	}
	if out.err != nil {
		return nil, out.err
	}
	return copyMessage[Rsp, PRsp](out.rsp)
}

// start runs fn on a goroutine of its own: one that has done, or another.
func (n *network) start(fn func()) {
	select {
	case n.hands <- fn:
	default:
		n.work.Go(func() {
			for {
				fn()
				select {
				case fn = <-n.hands:
				case <-n.done:
					return
				}
			}
		})
	}
}

type outcome[PRsp any] struct {
	rsp PRsp
	err error
}

// serve is the callee's side of a call: it goes on when the caller has given up.
func serve[Rsp, Req any, PReq message[Req], PRsp message[Rsp]](
	n *network, dest *process, f fate, req PReq,
	handle func(h any, ctx context.Context, req PReq) (PRsp, error),
) (out outcome[PRsp]) {
	if out.err = n.transit(dest.ctx, f.there); out.err != nil {
		return out
	}
	if out.err = dest.awake(dest.ctx); out.err != nil {
		return out
	}
	ctx, cancel := context.WithTimeout(dest.ctx, callTimeout)
	defer cancel()
	out.rsp, out.err = handle(dest.handler, ctx, req)
	if f.crash && dest.ctx.Err() == nil {
		n.crash(dest, "crash point")
	}
	if err := dest.awake(dest.ctx); err != nil {
		return outcome[PRsp]{err: errReset}
	}
	if err := n.transit(dest.ctx, f.back); err != nil {
		return outcome[PRsp]{err: errReset}
	}
	return out
}

// transit is the way of a message. What hangs when the world heals arrives then, at once.
func (n *network) transit(ctx context.Context, d time.Duration) error {
	if d < callTimeout {
		return sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-n.healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
