package hongyan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"time"

	"hongyan/idl/code"
	"hongyan/sdk/go/core"
)

// backlogLimit is how many events may wait for the application before no more is read.
const backlogLimit = 1024

// keep holds a connection until the client ends or the server says so for good.
//
//	dial -> login -> read ... -> back-off -> dial the same endpoint, or the next if it
//	did not get as far as the login
func (c *Client) keep(k *keeper) {
	at, failures := 0, 0
	for k.ctx.Err() == nil {
		end := c.session(k, c.next(at))
		if end.final {
			c.stop(end.err)
			return
		}
		if k.ctx.Err() != nil {
			return
		}
		if end.online {
			failures = 0
		} else {
			at++
		}
		c.report(end.err)
		// A ladder is climbed down at once; back-off is for when none of it holds.
		if !end.online && at%len(c.endpoints) != 0 && end.retryAfter == 0 {
			continue
		}
		if c.pause(k, core.Backoff(failures, end.retryAfter, rand.Float64())) {
			at, failures = 0, 0
		} else {
			failures++
		}
	}
}

// ended is how a session ended.
type ended struct {
	err        error
	online     bool // it had logged in
	final      bool
	retryAfter time.Duration
}

// next is the endpoint of try n, or where the server has sent us.
func (c *Client) next(n int) *url.URL {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.detour) > 0 {
		to := c.detour[0]
		c.detour = c.detour[1:]
		return to
	}
	return c.endpoints[n%len(c.endpoints)]
}

func (c *Client) report(err error) {
	c.opt.Logger.Info("connection ended", "err", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != Stopped {
		c.setStateLocked(Connecting, err)
	}
}

// pause waits; true: it was woken.
func (c *Client) pause(k *keeper, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.ctx.Done():
	case <-c.again:
		return true
	}
	return false
}

// session is one connection from its dial to its end.
func (c *Client) session(k *keeper, endpoint *url.URL) ended {
	token, err := c.opt.Token(k.ctx)
	if err != nil {
		return ended{err: fmt.Errorf("token: %w", err)}
	}
	ctx, cancel := context.WithTimeout(k.ctx, dialTimeout)
	conn, err := c.dialers[endpoint.Scheme](ctx, endpoint)
	cancel()
	if err != nil {
		return ended{err: fmt.Errorf("connect to %s: %w", endpoint.Host, err)}
	}
	link := core.Link{Token: token}
	if p, ok := conn.(prompt); ok {
		link.AckAtOnce = p.AckAtOnce()
	}
	// Whoever ends the client ends the connection, which ends the reading.
	closed := make(chan struct{})
	stop := context.AfterFunc(k.ctx, func() {
		defer close(closed)
		_ = conn.Close(code.OK, "bye")
	})
	c.do(func(now time.Time) {
		c.conn, c.closing = conn, nil
		c.core.Connected(now, link)
	})
	err = c.read(k, conn)
	online := c.leave(conn)
	if stop() {
		_ = conn.Close(code.OK, "bye")
	} else {
		<-closed
	}
	return c.verdict(endpoint, online, err)
}

// leave takes the connection from the core and tells whether it had logged in.
func (c *Client) leave(conn Conn) (online bool) {
	c.do(func(now time.Time) {
		online = c.state == Online
		if c.conn == conn {
			c.conn = nil
		}
		c.core.Disconnected(now)
	})
	return online
}

// verdict makes one reason of what the core, the server and the socket said.
func (c *Client) verdict(endpoint *url.URL, online bool, err error) ended {
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	end := ended{online: online, err: fmt.Errorf("%s: %w", endpoint.Host, err)}
	if closing == nil {
		if e, ok := errors.AsType[*code.Error](err); ok {
			closing = &core.Closing{Code: e.Code, Reason: e.Message, Final: core.Final(e.Code), RetryAfter: e.RetryAfter}
		} else if errors.Is(err, io.EOF) {
			end.err = fmt.Errorf("%s closed the connection", endpoint.Host)
		}
	}
	if closing != nil {
		end.err = &code.Error{Code: closing.Code, Message: closing.Reason, RetryAfter: closing.RetryAfter}
		end.final, end.retryAfter = closing.Final, closing.RetryAfter
	}
	if end.final && (code.Of(end.err) == code.BadToken || code.Of(end.err) == code.CloseBadToken) {
		c.mu.Lock()
		c.tellLocked(telling{events: []core.Event{expiredEvent{core.Problem{Err: code.From(end.err)}}}})
		c.mu.Unlock()
	}
	return end
}

// expiredEvent: the token was refused.
type expiredEvent struct{ core.Problem }

// read gives the core what the connection brings, until it ends. When the application does
// not get on, nothing is read, and the server sees a slow consumer.
func (c *Client) read(k *keeper, conn Conn) error {
	var frames []Frame
	for {
		got, err := conn.Read(frames[:0])
		frames = got
		if len(frames) > 0 {
			c.do(func(now time.Time) {
				for i := range frames {
					c.core.Receive(now, &frames[i])
				}
				c.noteEndingLocked()
			})
			clear(frames) // the bodies live on in events only
		}
		if err != nil {
			return err
		}
		if err := c.waitForRoom(k); err != nil {
			return err
		}
	}
}

// noteEndingLocked keeps why the core wants the connection to end.
func (c *Client) noteEndingLocked() {
	if end := c.core.Ending(); end != nil && c.closing == nil {
		c.closing = end
	}
}

func (c *Client) waitForRoom(k *keeper) error {
	for {
		c.mu.Lock()
		full, end := c.backlog > backlogLimit, c.closing
		c.mu.Unlock()
		if end != nil {
			return errEnding
		}
		if !full {
			return nil
		}
		select {
		case <-c.room:
		case <-k.ctx.Done():
			return k.ctx.Err()
		}
	}
}

// errEnding: the core ends the connection; Client.closing tells why.
var errEnding = errors.New("ended by the client")

// goAway leaves a server that is stopping, within the time it gives, to spread the load.
func (c *Client) goAway(g core.GoAway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, k := c.conn, c.keeper
	if conn == nil || k == nil || k.ctx.Err() != nil {
		return
	}
	if len(g.Endpoints) > 0 {
		if to, err := parseEndpoints(g.Endpoints, c.dialers); err == nil {
			c.detour = to
		} else {
			c.opt.Logger.Warn("the server named endpoints that cannot be used", "err", err)
		}
	}
	k.owned.Go(func() {
		t := time.NewTimer(time.Duration(rand.Float64() * float64(min(g.MaxDelay, time.Minute))))
		defer t.Stop()
		select {
		case <-t.C:
			_ = conn.Close(code.OK, "asked to go away")
		case <-k.ctx.Done():
		}
	})
}
