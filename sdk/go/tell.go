package hongyan

import (
	"time"

	"hongyan/sdk/go/core"
)

// tell tells the application what happens and then saves the cursor: several outputs that
// have gathered meanwhile with one write. It ends when the writer has, and all is told.
func (c *Client) tell() {
	for {
		for c.tellSome() {
		}
		select {
		case <-c.told:
		case <-c.written:
			for c.tellSome() {
			}
			return
		}
	}
}

// tellSome tells what is there; false: nothing was.
func (c *Client) tellSome() bool {
	c.mu.Lock()
	list := c.tellers
	c.tellers = nil
	broken := c.broken
	c.mu.Unlock()
	if len(list) == 0 {
		return false
	}
	var after *core.Change
	var n uint64
	for _, t := range list {
		for _, e := range t.events {
			c.opt.On.handle(c, e)
		}
		c.mu.Lock()
		c.backlog -= len(t.events)
		c.mu.Unlock()
		signal(c.room)
		if t.after == nil {
			continue
		}
		if n = t.n; after == nil {
			after = t.after
		} else {
			after.Merge(t.after)
		}
	}
	if after == nil || broken != nil {
		return true
	}
	if err := c.opt.Store.Save(after); err != nil {
		c.breakDown(err)
		return true
	}
	c.do(func(now time.Time) { c.core.Stored(now, n) })
	return true
}

// handle calls the handler of an event.
func (h *Handlers) handle(c *Client, e core.Event) {
	switch e := e.(type) {
	case core.Received:
		call(h.Message, e.Message)
	case core.Sent:
		call(h.Sent, e)
	case core.Failed:
		call(h.Failed, e)
	case core.Modified:
		call(h.Modified, e)
	case core.Replaced:
		call(h.Replaced, e.Message)
	case core.Removed:
		call(h.Removed, e)
	case core.Row:
		if h.Conversation != nil {
			h.Conversation(e.Conversation, e.Partial)
		}
	case core.Read:
		call(h.Read, e)
	case core.Typing:
		call(h.Typing, e)
	case core.Announced:
		call(h.Announced, e)
	case core.Noticed:
		call(h.Unread, e.Unread)
	case core.Synced:
		if h.Synced != nil {
			h.Synced()
		}
	case core.Kicked:
		call(h.Kicked, e)
	case core.GoAway:
		c.goAway(e)
	case core.Problem:
		c.opt.Logger.Warn("the server reports a problem", "err", e.Err)
		call(h.Problem, e.Err)
	case expiredEvent:
		call(h.TokenExpired, e.Err)
	case stateEvent:
		if h.State != nil {
			h.State(e.state, e.reason)
		}
	}
}

func call[T any](fn func(T), v T) {
	if fn != nil {
		fn(v)
	}
}
