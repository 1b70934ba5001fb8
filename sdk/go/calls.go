package hongyan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/sdk/go/core"
)

// callTimeout of a question whose context has no deadline.
const callTimeout = 30 * time.Second

// Send sends a message and waits until it is stored, whatever happens to the connection.
// An *Error says why not: a code that is not Retryable is final, Expired after two minutes
// of trying (it may be stored nevertheless: Retry finds out). When ctx ends first, the
// message stays in the outbox and goes on; so it does when the client stops.
func (c *Client) Send(ctx context.Context, m Outgoing) (Sent, error) {
	wait := make(chan result, 1)
	id, err := c.enqueue(m, wait)
	if err != nil {
		return Sent{}, err
	}
	select {
	case r := <-wait:
		return r.sent, r.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.sends, id)
		c.mu.Unlock()
		return Sent{}, fmt.Errorf("%s is in the outbox and goes on: %w", id, ctx.Err())
	}
}

// SendAsync puts a message into the outbox and returns its ClientMsgID; Handlers.Sent or
// Failed tell the outcome.
func (c *Client) SendAsync(m Outgoing) (clientMsgID string, err error) { return c.enqueue(m, nil) }

func (c *Client) enqueue(m Outgoing, wait chan result) (string, error) {
	if m.ClientMsgID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("make an id: %w", err)
		}
		m.ClientMsgID = id.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return "", ErrClosed
	case c.broken != nil:
		return "", c.broken
	}
	if err := c.core.Send(time.Now(), m); err != nil {
		return "", err
	}
	if wait != nil {
		c.sends[m.ClientMsgID] = wait
	}
	signal(c.wake)
	return m.ClientMsgID, nil
}

// Recall takes a message back: text and data are gone, for everyone.
func (c *Client) Recall(ctx context.Context, conv string, seq uint64) (Sent, error) {
	return c.Send(ctx, Outgoing{Cmd: im.Cmd_RECALL, Conv: conv, Target: seq})
}

// Edit replaces the text and data of a message.
func (c *Client) Edit(ctx context.Context, conv string, seq uint64, text string, data []byte) (Sent, error) {
	return c.Send(ctx, Outgoing{Cmd: im.Cmd_EDIT, Conv: conv, Target: seq, Text: text, Data: data})
}

// Outbox returns what waits for its acknowledgement or has failed, in order.
func (c *Client) Outbox() []Queued {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.Outbox()
}

// Retry sends a failed entry of the outbox again, under its id, as the newest.
func (c *Client) Retry(clientMsgID string) (err error) {
	c.do(func(now time.Time) { err = c.core.Retry(now, clientMsgID) })
	return err
}

// Discard forgets a failed entry of the outbox.
func (c *Client) Discard(clientMsgID string) (err error) {
	c.do(func(time.Time) { err = c.core.Discard(clientMsgID) })
	return err
}

// MarkRead moves the read position of all of this user's devices. It is repeated until the
// server has it; Handlers.Read tells when.
func (c *Client) MarkRead(conv string, seq uint64) {
	c.do(func(now time.Time) { c.core.MarkRead(now, conv, seq) })
}

// Typing tells the others of a conversation that this user writes, or has stopped.
func (c *Client) Typing(conv string, stopped bool) {
	c.do(func(now time.Time) { c.core.SendTyping(now, conv, stopped) })
}

