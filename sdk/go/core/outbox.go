package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// sending is an entry of the outbox on its way.
type sending struct {
	*Queued
	flying    bool   // written on this connection and not refused since
	seq       uint32 // of the newest write
	wroteAt   time.Time
	notBefore time.Time // refused: not written again until then
	after     string    // the predecessor named in the newest write
	behind    bool      // refused because its predecessor was not stored
	refusals  int       // in a row
	duplicate bool      // the acknowledgement said so
}

func (c *Core) restoreOutbox() {
	for _, q := range c.saved.Outbox {
		c.outbox = append(c.outbox, &sending{Queued: q})
		c.byID[q.ClientMsgID] = c.outbox[len(c.outbox)-1]
		c.lastN = max(c.lastN, q.N)
	}
	slices.SortFunc(c.outbox, func(a, b *sending) int {
		return cmp.Or(cmp.Compare(a.N, b.N), cmp.Compare(a.ClientMsgID, b.ClientMsgID))
	})
}

// Outbox returns what waits for its acknowledgement or has failed, in order of sending.
func (c *Core) Outbox() []Queued {
	list := make([]Queued, 0, len(c.outbox))
	for _, s := range c.outbox {
		list = append(list, *s.Queued)
	}
	return list
}

// Send puts a message, recall or edit into the outbox; the outcome is a Sent or Failed
// event. It is refused at once with BadRequest, Conflict (the id is in the outbox) or
// Overloaded (the outbox is full).
func (c *Core) Send(now time.Time, o Outgoing) error {
	if err := c.sendable(&o); err != nil {
		return err
	}
	c.lastN++
	q := &Queued{Outgoing: o, N: c.lastN, CreatedMS: now.UnixMilli()}
	s := &sending{Queued: q}
	c.outbox = append(c.outbox, s)
	c.byID[o.ClientMsgID] = s
	c.put(s)
	c.advance(now)
	return nil
}

func (c *Core) sendable(o *Outgoing) error {
	switch {
	case o.ClientMsgID == "" || len(o.ClientMsgID) > 64:
		return code.Errorf(code.BadRequest, "client_msg_id must be 1 to 64 bytes")
	case (o.Conv == "") == (o.To == ""):
		return code.Errorf(code.BadRequest, "exactly one of conv and to must be set")
	case o.Cmd == im.Cmd_NONE:
		o.Cmd = im.Cmd_SEND
	case o.Cmd == im.Cmd_SEND:
	case o.Cmd != im.Cmd_RECALL && o.Cmd != im.Cmd_EDIT:
		return code.Errorf(code.BadRequest, "%s does not go through the outbox", o.Cmd)
	case o.Target == 0 || o.Conv == "":
		return code.Errorf(code.BadRequest, "%s needs conv and the seq of the entry", o.Cmd)
	}
	if c.byID[o.ClientMsgID] != nil {
		return code.Errorf(code.Conflict, "%s is in the outbox already", o.ClientMsgID)
	}
	if len(c.outbox) >= c.cfg.OutboxLimit {
		return code.Errorf(code.Overloaded, "%d entries wait in the outbox", len(c.outbox))
	}
	return nil
}

// Retry sends a failed entry again under its id, as the newest of the outbox.
func (c *Core) Retry(now time.Time, clientMsgID string) error {
	s := c.byID[clientMsgID]
	if s == nil || s.Failed == code.OK {
		return code.Errorf(code.NotFound, "no failed entry %s", clientMsgID)
	}
	c.lastN++
	s.N, s.CreatedMS, s.Failed = c.lastN, now.UnixMilli(), code.OK
	s.notBefore, s.refusals, s.behind = time.Time{}, 0, false
	c.outbox = slices.DeleteFunc(c.outbox, func(o *sending) bool { return o == s })
	c.outbox = append(c.outbox, s)
	c.put(s)
	c.advance(now)
	return nil
}

// Discard forgets a failed entry.
func (c *Core) Discard(clientMsgID string) error {
	s := c.byID[clientMsgID]
	if s == nil || s.Failed == code.OK {
		return code.Errorf(code.NotFound, "no failed entry %s", clientMsgID)
	}
	c.forget(s)
	return nil
}

// put saves the entry before the frames of this Output leave.
func (c *Core) put(s *sending) {
	q := *s.Queued
	b := c.before()
	i := slices.IndexFunc(b.Put, func(o *Queued) bool { return o.ClientMsgID == q.ClientMsgID })
	if i >= 0 {
		b.Put[i] = &q
		return
	}
	b.Put = append(b.Put, &q)
}

// forget drops the entry, in one write with the cursor that may have moved by it.
func (c *Core) forget(s *sending) {
	delete(c.byID, s.ClientMsgID)
	c.outbox = slices.DeleteFunc(c.outbox, func(o *sending) bool { return o == s })
	c.after().Drop = append(c.after().Drop, s.ClientMsgID)
}

