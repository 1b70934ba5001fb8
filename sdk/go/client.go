package hongyan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"hongyan/idl/code"
	"hongyan/sdk/go/core"
)

// ErrClosed is what a closed client answers.
var ErrClosed = errors.New("the client is closed")

// Client is one user's device. Its methods may be called from many goroutines.
//
// Three goroutines work for it: the writer performs what the core wants (write.go) and the
// teller tells the application and saves what it has seen (tell.go), from New to Close;
// the keeper opens connections and reads them (keep.go), from Connect until Close or
// until the server ends it for good.
type Client struct {
	opt       Options
	dialers   map[string]Dialer
	endpoints []*url.URL

	wake    chan struct{} // to the writer: the core has something to do; 1, full = it knows
	told    chan struct{} // to the teller: there are events; 1
	again   chan struct{} // to the keeper: do not wait any longer; 1
	room    chan struct{} // to the keeper: the teller has caught up; 1
	written chan struct{} // closed when the writer has ended
	ctx     context.Context
	cancel  context.CancelFunc
	owned   sync.WaitGroup // writer, teller

	mu      sync.Mutex
	core    *core.Core
	conn    Conn          // the core's connection
	closing *core.Closing // why the core ended it
	detour  []*url.URL    // where GOAWAY sent us, to be tried first
	sends   map[string]chan result
	calls   map[uint64]chan core.Answer
	syncs   []chan struct{} // closed at the next Synced
	tellers []telling       // for the teller, in order
	backlog int             // events among them
	state   State
	reason  error         // with Connecting and Stopped
	changed chan struct{} // closed when state or reason change
	keeper  *keeper       // nil before the first Connect
	broken  error         // the store has failed: nothing goes on
	closed  bool
}

// keeper is one stretch between Connect and its end.
type keeper struct {
	ctx    context.Context
	cancel context.CancelFunc
	owned  sync.WaitGroup
}

type result struct {
	sent Sent
	err  error
}

// telling is what the teller does with one output of the core.
type telling struct {
	events []core.Event
	after  *core.Change
	n      uint64
}

// New makes a client from what its store holds. It does not connect yet; messages may be
// sent already and leave later. Close it when done.
func New(opt Options) (*Client, error) {
	known, endpoints, err := opt.check()
	if err != nil {
		return nil, fmt.Errorf("hongyan: %w", err)
	}
	saved, err := opt.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("hongyan: %w", err)
	}
	cfg := opt.Tuning
	cfg.Device = opt.Device
	if opt.Platform != "" {
		cfg.Platform = opt.Platform
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	machine, err := core.New(cfg, saved)
	if err != nil {
		return nil, fmt.Errorf("hongyan: %w", err)
	}
	c := &Client{
		opt: opt, dialers: known, endpoints: endpoints, core: machine,
		wake: make(chan struct{}, 1), told: make(chan struct{}, 1),
		again: make(chan struct{}, 1), room: make(chan struct{}, 1),
		sends: map[string]chan result{}, calls: map[uint64]chan core.Answer{},
		changed: make(chan struct{}), written: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.owned.Go(c.write)
	c.owned.Go(c.tell)
	signal(c.wake)
	return c, nil
}

// Connect starts to keep a connection and waits until the user is logged in. It returns
// the reason when the server refuses for good. When ctx ends first, the client goes on
// trying until Close.
func (c *Client) Connect(ctx context.Context) error {
	if err := c.start(); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		state, reason, changed := c.state, c.reason, c.changed
		c.mu.Unlock()
		switch state {
		case Online:
			return nil
		case Stopped:
			return reason
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if reason != nil {
				return fmt.Errorf("%w; the last try: %w", ctx.Err(), reason)
			}
			return ctx.Err()
		}
	}
}

// start brings a keeper to life, if there is none.
func (c *Client) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.keeper != nil && c.state == Stopped {
		k := c.keeper
		c.mu.Unlock()
		k.owned.Wait() // it has ended or is about to
		c.mu.Lock()
		if c.keeper == k {
			c.keeper = nil
		}
	}
	switch {
	case c.closed:
		return ErrClosed
	case c.broken != nil:
		return c.broken
	case c.keeper != nil:
		return nil
	}
	k := &keeper{}
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	c.keeper = k
	c.setStateLocked(Connecting, nil)
	k.owned.Go(func() { c.keep(k) })
	return nil
}

// stop ends what the keeper does, for good, with the reason. Who waits for an answer is
// told; what is in the outbox stays there.
func (c *Client) stop(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Stopped {
		return
	}
	c.setStateLocked(Stopped, reason)
	for id, waiter := range c.sends {
		waiter <- result{err: reason}
		delete(c.sends, id)
	}
	for id, waiter := range c.calls {
		c.core.Cancel(id)
		waiter <- core.Answer{ID: id, Err: code.Errorf(code.Unavailable, "%w", reason)}
		delete(c.calls, id)
	}
	if c.keeper != nil {
		c.keeper.cancel()
	}
}

// Close ends the connection and waits for the goroutines, handlers included. What was not
// acknowledged stays in the store, which is not closed.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop(ErrClosed)
	c.mu.Lock()
	k := c.keeper
	c.mu.Unlock()
	if k != nil {
		k.owned.Wait()
	}
	c.cancel()
	c.owned.Wait()
	return nil
}

// State returns what the connection is and, where it is not online, why.
func (c *Client) State() (State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.reason
}

// UID is whose device this is, "" before the first login.
func (c *Client) UID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.UID()
}

// Wake reconnects at once instead of after the back-off, from the best endpoint on: call
// it when the network has changed or the application comes to the front.
func (c *Client) Wake() { signal(c.again) }

func (c *Client) setStateLocked(s State, reason error) {
	if c.state == s && c.reason == nil && reason == nil {
		return
	}
	c.state, c.reason = s, reason
	close(c.changed)
	c.changed = make(chan struct{})
	c.tellLocked(telling{events: []core.Event{stateEvent{core.Problem{}, s, reason}}})
}

// stateEvent travels with the core's events, so that the application sees one order.
type stateEvent struct {
	core.Event
	state  State
	reason error
}

func (c *Client) tellLocked(t telling) {
	c.tellers = append(c.tellers, t)
	c.backlog += len(t.events)
	signal(c.told)
}

// signal sets a flag that a goroutine waits for.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// do runs fn on the core and wakes the writer.
func (c *Client) do(fn func(now time.Time)) {
	c.mu.Lock()
	fn(time.Now())
	c.mu.Unlock()
	signal(c.wake)
}
