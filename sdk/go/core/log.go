package core

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// Verify of a Conv after RESET.
const (
	unconfirmed = "unconfirmed" // the server has not named the conversation yet
	uncompared  = "uncompared"  // it has; the newest entries are still to be compared
)

// log is a Conv with what is not kept.
type log struct {
	*Conv
	dirty bool
	fresh map[uint64]Ref // refs since the last delta
	touch uint64         // recency

	compared uint64 // up to where the newest entries were, while Verify is uncompared
	inGaps   bool
	fetching bool
	due      time.Time
	tries    int
}

func (c *Core) restoreLogs() {
	for _, id := range slices.Sorted(maps.Keys(c.saved.Convs)) {
		v := c.saved.Convs[id]
		if v.Refs == nil {
			v.Refs = map[uint64]Ref{}
		}
		l := &log{Conv: v, fresh: map[uint64]Ref{}}
		c.logs[id] = l
		c.noteGap(l, time.Time{})
	}
}

// log returns a conversation's log; met tells that it is new here.
func (c *Core) log(id string) (l *log, met bool) {
	l = c.logs[id]
	if l == nil {
		id = strings.Clone(id)
		l = &log{Conv: &Conv{ID: id, Refs: map[uint64]Ref{}}, fresh: map[uint64]Ref{}}
		c.logs[id] = l
		met = true
	}
	c.touches++
	l.touch = c.touches
	return l, met
}

// mark says that the log must be saved.
func (c *Core) mark(l *log) {
	if !l.dirty {
		l.dirty = true
		c.dirty = append(c.dirty, l)
	}
}

// delta is the log for a Change: whole, with the refs that are new.
func (l *log) delta() *Conv {
	d := *l.Conv
	d.Held = slices.Clone(l.Held)
	d.Refs, l.fresh = l.fresh, map[uint64]Ref{}
	l.dirty = false
	return &d
}

// hold records an entry as held.
func (c *Core) hold(l *log, seq uint64, r Ref) {
	r.ClientMsgID = strings.Clone(r.ClientMsgID)
	l.Held = l.Held.Add(seq, seq)
	l.Last = max(l.Last, seq)
	l.Refs[seq], l.fresh[seq] = r, r
	if len(l.Refs) > 2*KeepRefs {
		l.trimRefs()
	}
	c.mark(l)
}

// learn advances Mods over what is held without a hole: every modification is an entry of
// the log.
func (l *log) learn() { l.Mods = max(l.Mods, l.Held.Through(l.Mods+1)) }

// entry takes one message of a conversation, from wherever it comes. False: it is a copy
// from before a modification that is known here (R25); it stays a gap, for HISTORY to bring
// as it is now.
func (c *Core) entry(now time.Time, l *log, m *im.Message) bool {
	m.Conv = l.ID
	c.patch(m)
	ref := Ref{ClientMsgID: m.ClientMsgId, Mod: m.ModSeq}
	switch {
	case m.Seq == 0:
	case m.Seq <= l.Floor: // not kept here, but the application may have it
		if m.ModSeq > 0 {
			c.emit(Modified{l.ID, m.Seq, m.ModSeq, m.Recalled, m.Text, m.Data})
		}
	case l.Held.Has(m.Seq):
		c.again(now, l, m, ref)
	case l.Refs[m.Seq].Mod > m.ModSeq:
		l.Last = max(l.Last, m.Seq)
		c.mark(l)
		return false
	default:
		c.hold(l, m.Seq, ref)
		l.learn()
		if s := c.own(m); s != nil {
			c.settled(s, m)
		} else {
			c.emit(Received{m})
		}
		c.modifies(l, m)
	}
	return true
}

// own is the outbox entry that m is the stored self of.
func (c *Core) own(m *im.Message) *sending {
	if m.Sender != c.saved.UID || m.ClientMsgId == "" {
		return nil
	}
	return c.byID[m.ClientMsgId]
}

// again takes an entry that is held already: a copy with a higher mod_seq wins over
// dedupe (R25); another entry in its place means that the server's copy is another.
func (c *Core) again(now time.Time, l *log, m *im.Message, ref Ref) {
	held, known := l.Refs[m.Seq]
	switch {
	case known && held.ClientMsgID != ref.ClientMsgID && held.ClientMsgID != "" && ref.ClientMsgID != "":
		c.hold(l, m.Seq, ref)
		c.emit(Replaced{m})
		c.askSync(now, 0)
	case ref.Mod > held.Mod:
		if known {
			c.hold(l, m.Seq, ref)
		}
		c.emit(Modified{l.ID, m.Seq, m.ModSeq, m.Recalled, m.Text, m.Data})
	}
}

// modifies applies a recall or edit to its target.
func (c *Core) modifies(l *log, m *im.Message) {
	if m.Kind != im.Kind_EVENT_RECALL && m.Kind != im.Kind_EVENT_EDIT || m.TargetSeq == 0 {
		return
	}
	mod := Modified{Conv: l.ID, Seq: m.TargetSeq, ModSeq: m.Seq, Recalled: m.Kind == im.Kind_EVENT_RECALL}
	if !mod.Recalled {
		mod.Text, mod.Data = m.Text, m.Data
	}
	c.learnt(&mod)
	if l.Refs[mod.Seq].Mod < mod.ModSeq {
		c.remember(l, &mod)
		c.emit(mod)
	}
}

