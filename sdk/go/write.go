package hongyan

import (
	"fmt"
	"time"

	"hongyan/idl/code"
	"hongyan/sdk/go/core"
)

// write performs what the core wants, again and again: everything that has gathered in the
// meantime is one write to the store and one to the socket.
func (c *Client) write() {
	defer close(c.written)
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-c.wake:
		case <-t.C:
			c.mu.Lock()
			c.core.Tick(time.Now())
			c.mu.Unlock()
		case <-c.ctx.Done():
			c.perform()
			return
		}
		if next := c.perform(); !next.IsZero() {
			t.Reset(time.Until(next))
		}
	}
}

// perform does one output, in the order that core asks for, and returns when the core
// wants to be woken.
func (c *Client) perform() (next time.Time) {
	c.mu.Lock()
	out := c.core.Take()
	conn := c.conn
	if out.Close != nil && c.closing == nil {
		c.closing = out.Close
	}
	next = c.core.Wake()
	broken := c.broken
	c.mu.Unlock()
	if broken != nil {
		return time.Time{}
	}
	if out.Before != nil {
		if err := c.opt.Store.Save(out.Before); err != nil {
			c.breakDown(err)
			return time.Time{}
		}
	}
	if conn != nil && len(out.Frames) > 0 {
		if err := conn.Write(out.Frames); err != nil {
			c.opt.Logger.Debug("write", "err", err)
			_ = conn.Close(code.OK, "") // the reader tells
		}
	}
	c.deliver(&out)
	if conn != nil && out.Close != nil {
		_ = conn.Close(out.Close.Code, out.Close.Reason)
	}
	return next
}

// breakDown: what the store did not take, must not be acted upon.
func (c *Client) breakDown(err error) {
	err = fmt.Errorf("hongyan: the store failed: %w", err)
	c.opt.Logger.Error("the store failed; the client stops", "err", err)
	c.mu.Lock()
	c.broken = err
	c.mu.Unlock()
	c.stop(err)
}

// deliver gives answers to who waits for them and events to the teller.
func (c *Client) deliver(out *core.Output) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range out.Answers {
		if waiter := c.calls[a.ID]; waiter != nil {
			delete(c.calls, a.ID)
			waiter <- a
		}
	}
	for _, e := range out.Events {
		switch e := e.(type) {
		case core.Sent:
			c.resolveLocked(e.ClientMsgID, result{sent: e})
		case core.Failed:
			c.resolveLocked(e.ClientMsgID, result{err: e.Err})
		case core.Synced:
			for _, waiter := range c.syncs {
				close(waiter)
			}
			c.syncs = nil
		case core.Online:
			if c.state == Connecting && c.core.Online() {
				c.setStateLocked(Online, nil)
			}
		}
	}
	if len(out.Events) > 0 || out.After != nil {
		c.tellLocked(telling{events: out.Events, after: out.After, n: out.N})
	}
}

func (c *Client) resolveLocked(id string, r result) {
	if waiter := c.sends[id]; waiter != nil {
		delete(c.sends, id)
		waiter <- r
	}
}
