package core

import (
	"slices"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// Reply is a generated message that a response is decoded into.
type Reply interface{ Unmarshal([]byte) error }

// Answer is the outcome of a Call.
type Answer struct {
	ID    uint64
	Reply Reply // as given to Call, filled if Err is nil
	Err   *code.Error
}

// asksLimit bounds the calls of the user that wait.
const asksLimit = 256

// ask is a call of the user. It survives reconnects until its deadline.
type ask struct {
	id       uint64
	cmd      im.Cmd
	body     body
	reply    Reply
	deadline time.Time
	flying   bool
}

// Call asks the server something: HISTORY, CONVERSATIONS, CONTACTS, PRESENCE, UNREAD,
// SETTINGS, BLOCK, CALL, LOGOUT. It waits for a connection and asks again on the next one,
// but for CALL and LOGOUT, whose effect may not be had twice: they answer UnknownOutcome.
// The answer comes as an Answer of this id; Expired when the deadline passes. reply may be
// nil.
func (c *Core) Call(now time.Time, cmd im.Cmd, b body, reply Reply, deadline time.Time) (id uint64, err error) {
	if len(c.asks) >= asksLimit {
		return 0, code.Errorf(code.Overloaded, "%d requests wait", len(c.asks))
	}
	c.lastID++
	c.asks = append(c.asks, &ask{id: c.lastID, cmd: cmd, body: b, reply: reply, deadline: deadline})
	id = c.lastID
	c.advance(now)
	return id, nil
}

// Cancel forgets a call: nobody waits for it.
func (c *Core) Cancel(id uint64) {
	c.asks = slices.DeleteFunc(c.asks, func(a *ask) bool { return a.id == id })
}

// SendTyping tells the others of a conversation that this user writes, if online.
func (c *Core) SendTyping(now time.Time, conv string, stopped bool) {
	if c.stage == online {
		c.oneway(now, im.Cmd_TYPING, &im.Typing{Conv: conv, Stopped: stopped})
	}
	c.advance(now)
}

func (c *Core) writeAsks(now time.Time) {
	for _, a := range slices.Clone(c.asks) {
		if !a.flying {
			c.writeAsk(now, a)
		}
	}
}

func (c *Core) writeAsk(now time.Time, a *ask) {
	if size := len(encode(a.body)); size > c.maxBody {
		c.finish(a, code.Errorf(code.TooLarge, "a body of %d bytes, the server takes %d", size, c.maxBody))
		return
	}
	a.flying = true
	reads := a.cmd == im.Cmd_HISTORY || a.cmd == im.Cmd_CONVERSATIONS
	if reads {
		c.reads++
	}
	c.request(now, a.cmd, a.body, &call{done: func(now time.Time, r answer) {
		if reads {
			defer c.readDone()
		}
		c.onAnswer(now, a, r)
	}})
}

func (c *Core) onAnswer(now time.Time, a *ask, r answer) {
	if !slices.Contains(c.asks, a) { // cancelled or expired: reply is the caller's again
		if r.err == nil {
			c.told(now, a.cmd, r.body)
		}
		return
	}
	if r.err != nil {
		c.finish(a, r.err)
		return
	}
	if a.reply != nil {
		if err := a.reply.Unmarshal(r.body); err != nil {
			c.finish(a, code.Errorf(code.Internal, "the answer to %s cannot be read: %w", a.cmd, err))
			c.unreadable(now, a.cmd)
			return
		}
	}
	switch reply := a.reply.(type) {
	case *im.HistoryRsp:
		c.patchHistory(a, reply)
	case *im.ConversationsRsp:
		for _, row := range reply.Conversations {
			for _, m := range row.Messages {
				m.Conv = row.Conv
				c.patch(m)
			}
		}
	case *im.SettingsAck:
		c.takeSettings(now, reply)
	}
	c.finish(a, nil)
}

// takeSettings takes the change that an answer to SETTINGS tells of.
func (c *Core) takeSettings(now time.Time, ack *im.SettingsAck) {
	if ack.Conversation == nil {
		return
	}
	row := *ack.Conversation // the answer belongs to the caller
	row.Version = ack.Version
	c.take(now, change{epoch: ack.Epoch, row: &row})
}

// patchHistory: a slow answer must not bring back what was recalled meanwhile (R25).
func (c *Core) patchHistory(a *ask, rsp *im.HistoryRsp) {
	h, ok := a.body.(*im.History)
	if !ok {
		return
	}
	for _, m := range rsp.Messages {
		m.Conv = h.Conv
		c.patch(m)
	}
	for _, m := range rsp.Modified {
		m.Conv = h.Conv
		c.patch(m)
	}
}

// finish answers, unless the call was cancelled.
func (c *Core) finish(a *ask, err *code.Error) {
	i := slices.Index(c.asks, a)
	if i < 0 {
		return
	}
	c.asks = slices.Delete(c.asks, i, i+1)
	c.out.Answers = append(c.out.Answers, Answer{ID: a.id, Reply: a.reply, Err: err})
}

func (c *Core) expireAsks(now time.Time) {
	for _, a := range slices.Clone(c.asks) {
		if c.due(now, a.deadline) {
			c.finish(a, code.Errorf(code.Expired, "no answer to %s in time", a.cmd))
		}
	}
}

func (c *Core) dropAsks() {
	for _, a := range slices.Clone(c.asks) {
		if a.flying && (a.cmd == im.Cmd_CALL || a.cmd == im.Cmd_LOGOUT) {
			c.finish(a, code.Errorf(code.UnknownOutcome, "the connection ended before %s was answered", a.cmd))
		}
		a.flying = false
	}
}

// mark is a READ under way: the newest position of a conversation.
type mark struct {
	conv      string
	seq       uint64
	flying    bool
	notBefore time.Time
	refusals  int
}

// MarkRead moves this user's read position of a conversation up to seq. It is repeated
// until the server has it; the Read event tells when. A lower one than before is nothing.
func (c *Core) MarkRead(now time.Time, conv string, seq uint64) {
	if l := c.logs[conv]; l != nil && l.Read >= seq {
		return
	}
	i := slices.IndexFunc(c.marks, func(m *mark) bool { return m.conv == conv })
	switch {
	case i < 0:
		c.marks = append(c.marks, &mark{conv: strings.Clone(conv), seq: seq})
	case c.marks[i].seq < seq:
		c.marks[i].seq = seq
	default:
		return
	}
	c.advance(now)
}

func (c *Core) writeMarks(now time.Time) {
	for _, m := range c.marks {
		if m.flying || !m.notBefore.IsZero() && !c.due(now, m.notBefore) {
			continue
		}
		m.flying = true
		seq := m.seq
		c.request(now, im.Cmd_READ, &im.Read{Conv: m.conv, Seq: seq}, &call{
			done: func(now time.Time, a answer) { c.onReadAck(now, m, seq, a) },
			late: func(now time.Time) { m.flying = false },
		})
	}
}

func (c *Core) onReadAck(now time.Time, m *mark, seq uint64, a answer) {
	m.flying = false
	if a.err != nil && a.err.Code.Retryable() {
		m.notBefore = now.Add(c.resendAfter(m.refusals, a.err.RetryAfter))
		m.refusals++
		return
	}
	if m.seq == seq {
		c.marks = slices.DeleteFunc(c.marks, func(o *mark) bool { return o == m })
	}
	m.notBefore, m.refusals = time.Time{}, 0
	if a.err != nil {
		c.problem(a.err.Code, "read %s up to %d: %s", m.conv, seq, a.err.Message)
		return
	}
	var ack im.ReadAck
	if err := ack.Unmarshal(a.body); err != nil {
		c.unreadable(now, im.Cmd_READ)
		return
	}
	c.takeRead(now, &ack)
}

// takeRead takes the change that an answer to READ tells of.
func (c *Core) takeRead(now time.Time, ack *im.ReadAck) {
	if ack.Conv == "" || c.logs[ack.Conv] == nil {
		return
	}
	row := &im.Conversation{
		Conv: ack.Conv, Version: ack.Version, LastSeq: ack.LastSeq, ReadSeq: ack.ReadSeq, Unread: ack.Unread,
	}
	c.take(now, change{epoch: ack.Epoch, row: row, partial: true})
}