// remember notes the modification of an entry, also of one that is not held yet. Of those
// too old for their identity to be kept only what is missing matters.
func (c *Core) remember(l *log, mod *Modified) {
	ref, known := l.Refs[mod.Seq]
	if !known && (l.Held.Has(mod.Seq) || mod.Seq <= l.Floor) {
		return
	}
	ref.Mod = mod.ModSeq
	l.Refs[mod.Seq], l.fresh[mod.Seq] = ref, ref
	c.mark(l)
}

// modified takes an entry as it is now, from the list of later modifications.
func (c *Core) modified(now time.Time, m *im.Message) {
	l := c.logs[m.Conv]
	if l == nil || m.ModSeq == 0 {
		return
	}
	mod := Modified{l.ID, m.Seq, m.ModSeq, m.Recalled, m.Text, m.Data}
	c.learnt(&mod)
	switch {
	case l.Held.Has(m.Seq):
		c.again(now, l, m, Ref{ClientMsgID: m.ClientMsgId, Mod: m.ModSeq})
	case m.Seq <= l.Floor:
		c.emit(mod)
	case l.Refs[m.Seq].Mod < m.ModSeq:
		c.remember(l, &mod)
	}
}

// learnt keeps a modification for the answers under way that were read before it.
func (c *Core) learnt(m *Modified) {
	if c.reads == 0 {
		return
	}
	of := c.late[m.Conv]
	if of == nil {
		of = map[uint64]*Modified{}
		c.late[m.Conv] = of
	}
	if old := of[m.Seq]; old == nil || old.ModSeq < m.ModSeq {
		of[m.Seq] = m
	}
}

// patch brings a copy that may have been read before a modification up to it.
func (c *Core) patch(m *im.Message) {
	mod := c.late[m.Conv][m.Seq]
	if mod == nil || mod.ModSeq <= m.ModSeq {
		return
	}
	m.ModSeq, m.Recalled, m.Text, m.Data = mod.ModSeq, mod.Recalled, mod.Text, mod.Data
}

// readDone counts an answer that was read from logs.
func (c *Core) readDone() {
	if c.reads--; c.reads <= 0 {
		c.reads = 0
		clear(c.late)
	}
}

// fill takes the messages of a change and records what it does not bring as a gap.
func (c *Core) fill(now time.Time, row *im.Conversation) *log {
	l, met := c.log(row.Conv)
	if met {
		c.meet(l, row)
	}
	for _, m := range row.Messages {
		c.entry(now, l, m)
	}
	if row.LastSeq > l.Last {
		l.Last = row.LastSeq
		c.mark(l)
	}
	c.readPositions(l, row)
	c.noteGap(l, now.Add(c.cfg.GapDelay))
	return l
}

// meet decides where a conversation begins on this device: with what the first SYNC
// brought of it, or with its first entry if it began later.
func (c *Core) meet(l *log, row *im.Conversation) {
	c.mark(l)
	if c.cfg.FullHistory || row.Version == 0 || row.Version > c.saved.Cursor.Base {
		return
	}
	l.Floor = row.LastSeq
	for _, m := range row.Messages {
		l.Floor = min(l.Floor, max(m.Seq, 1)-1)
	}
	l.Last, l.Mods = l.Floor, row.LastSeq
}

// readPositions only rise (P12).
func (c *Core) readPositions(l *log, row *im.Conversation) {
	if row.ReadSeq > l.Read {
		l.Read = row.ReadSeq
		c.mark(l)
		c.emit(Read{Conv: l.ID, Seq: l.Read})
	}
	if row.PeerReadSeq > l.PeerRead {
		l.PeerRead = row.PeerReadSeq
		c.mark(l)
		c.emit(Read{Conv: l.ID, Seq: l.PeerRead, ByPeer: true})
	}
}

// noteGap puts the log among those to fetch, if it lacks anything.
func (c *Core) noteGap(l *log, due time.Time) {
	if l.inGaps {
		return
	}
	if _, missing := c.wanted(l); missing {
		l.inGaps, l.due, l.tries = true, due, 0
		c.gaps = append(c.gaps, l)
	}
}

// historyLimit is the most that one HISTORY answers.
const historyLimit = 200

// wanted is what is to be fetched of the log next, newest first.
func (c *Core) wanted(l *log) (Range, bool) {
	switch l.Verify {
	case unconfirmed:
		return Range{}, false
	case uncompared:
		if from := max(l.Floor, l.compared, max(l.Last, KeepRefs)-KeepRefs); l.Last > from {
			return Range{from + 1, l.Last}, true
		}
	}
	return l.Held.LastMissing(l.Floor+1, l.Last, historyLimit)
}