// dropSends: the connection is gone, whatever was written on it is written again.
func (c *Core) dropSends() {
	clear(c.limits)
	for _, s := range c.outbox {
		if s.behind {
			s.notBefore = time.Time{}
		}
		s.flying, s.behind = false, false
	}
}

// expireSends fails what has been tried for too long.
func (c *Core) expireSends(now time.Time) {
	for _, s := range c.outbox {
		if s.Failed == code.OK && c.due(now, time.UnixMilli(s.CreatedMS).Add(c.cfg.SendDeadline)) {
			c.fail(s, code.Errorf(code.Expired, "not acknowledged within %s; it may be stored", c.cfg.SendDeadline))
		}
	}
}

// fail keeps the entry for Retry or Discard. Those behind it no longer wait for it.
func (c *Core) fail(s *sending, err *code.Error) {
	s.Failed, s.flying = err.Code, false
	c.put(s)
	c.release(s)
	c.emit(Failed{ClientMsgID: s.ClientMsgID, Outgoing: s.Outgoing, Err: err})
}

// release lets the entries that waited for s go at once.
func (c *Core) release(s *sending) {
	conv := c.convOf(s)
	for _, o := range c.outbox {
		if o.behind && c.convOf(o) == conv {
			o.behind, o.notBefore = false, time.Time{}
		}
	}
}

// convOf is the conversation an entry goes to. It is exact once the user is known, and
// before that nothing is written.
func (c *Core) convOf(s *sending) string {
	if s.Conv != "" || c.saved.UID == "" {
		return s.Conv
	}
	low, high := min(c.saved.UID, s.To), max(c.saved.UID, s.To)
	return "p:" + low + ":" + high
}

// writeSends writes what may be written, oldest first. The predecessor of an entry is the
// nearest earlier one to the same conversation that is still unacknowledged (R13): an
// entry leaves only behind it, on the same connection, so a refused one holds up those
// after it and nobody else. After a refusal a conversation is tried with its oldest entry
// alone, and each one taken lets one more fly: a pipeline written again whole for every
// refusal in it would feed the very overload that refused it. Edits of one message have no such name to give: each waits until
// the one before it is settled, or the older text could be stored last.
func (c *Core) writeSends(now time.Time) {
	flying, flyingOf := 0, map[string]int{}
	for _, s := range c.outbox {
		if s.flying {
			flying++
			flyingOf[c.convOf(s)]++
		}
	}
	last := map[string]*sending{}
	changing := map[entryKey]bool{}
	for _, s := range c.outbox {
		if s.Failed != code.OK {
			continue
		}
		conv := c.convOf(s)
		before := last[conv]
		waits := false
		if s.Cmd == im.Cmd_SEND {
			last[conv] = s
		} else {
			target := entryKey{conv, s.Target}
			waits, changing[target] = changing[target], true
		}
		switch {
		case waits:
		case before != nil && !before.flying:
		case s.flying:
			if c.due(now, s.wroteAt.Add(c.cfg.RetryAfter)) {
				c.write(now, s, before)
			}
		case flying >= c.cfg.Window:
		case before != nil && c.limits[conv] > 0 && flyingOf[conv] >= c.limits[conv]:
		case s.notBefore.IsZero() || c.due(now, s.notBefore):
			c.write(now, s, before)
			flying++
			flyingOf[conv]++
		}
		if s.Failed != code.OK {
			last[conv] = before
		}
	}
}

// entryKey names an entry of a log.
type entryKey struct {
	conv string
	seq  uint64
}

// write raises the attempt, saves it and writes the entry, or fails it if it is too large.
func (c *Core) write(now time.Time, s, before *sending) {
	s.Attempt++
	b := c.frameOf(s, before)
	if size := len(encode(b)); size > c.maxBody {
		c.fail(s, code.Errorf(code.TooLarge, "a body of %d bytes, the server takes %d", size, c.maxBody))
		return
	}
	s.flying, s.wroteAt, s.behind, s.notBefore = true, now, false, time.Time{}
	s.after = before.id()
	c.put(s)
	id := s.ClientMsgID
	k := &call{}
	seq := c.request(now, s.Cmd, b, k)
	s.seq = seq
	k.done = func(now time.Time, a answer) { c.onSendAnswer(now, id, seq, a) }
	c.due(now, now.Add(c.cfg.RetryAfter))
}

func (c *Core) frameOf(s, before *sending) body {
	if s.Cmd != im.Cmd_SEND {
		return &im.Modify{
			ClientMsgId: s.ClientMsgID, Conv: s.Conv, Seq: s.Target,
			Text: s.Text, Data: s.Data, Attempt: s.Attempt,
		}
	}
	return &im.Send{
		ClientMsgId: s.ClientMsgID, Attempt: s.Attempt, Conv: s.Conv, To: s.To, Kind: s.Kind,
		Text: s.Text, Data: s.Data, DisplayedSeq: s.Displayed, NoOfflinePush: s.Silent,
		After: before.id(),
	}
}

