package core

import (
	"cmp"
	"slices"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// change is one row of the user's log that came before those between.
type change struct {
	epoch   uint64
	row     *im.Conversation
	partial bool
}

// aheadLimit bounds what waits for the versions before it; SYNC brings the rest.
const aheadLimit = 512

// syncing is the state of SYNC on this connection.
type syncing struct {
	busy   bool      // asked, not answered
	due    time.Time // wanted at; zero = not wanted
	must   bool      // wanted even if the missing version arrives meanwhile
	tries  int       // that failed in a row
	resets int       // in a row
}

func (c *Core) onPush(now time.Time, p *im.Push) {
	for _, row := range p.Changes {
		ch := change{epoch: p.Epoch, row: row}
		switch c.stage {
		case online:
			c.take(now, ch)
		case authenticating: // the route stands before SYNC is answered
			c.wait(ch)
		}
	}
}

// take applies the rules of receiving to one change: the next one is applied, an older
// one still fills gaps (R11), one ahead waits for those between or for SYNC.
func (c *Core) take(now time.Time, ch change) {
	here := c.saved.Cursor
	switch v := ch.row.Version; {
	case ch.row.Conv == "":
	case v == 0:
		c.fill(now, ch.row)
	case ch.epoch != here.Epoch:
		c.askSync(now, 0)
	case v <= here.Version:
		c.fill(now, ch.row)
		c.unheard(now, v)
	case v == here.Version+1:
		c.apply(now, ch)
		c.catchUp(now)
	default:
		c.wait(ch)
		c.askSync(now, c.cfg.SyncDelay)
	}
}

func (c *Core) wait(ch change) {
	if len(c.ahead) < aheadLimit && ch.row.Conv != "" {
		c.ahead = append(c.ahead, ch)
	}
}

// apply takes the change that follows the cursor. Cursor and gaps move together: they
// leave in one Change (R11).
func (c *Core) apply(now time.Time, ch change) {
	c.named(ch.row) // SYNC goes on behind it
	c.fill(now, ch.row)
	c.moveTo(now, Cursor{c.saved.Cursor.Epoch, ch.row.Version, c.saved.Cursor.Base})
	c.row(ch.row, ch.partial)
}

// moveTo sets the cursor, which is then to be acknowledged.
func (c *Core) moveTo(now time.Time, to Cursor) {
	if to == c.saved.Cursor {
		return
	}
	c.saved.Cursor = to
	c.moved = true
	if c.ackDue.IsZero() {
		c.ackDue = now.Add(c.cfg.AckDelay)
	}
}

func (c *Core) row(row *im.Conversation, partial bool) {
	bare := *row
	bare.Messages = nil
	c.emit(Row{Conversation: &bare, Partial: partial})
}

// catchUp applies what waited, as far as it now follows.
func (c *Core) catchUp(now time.Time) {
	slices.SortStableFunc(c.ahead, func(a, b change) int { return cmp.Compare(a.row.Version, b.row.Version) })
	n := 0
	for _, ch := range c.ahead {
		if ch.epoch != c.saved.Cursor.Epoch {
			n++ // of a log that is not ours any more; SYNC has told
			continue
		}
		if ch.row.Version > c.saved.Cursor.Version+1 {
			break
		}
		n++
		if ch.row.Version == c.saved.Cursor.Version+1 {
			c.apply(now, ch)
		} else {
			c.fill(now, ch.row)
		}
	}
	c.ahead = slices.Delete(c.ahead, 0, n)
	if len(c.ahead) == 0 && !c.sync.must {
		c.sync.due = time.Time{} // what was missing has come
	}
}

// askSync wants a SYNC after a delay, or earlier if one is wanted already.
func (c *Core) askSync(now time.Time, delay time.Duration) {
	at := now.Add(delay)
	if c.sync.due.IsZero() || at.Before(c.sync.due) {
		c.sync.due = at
	}
	c.sync.must = c.sync.must || delay == 0
}

// Sync asks for what changed, at once if online; at login this happens by itself. Synced
// tells when it is done.
func (c *Core) Sync(now time.Time) {
	if c.stage == online {
		c.askSync(now, 0)
	}
	c.advance(now)
}

func (c *Core) syncIfDue(now time.Time) {
	if c.sync.busy || !c.due(now, c.sync.due) {
		return
	}
	c.sync.busy, c.sync.must, c.sync.due = true, false, time.Time{}
	asked := c.saved.Cursor
	s := &im.Sync{
		Epoch: asked.Epoch, Cursor: asked.Version,
		Limit: c.cfg.SyncLimit, Messages: c.cfg.SyncMessages, ModsKnown: c.modsKnown(syncModsBytes),
	}
	c.reads++
	c.request(now, im.Cmd_SYNC, s, &call{
		done: func(now time.Time, a answer) {
			defer c.readDone()
			c.sync.busy = false
			if a.err != nil {
				c.syncRefused(now, a.err)
				return
			}
			var rsp im.SyncRsp
			if err := rsp.Unmarshal(a.body); err != nil {
				c.unreadable(now, im.Cmd_SYNC)
				return
			}
			c.onSync(now, &rsp, asked)
		},
		late: func(now time.Time) {
			c.readDone()
			c.sync.busy = false
			c.syncLater(now, 0)
		},
	})
}

func (c *Core) syncLater(now time.Time, asked time.Duration) {
	c.sync.due, c.sync.must = now.Add(c.resendAfter(c.sync.tries, asked)), true
	c.sync.tries++
}

func (c *Core) syncRefused(now time.Time, err *code.Error) {
	if err.Code == code.Reset {
		c.reset(now, 0, 0)
		return
	}
	c.emit(Problem{err})
	c.syncLater(now, err.RetryAfter)
}

// onSync applies the answer to SYNC or the one inside AUTH_ACK: every change after the
// asked cursor up to next_cursor, one row per conversation.
func (c *Core) onSync(now time.Time, rsp *im.SyncRsp, asked Cursor) {
	here := c.saved.Cursor
	fresh := here.Epoch == 0 // not Base: it may well have been 0
	if rsp.MustReset || rsp.Epoch != here.Epoch && !fresh {
		c.reset(now, rsp.Epoch, rsp.Head)
		return
	}
	if fresh {
		here.Epoch, here.Base = rsp.Epoch, rsp.Head
		c.moveTo(now, here)
	}
	for _, row := range rsp.Changes {
		c.synced(now, row)
	}
	for _, m := range rsp.Modified {
		c.modified(now, m)
	}
	stuck := rsp.More && rsp.NextCursor <= asked.Version
	here = c.saved.Cursor
	here.Version = max(here.Version, rsp.NextCursor)
	c.moveTo(now, here)
	switch {
	case stuck:
		c.problem(code.Internal, "SYNC after %d says there is more but does not move", asked.Version)
		c.syncLater(now, 0)
	case rsp.More:
		c.sync.tries = 0
		c.askSync(now, 0)
	default:
		c.level(now)
	}
}

// synced takes one row of a SYNC.
func (c *Core) synced(now time.Time, row *im.Conversation) {
	if row.Conv == "" {
		return
	}
	c.named(row)
	c.fill(now, row)
	if row.Version > c.saved.Cursor.Version {
		c.row(row, false)
	}
}

// level ends a SYNC: what was pushed meanwhile follows.
func (c *Core) level(now time.Time) {
	c.sync = syncing{}
	c.forgetUnconfirmed()
	c.catchUp(now)
	if len(c.ahead) > 0 {
		c.askSync(now, c.cfg.SyncDelay)
		return
	}
	c.emit(Synced{c.saved.Cursor.Epoch, c.saved.Cursor.Version})
}

// reset takes the list anew: the cursor belongs to another copy of the database. What is
// held stays until the server has named each conversation and its newest entries were
// compared. epoch 0 = not known; the next SYNC tells.
func (c *Core) reset(now time.Time, epoch, head uint64) {
	c.emit(Reset{Old: c.saved.Cursor.Epoch, New: epoch})
	for _, l := range c.logs {
		if l.Verify != unconfirmed {
			l.Verify = unconfirmed
			c.mark(l)
		}
	}
	slices.SortFunc(c.dirty, func(a, b *log) int { return cmp.Compare(a.ID, b.ID) })
	c.moveTo(now, Cursor{Epoch: epoch, Base: head})
	c.acked = Cursor{}
	c.ahead = nil
	if c.sync.resets++; c.sync.resets > 1 { // it resets again and again: not in a loop
		c.syncLater(now, 0)
		return
	}
	c.askSync(now, 0)
}

// named: a row of the list as it is now, by SYNC or as the change that follows the cursor.
func (c *Core) named(row *im.Conversation) {
	if l := c.logs[row.Conv]; l != nil && l.Verify == unconfirmed {
		c.confirm(l, row.LastSeq)
	}
}

// confirm: the server has the conversation up to last; what was held above is gone there.
func (c *Core) confirm(l *log, last uint64) {
	l.Verify, l.compared = uncompared, 0
	l.Mods = min(l.Mods, last)
	c.mark(l)
	if l.Last <= last {
		return
	}
	l.Last = last
	l.Floor = min(l.Floor, last)
	l.Held = l.Held.Below(last)
	l.trimRefs()
	for seq, ref := range l.Refs { // its number may be given again, to another modification
		if ref.Mod > last {
			ref.Mod, ref.Lost = 0, true
			l.Refs[seq], l.fresh[seq] = ref, ref
		}
	}
	c.emit(Removed{Conv: l.ID, After: last})
}

// forgetUnconfirmed: the whole list was read, so the server does not have these.
func (c *Core) forgetUnconfirmed() {
	var gone []string
	for id, l := range c.logs {
		if l.Verify == unconfirmed {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	for _, id := range gone {
		l := c.logs[id]
		delete(c.logs, id)
		c.gaps = slices.DeleteFunc(c.gaps, func(g *log) bool { return g == l })
		c.dirty = slices.DeleteFunc(c.dirty, func(d *log) bool { return d == l })
		c.after().Forget = append(c.after().Forget, id)
		c.emit(Removed{Conv: id})
	}
}

// unheard: the server repeats a version that was acknowledged on this connection, or is about
// to be, so it may not have heard of it.
func (c *Core) unheard(now time.Time, version uint64) {
	if version > c.acked.Version {
		return
	}
	c.acked.Version = version - 1
	if c.ackDue.IsZero() {
		c.ackDue = now.Add(c.cfg.AckDelay)
	}
}

// ackIfDue writes PUSH_ACK: the cursor that is stored, cumulative, gathered.
func (c *Core) ackIfDue(now time.Time) {
	d := c.durable
	if d.Epoch != c.saved.Cursor.Epoch || d.Version <= c.acked.Version {
		return
	}
	if !c.link.AckAtOnce && d.Version-c.acked.Version < uint64(c.cfg.AckEvery) && !c.due(now, c.ackDue) {
		return
	}
	c.acked = d
	c.ackDue = time.Time{}
	if d != c.saved.Cursor {
		c.ackDue = now.Add(c.cfg.AckDelay)
		c.due(now, c.ackDue)
	}
	c.oneway(now, im.Cmd_PUSH_ACK, &im.PushAck{Epoch: d.Epoch, Cursor: d.Version})
}