// fetchGaps asks for what is missing, a few conversations at a time.
func (c *Core) fetchGaps(now time.Time) {
	c.gaps = slices.DeleteFunc(c.gaps, func(l *log) bool {
		if l.fetching {
			return false
		}
		_, missing := c.wanted(l)
		l.inGaps = missing
		return !missing
	})
	for _, l := range c.gaps {
		if c.fetching >= c.cfg.Fetches {
			return
		}
		if !l.fetching && c.due(now, l.due) {
			c.fetch(now, l)
		}
	}
}

func (c *Core) fetch(now time.Time, l *log) {
	r, _ := c.wanted(l)
	verify := l.Verify == uncompared
	l.fetching = true
	c.fetching++
	c.reads++
	done := func() {
		l.fetching = false
		c.fetching--
		c.readDone()
	}
	h := &im.History{Conv: l.ID, FromSeq: r.From, ToSeq: r.To, Limit: historyLimit, Mods: true, ModsKnown: l.Mods}
	c.request(now, im.Cmd_HISTORY, h, &call{
		done: func(now time.Time, a answer) {
			defer done()
			if a.err != nil {
				c.fetchRefused(now, l, r, a.err)
				return
			}
			var rsp im.HistoryRsp
			if err := rsp.Unmarshal(a.body); err != nil {
				c.unreadable(now, im.Cmd_HISTORY)
				return
			}
			c.fetched(now, l, r, &rsp, verify)
		},
		late: func(now time.Time) {
			done()
			c.fetchLater(now, l, 0)
		},
	})
}

// fetched fills a gap. What the server does not return although it read so far does not
// exist for this user. When it says that there is more, it has cut the range short, at either
// end: then only what lies between the entries it returned is known.
func (c *Core) fetched(now time.Time, l *log, asked Range, rsp *im.HistoryRsp, verify bool) {
	oldest, newest, stale, unsure := asked.To+1, asked.From-1, false, false
	for _, m := range rsp.Messages {
		if m.Seq < asked.From || m.Seq > asked.To {
			continue
		}
		oldest, newest = min(oldest, m.Seq), max(newest, m.Seq)
		if verify {
			unsure = !c.compare(l, m, rsp.ReadAtSeq) || unsure
		}
		stale = !c.entry(now, l, m) || stale
	}
	for _, m := range rsp.Modified {
		m.Conv = l.ID
		c.modified(now, m)
	}
	from, to := asked.From, min(asked.To, rsp.ReadAtSeq)
	behind := to < asked.To
	if rsp.More {
		from, to = max(from, oldest), min(to, newest)
	}
	if from <= to && !stale {
		l.Held = l.Held.Add(from, to)
		l.learn()
	}
	if verify && !unsure {
		if l.compared = newest; !rsp.More || newest >= asked.To {
			l.compared, l.Verify = 0, ""
		}
	}
	c.mark(l)
	if from > to || behind || stale || unsure {
		c.fetchLater(now, l, 0) // no progress: not visible there yet
		return
	}
	l.due, l.tries = now, 0
}

// compare makes the server's copy of a held entry win whatever its mod_seq, after RESET. False:
// the copy was read before the modification that is known here, so it does not deny it (R25).
func (c *Core) compare(l *log, m *im.Message, readAt uint64) bool {
	held, known := l.Refs[m.Seq]
	switch {
	case !known || held.ClientMsgID != m.ClientMsgId:
	case held.Mod > readAt:
		return false
	case held.Mod > m.ModSeq, held.Lost && m.ModSeq == 0:
		c.hold(l, m.Seq, Ref{ClientMsgID: m.ClientMsgId, Mod: m.ModSeq})
		c.emit(Replaced{m})
	}
	return true
}

func (c *Core) fetchLater(now time.Time, l *log, asked time.Duration) {
	l.due = now.Add(max(c.cfg.GapDelay, c.resendAfter(l.tries, asked)))
	l.tries++
}

func (c *Core) fetchRefused(now time.Time, l *log, r Range, err *code.Error) {
	if err.Code.Retryable() {
		c.fetchLater(now, l, err.RetryAfter)
		return
	}
	// It will not become better: give the range up, loudly.
	l.Held, l.Verify, l.compared = l.Held.Add(r.From, r.To), "", 0
	c.mark(l)
	c.problem(err.Code, "history %s %d..%d: %s", l.ID, r.From, r.To, err.Message)
}

// modsKnown names, for the most recently used conversations, up to which modification
// they are known, within a number of bytes.
func (c *Core) modsKnown(room int) []*im.ModsKnown {
	recent := make([]*log, 0, len(c.logs))
	for _, l := range c.logs {
		if l.Mods > 0 {
			recent = append(recent, l)
		}
	}
	slices.SortFunc(recent, func(a, b *log) int {
		return cmp.Or(cmp.Compare(b.touch, a.touch), cmp.Compare(a.ID, b.ID))
	})
	var known []*im.ModsKnown
	for _, l := range recent {
		if room -= len(l.ID) + 16; room < 0 {
			break
		}
		known = append(known, &im.ModsKnown{Conv: l.ID, Seq: l.Mods})
	}
	return known
}