// id of an entry, "" of none.
func (s *sending) id() string {
	if s == nil {
		return ""
	}
	return s.ClientMsgID
}

// onSendAnswer takes the answer to one write of an entry. Only the newest write's refusal
// counts: an acknowledgement counts whichever write it answers.
func (c *Core) onSendAnswer(now time.Time, id string, seq uint32, a answer) {
	s := c.byID[id]
	if a.err == nil {
		var ack im.SendAck
		if err := ack.Unmarshal(a.body); err != nil {
			c.unreadable(now, im.Cmd_SEND)
			return
		}
		c.onSendAck(now, s, &ack)
		return
	}
	if s == nil || s.Failed != code.OK || s.seq != seq || !s.flying {
		return
	}
	switch {
	case a.err.Code == code.OutOfOrder:
		s.flying, s.behind = false, true
		c.limits[c.convOf(s)] = 1
		if c.predecessor(s).id() != s.after {
			s.refusals = 0 // what it waited for has been settled or has failed: at once, behind another
			return
		}
		s.notBefore = now.Add(c.resendAfter(s.refusals, a.err.RetryAfter))
		s.refusals++
	case a.err.Code.Retryable():
		s.flying = false
		c.limits[c.convOf(s)] = 1
		s.notBefore = now.Add(c.resendAfter(s.refusals, a.err.RetryAfter))
		s.refusals++
	default:
		c.fail(s, a.err)
	}
}

// predecessor is the nearest earlier unacknowledged entry to the same conversation.
func (c *Core) predecessor(s *sending) *sending {
	conv := c.convOf(s)
	var found *sending
	for _, o := range c.outbox {
		if o == s {
			break
		}
		if o.Failed == code.OK && o.Cmd == im.Cmd_SEND && c.convOf(o) == conv {
			found = o
		}
	}
	return found
}

// onSendAck takes an acknowledgement as the change that it is: own version, own entry, and
// whatever others wrote up to last_seq is a gap (R11). s is nil when the entry came by
// another way before.
func (c *Core) onSendAck(now time.Time, s *sending, ack *im.SendAck) {
	row := &im.Conversation{
		Conv: ack.Conv, Version: ack.Version, LastSeq: max(ack.LastSeq, ack.Seq),
		ReadSeq: ack.ReadSeq, Unread: ack.Unread,
	}
	var m *im.Message
	if s != nil {
		s.duplicate = ack.Duplicate
		m = c.stored(s, ack)
		row.Messages = []*im.Message{m}
	}
	if ack.Conv != "" && ack.Seq != 0 {
		c.take(now, change{epoch: ack.Epoch, row: row, partial: true})
	}
	if s != nil && c.byID[s.ClientMsgID] == s {
		c.early(now, s, m, ack)
	}
}

// early settles an entry whose change has to wait for an earlier version: the user need
// not. The entry is held from now on.
func (c *Core) early(now time.Time, s *sending, m *im.Message, ack *im.SendAck) {
	if ack.Conv == "" || ack.Seq == 0 {
		c.fail(s, code.Errorf(code.Internal, "the server acknowledged without conv and seq"))
		return
	}
	c.fill(now, &im.Conversation{Conv: ack.Conv, Messages: []*im.Message{m}})
	if c.byID[s.ClientMsgID] == s && m.Seq <= c.logs[ack.Conv].Floor {
		c.settled(s, m)
	} // else it was modified meanwhile: HISTORY brings it as it is now
}

// stored is the entry as the log has it.
func (c *Core) stored(s *sending, ack *im.SendAck) *im.Message {
	m := &im.Message{
		Conv: strings.Clone(ack.Conv), Seq: ack.Seq, Sender: c.saved.UID, ClientMsgId: s.ClientMsgID,
		Kind: s.Kind, Text: s.Text, Data: s.Data, CreatedMs: ack.CreatedMs,
	}
	switch s.Cmd {
	case im.Cmd_RECALL:
		m.Kind, m.TargetSeq, m.Text, m.Data = im.Kind_EVENT_RECALL, s.Target, "", nil
	case im.Cmd_EDIT:
		m.Kind, m.TargetSeq = im.Kind_EVENT_EDIT, s.Target
	}
	if m.Kind == im.Kind_UNSPECIFIED {
		m.Kind = im.Kind_TEXT
	}
	return m
}

// widen lets one more fly: one was taken.
func (c *Core) widen(conv string) {
	if n := c.limits[conv]; n > 0 && n < c.cfg.Window {
		c.limits[conv]++
	} else {
		delete(c.limits, conv)
	}
}

// settled ends an entry: its message is stored as m.
func (c *Core) settled(s *sending, m *im.Message) {
	c.forget(s)
	c.widen(c.convOf(s))
	c.release(s)
	c.emit(Sent{ClientMsgID: s.ClientMsgID, Message: m, Duplicate: s.duplicate})
}