// Sync asks for what changed and waits until the client is level. It happens by itself at
// login and whenever something is missing.
func (c *Client) Sync(ctx context.Context) error {
	wait := make(chan struct{})
	c.do(func(now time.Time) {
		c.syncs = append(c.syncs, wait)
		c.core.Sync(now)
	})
	for {
		c.mu.Lock()
		state, reason, changed := c.state, c.reason, c.changed
		c.mu.Unlock()
		if state == Stopped {
			return reason
		}
		select {
		case <-wait:
			return nil
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// HistoryQuery names a part of a conversation: the range From..To, or the newest Limit
// entries below Before (0 = from the end).
type HistoryQuery struct {
	From, To uint64
	Before   uint64
	Limit    uint32 // 0 = 50, at most 200
}

// History returns entries ascending, and whether there are earlier ones.
func (c *Client) History(ctx context.Context, conv string, q HistoryQuery) (list []*Message, more bool, err error) {
	rsp := &im.HistoryRsp{}
	err = c.ask(ctx, im.Cmd_HISTORY, &im.History{
		Conv: conv, FromSeq: q.From, ToSeq: q.To, BeforeSeq: q.Before, Limit: q.Limit,
	}, rsp)
	return rsp.Messages, rsp.More, err
}

// Page of a list that is ordered by the user's log, newest first. Before 0 is the first page.
type Page struct {
	Before uint64
	Limit  uint32
}

// Conversations returns conversations with their newest messages; next is the Before of
// the next page, 0 = there is none.
func (c *Client) Conversations(ctx context.Context, p Page, messages uint32) (list []*Conversation, next uint64, err error) {
	rsp := &im.ConversationsRsp{}
	err = c.ask(ctx, im.Cmd_CONVERSATIONS, &im.Conversations{BeforeVersion: p.Before, Limit: p.Limit, Messages: messages}, rsp)
	if rsp.More {
		next = rsp.NextBeforeVersion
	}
	return rsp.Conversations, next, err
}

// Contacts returns whom this user has talked to, most recent first.
func (c *Client) Contacts(ctx context.Context, p Page) (list []*Contact, next uint64, err error) {
	rsp := &im.ContactsRsp{}
	err = c.ask(ctx, im.Cmd_CONTACTS, &im.Contacts{BeforeVersion: p.Before, Limit: p.Limit}, rsp)
	if rsp.More {
		next = rsp.NextBeforeVersion
	}
	return rsp.Contacts, next, err
}

// Unread returns the number of unread messages, of one conversation or, with "", of all.
func (c *Client) Unread(ctx context.Context, conv string) (total uint64, byConv map[string]uint64, err error) {
	rsp := &im.UnreadRsp{}
	err = c.ask(ctx, im.Cmd_UNREAD, &im.Unread{Conv: conv}, rsp)
	byConv = make(map[string]uint64, len(rsp.Conversations))
	for _, u := range rsp.Conversations {
		byConv[u.Conv] = u.Unread
	}
	return rsp.Total, byConv, err
}

// Presence tells who of at most 100 users is online, and where.
func (c *Client) Presence(ctx context.Context, uids ...string) ([]*Presence, error) {
	rsp := &im.PresenceRsp{}
	err := c.ask(ctx, im.Cmd_PRESENCE, &im.Presence{Uids: uids}, rsp)
	return rsp.Users, err
}

// Block refuses messages of another user, or takes them again.
func (c *Client) Block(ctx context.Context, uid string, on bool) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	return c.ask(ctx, im.Cmd_BLOCK, &im.Block{Uid: uid, On: on, ClientMsgId: id.String()}, &im.BlockAck{})
}

// Settings of a conversation that Configure sets; nil leaves one as it is.
type Settings struct {
	Pinned, Muted, Hidden *bool
	Remark                *string // this user's own name for the other side
}

// Configure changes settings of a conversation and returns its row.
func (c *Client) Configure(ctx context.Context, conv string, s Settings) (*Conversation, error) {
	req := &im.Settings{Conv: conv}
	set := func(name string, to *bool, v *bool) {
		if v != nil {
			*to = *v
			req.Fields = append(req.Fields, name)
		}
	}
	set("pinned", &req.Pinned, s.Pinned)
	set("muted", &req.Muted, s.Muted)
	set("hidden", &req.Hidden, s.Hidden)
	if s.Remark != nil {
		req.Remark = *s.Remark
		req.Fields = append(req.Fields, "remark")
	}
	rsp := &im.SettingsAck{}
	err := c.ask(ctx, im.Cmd_SETTINGS, req, rsp)
	return rsp.Conversation, err
}

// Call runs a configured business command of the platform. It is not repeated: when the
// connection ends before the answer, the outcome is unknown.
func (c *Client) Call(ctx context.Context, name string, data []byte) ([]byte, error) {
	rsp := &im.CallRsp{}
	err := c.ask(ctx, im.Cmd_CALL, &im.Call{Name: name, Data: data}, rsp)
	return rsp.Data, err
}

// Logout ends the session on the server, which then closes the connection; the client stops.
func (c *Client) Logout(ctx context.Context) error {
	err := c.ask(ctx, im.Cmd_LOGOUT, &im.Logout{}, nil)
	if err == nil || code.Of(err) == code.UnknownOutcome {
		c.stop(&code.Error{Code: code.CloseLoggedOut, Message: code.CloseLoggedOut.Meaning()})
		return nil
	}
	return err
}

// ServerTime is the server's clock, as well as it is known from heartbeats.
func (c *Client) ServerTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.ServerTime(time.Now())
}

// ask waits for the answer to a question. reply is filled when err is nil.
func (c *Client) ask(ctx context.Context, cmd im.Cmd, req interface {
	Marshal([]byte) ([]byte, error)
}, reply core.Reply) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callTimeout)
	}
	wait := make(chan core.Answer, 1)
	var id uint64
	var err error
	c.do(func(now time.Time) {
		if err = c.readyLocked(); err != nil {
			return
		}
		if id, err = c.core.Call(now, cmd, req, reply, deadline); err == nil {
			c.calls[id] = wait
		}
	})
	if err != nil {
		return err
	}
	select {
	case a := <-wait:
		if a.Err != nil {
			return a.Err
		}
		return nil
	case <-ctx.Done():
		c.do(func(time.Time) {
			c.core.Cancel(id)
			delete(c.calls, id)
		})
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return code.Errorf(code.Expired, "no answer to %s in time: %w", cmd, ctx.Err())
		}
		return ctx.Err()
	}
}

func (c *Client) readyLocked() error {
	switch {
	case c.closed:
		return ErrClosed
	case c.broken != nil:
		return c.broken
	case c.state == Stopped:
		return c.reason
	}
	return nil
}
