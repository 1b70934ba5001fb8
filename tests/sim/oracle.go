package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/conv"
)

// truth is what the store holds at one moment, as the oracle reads it: with its own eyes,
// not through a das.
type truth struct {
	view  store.View
	users map[store.Key]*holding
	logs  map[store.Key][]*store.Message
}

// holding is one user's log.
type holding struct {
	head store.UserHead
	rows []store.Member
}

func (w *world) truth() (*truth, error) {
	v, err := w.cluster.store.View(context.Background())
	if err != nil {
		return nil, err
	}
	t := &truth{view: v, users: map[store.Key]*holding{}, logs: map[store.Key][]*store.Message{}}
	for tenant, uids := range w.users {
		for _, uid := range uids {
			k := store.Key{Tenant: tenant, ID: uid}
			h := &holding{}
			if h.head, err = v.User(k); err != nil {
				return nil, err
			}
			if h.rows, err = v.Members(k, 0, 0); err != nil {
				return nil, err
			}
			t.users[k] = h
		}
		for i, a := range uids {
			names := []string{"s:" + channel + ":" + a}
			for _, b := range uids[i+1:] {
				name, _ := conv.Private(a, b)
				names = append(names, name)
			}
			if err := t.read(tenant, names); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func (t *truth) read(tenant string, names []string) error {
	for _, name := range names {
		k := store.Key{Tenant: tenant, ID: name}
		log, err := t.view.Range(k, 0, ^uint64(0), 0)
		if err != nil {
			return err
		}
		if len(log) > 0 {
			t.logs[k] = log
		}
	}
	return nil
}

func (t *truth) close() { t.view.Close() }

// differences are what still keeps the world from being level: L.
func (w *world) differences() []string {
	t, err := w.truth()
	if err != nil {
		return []string{err.Error()}
	}
	defer t.close()
	var list []string
	say := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	for _, n := range w.notices {
		if len(t.logs[store.Key{Tenant: n.tenant, ID: n.conv}]) == 0 {
			say("%s to %s is not stored", n.id, n.uid)
		}
	}
	for k, log := range t.logs {
		t.compareMembers(k, log, say)
	}
	for _, d := range w.devices {
		if !d.out {
			d.compare(t, say)
		}
	}
	slices.Sort(list)
	return list
}

// compareMembers: every member's row has followed the log, and knows the other's read position.
func (t *truth) compareMembers(k store.Key, log []*store.Message, say func(string, ...any)) {
	id, _ := conv.Parse(k.ID)
	last := uint64(len(log))
	read := map[string]uint64{}
	for _, uid := range id.Members() {
		row := t.row(k, uid)
		if row == nil {
			say("%s has no row of %s", uid, k.ID)
			continue
		}
		read[uid] = row.ReadSeq
		if row.LastSeq != last {
			say("the row of %s in %s is at %d of %d", uid, k.ID, row.LastSeq, last)
		}
	}
	for _, uid := range id.Members() {
		if row := t.row(k, uid); row != nil && row.PeerReadSeq != read[id.Peer(uid)] {
			say("%s in %s believes the peer has read %d, who has read %d", uid, k.ID, row.PeerReadSeq, read[id.Peer(uid)])
		}
	}
}

func (t *truth) row(k store.Key, uid string) *store.Member {
	h := t.users[store.Key{Tenant: k.Tenant, ID: uid}]
	if h == nil {
		return nil
	}
	for i := range h.rows {
		if h.rows[i].Conv == k.ID {
			return &h.rows[i]
		}
	}
	return nil
}

// compare: the device is online, has sent what it had to, and shows all there is.
func (d *device) compare(t *truth, say func(string, ...any)) {
	if !d.core.Online() {
		say("%s is not online", d.id)
		return
	}
	for _, q := range d.core.Outbox() {
		if q.Failed == code.OK {
			say("%s still has %s in its outbox", d.id, q.ClientMsgID)
		}
	}
	h := t.users[store.Key{Tenant: d.tenant, ID: d.uid}]
	if at := d.core.Cursor().Version; at != h.head.Version {
		say("%s is at version %d of %d", d.id, at, h.head.Version)
	}
	for i := range h.rows {
		row := &h.rows[i]
		d.compareScreen(row, t.logs[store.Key{Tenant: d.tenant, ID: row.Conv}], say)
	}
	for name := range d.app.convs {
		if !slices.ContainsFunc(h.rows, func(m store.Member) bool { return m.Conv == name }) {
			say("%s shows %s, of which its user has no row", d.id, name)
		}
	}
}

// compareScreen: what is shown of one conversation is what its log holds, and the row is
// the user's.
func (d *device) compareScreen(row *store.Member, log []*store.Message, say func(string, ...any)) {
	s := d.app.screen(row.Conv)
	_, floor, _ := d.core.Held(row.Conv)
	for _, m := range log {
		e := s.entries[m.Seq]
		switch {
		case e == nil && m.Seq > floor:
			say("A: %s does not show %s/%d (%s)", d.id, row.Conv, m.Seq, m.ClientMsgID)
		case e != nil:
			got, want := *e, shownOf(m)
			if m.Kind >= im.Kind_EVENT_RECALL { // nobody shows the body of an event: das blanks those outlived
				got.text, want.text = "", ""
			}
			if got != want {
				say("%s shows %s/%d as %+v, it is %+v", d.id, row.Conv, m.Seq, got, want)
			}
		}
	}
	for seq := range s.entries {
		if seq > uint64(len(log)) {
			say("U: %s shows %s/%d, which is not stored", d.id, row.Conv, seq)
		}
	}
	if s.read != row.ReadSeq || s.peer != row.PeerReadSeq {
		say("P12: %s has read %d and the peer %d of %s, it is %d and %d", d.id, s.read, s.peer, row.Conv, row.ReadSeq, row.PeerReadSeq)
	}
	if r := s.row; r != nil && r.Version == row.Version {
		d.compareRow(r, row, say)
	}
}

func (d *device) compareRow(r *im.Conversation, row *store.Member, say func(string, ...any)) {
	if r.Unread != row.Unread() {
		say("P12: %s shows %d unread in %s at version %d, it is %d", d.id, r.Unread, row.Conv, r.Version, row.Unread())
	}
	if r.Pinned != row.Pinned || r.Muted != row.Muted || r.Hidden != row.Hidden || r.Remark != row.Remark || r.Blocked != row.Blocked {
		say("%s shows other settings of %s than are stored: %v", d.id, row.Conv, r)
	}
}

func shownOf(m *store.Message) entry {
	return entry{
		sender: m.Sender, id: m.ClientMsgID, text: m.Text, kind: m.Kind, target: m.TargetSeq,
		mod: m.ModSeq, recalled: m.Recalled,
	}
}

// rows are the outbox rows that are left.
func (w *world) rows() []string {
	v, err := w.cluster.store.View(context.Background())
	if err != nil {
		return []string{err.Error()}
	}
	defer v.Close()
	var list []string
	fans, err := v.FanOutRows(store.RowKey{}, store.Anytime(), 0)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range fans {
		list = append(list, fmt.Sprintf("fan-out row %s/%d of %d: %+v", r.Owner, r.N, r.CreatedMS, r.Entries))
	}
	delivers, err := v.DeliverRows(store.RowKey{}, store.Anytime(), 0)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range delivers {
		list = append(list, fmt.Sprintf("delivery row %s/%d of %d: %+v", r.Owner, r.N, r.CreatedMS, r.Entries))
	}
	return list
}

// audit judges the store and the histories at the end.
func (w *world) audit() {
	h := w.cluster.history
	t, err := w.truth()
	if err != nil {
		h.violate("%v", err)
		return
	}
	defer t.close()
	w.auditTruth(t)
}

func (w *world) auditTruth(t *truth) {
	h := w.cluster.history
	for k, log := range t.logs {
		a := auditor{history: h, key: k, log: log}
		a.run(t)
	}
	for k, u := range t.users {
		auditUser(h, k, u)
	}
	t.auditSends(h)
	for _, n := range w.notices {
		t.auditNotice(h, n)
	}
}

// latest is how long after the time in its entry a commit may be done, and an answer that
// was right when it was made may come.
const latest = 15 * time.Second

// auditRefusal: a refusal for good is right. What was stored long before it was written for
// the last time is not refused (R29); and who says that he is blocked was, not long ago (R16).
func (t *truth) auditRefusal(h *history, s *sent) {
	switch s.failed {
	case code.OK, code.Expired, code.TooLarge:
		return
	}
	log := t.logs[store.Key{Tenant: s.tenant, ID: s.conv}]
	id, _ := conv.Parse(s.conv)
	blocked := false // at some time of its life
	var since time.Time
	for _, m := range log {
		at := time.UnixMilli(m.CreatedMS)
		if m.ClientMsgID == s.id && m.Sender == s.uid && at.Add(latest).Before(s.wrote) {
			h.violate("R29: %s was refused as %s at %v, stored at %v as %s/%d", s.id, s.failed.Name(), s.refused.Sub(h.began), at.Sub(h.began), s.conv, m.Seq)
		}
		switch {
		case m.Sender != id.Peer(s.uid):
		case m.Kind == im.Kind_EVENT_BLOCK && since.IsZero():
			since = at
		case m.Kind == im.Kind_EVENT_UNBLOCK && !since.IsZero():
			blocked = blocked || !since.After(s.refused) && !at.Add(latest).Before(s.wrote)
			since = time.Time{}
		}
	}
	blocked = blocked || !since.IsZero() && !since.After(s.refused)
	if s.failed == code.Blocked && !blocked {
		h.violate("R16: %s was refused as blocked at %v, which its sender was not", s.id, s.refused.Sub(h.began))
	}
}

// auditNotice: what the queue took is stored, once; that it is shown is compared elsewhere.
func (t *truth) auditNotice(h *history, n *notice) {
	found := 0
	for _, m := range t.logs[store.Key{Tenant: n.tenant, ID: n.conv}] {
		if m.ClientMsgID == n.id {
			found++
			if m.Text != n.text || m.Sender != channel || m.Kind != im.Kind_SYSTEM {
				h.violate("A: %s is stored as %+v", n.id, *m)
			}
		}
	}
	if found != 1 {
		h.violate("A: %s to %s of %s is stored %d times", n.id, n.uid, n.tenant, found)
	}
}

// auditUser: versions are dense, each row its own.
func auditUser(h *history, k store.Key, u *holding) {
	seen := map[uint64]string{}
	top := uint64(0)
	for _, r := range u.rows {
		if other, ok := seen[r.Version]; ok {
			h.violate("R12: %s: %s and %s have version %d", k.ID, r.Conv, other, r.Version)
		}
		seen[r.Version] = r.Conv
		top = max(top, r.Version)
	}
	if top != u.head.Version {
		h.violate("R01: %s: the head says %d, the highest row is %d", k.ID, u.head.Version, top)
	}
}

// auditSends: what was acknowledged is stored as it was sent (A), and in the order in
// which it was sent (O).
func (t *truth) auditSends(h *history) {
	type lane struct{ device, conv string }
	last := map[lane]*sent{}
	for _, s := range h.all() {
		t.auditRefusal(h, s)
		if s.seq == 0 {
			continue
		}
		log := t.logs[store.Key{Tenant: s.tenant, ID: s.conv}]
		if s.seq > uint64(len(log)) {
			h.violate("A: %s was acknowledged as %s/%d, the log ends at %d", s.id, s.conv, s.seq, len(log))
			continue
		}
		m := log[s.seq-1]
		if m.ClientMsgID != s.id || m.Sender != s.uid || m.ModSeq == 0 && s.cmd == im.Cmd_SEND && m.Text != s.text {
			h.violate("A: %s of %s was acknowledged as %s/%d, where %s of %s is stored: %q", s.id, s.uid, s.conv, s.seq, m.ClientMsgID, m.Sender, m.Text)
		}
		if s.cmd != im.Cmd_SEND || s.again || !s.refused.IsZero() {
			continue // one that was refused, and of which an earlier try got through later, stands where it stands
		}
		k := lane{s.device, s.conv}
		if before := last[k]; before != nil && before.seq > s.seq {
			h.violate("O: %s sent %s before %s to %s, they are %d and %d", s.device, before.id, s.id, s.conv, before.seq, s.seq)
		}
		last[k] = s
	}
}

// auditor recomputes one conversation from its log.
type auditor struct {
	history *history
	key     store.Key
	id      conv.ID
	log     []*store.Message

	ord    uint64
	own    map[string]uint64
	flags  store.ConvFlags
	others map[string][]uint64 // by member: countable messages of others up to each seq
}

func (a *auditor) violate(format string, args ...any) {
	a.history.violate(a.key.ID+": "+format, args...)
}

func (a *auditor) run(t *truth) {
	a.id, _ = conv.Parse(a.key.ID)
	a.own, a.others = map[string]uint64{}, map[string][]uint64{}
	seen := map[string]uint64{}
	last := map[uint64]*store.Message{} // target -> newest event
	for i, m := range a.log {
		if m.Seq != uint64(i)+1 {
			a.violate("R02: entry %d has seq %d", i+1, m.Seq)
		}
		id := m.Sender + "/" + m.ClientMsgID
		if before, ok := seen[id]; ok {
			a.violate("U: %s is stored as %d and %d", id, before, m.Seq)
		}
		seen[id] = m.Seq
		a.rules(m, last)
		a.count(m)
	}
	a.modified(last)
	a.head(t)
	for _, uid := range a.id.Members() {
		if row := t.row(a.key, uid); row != nil {
			a.member(uid, row)
		}
	}
}

// rules: nothing is said to who blocks (R28), nothing changed by others or after its
// recall (R25).
func (a *auditor) rules(m *store.Message, last map[uint64]*store.Message) {
	low := m.Sender == a.id.A
	mine, theirs := store.LowBlocksHigh, store.HighBlocksLow
	if !low {
		mine, theirs = theirs, mine
	}
	switch m.Kind {
	case im.Kind_EVENT_BLOCK:
		a.flags |= mine
		return
	case im.Kind_EVENT_UNBLOCK:
		a.flags &^= mine
		return
	case im.Kind_EVENT_EDIT, im.Kind_EVENT_RECALL:
		if m.TargetSeq == 0 || m.TargetSeq >= m.Seq || a.log[m.TargetSeq-1].Sender != m.Sender {
			a.violate("R25: %d changes %d", m.Seq, m.TargetSeq)
			return
		}
		if before := last[m.TargetSeq]; before != nil && before.Kind == im.Kind_EVENT_RECALL {
			a.violate("R25: %d changes %d, which %d has recalled", m.Seq, m.TargetSeq, before.Seq)
		}
		last[m.TargetSeq] = m
	}
	if a.flags&theirs != 0 && m.Kind != im.Kind_EVENT_RECALL {
		a.violate("R28: %d was stored although the other side blocks %s", m.Seq, m.Sender)
	}
}

func (a *auditor) count(m *store.Message) {
	if m.Kind < im.Kind_EVENT_RECALL {
		a.ord++
		a.own[m.Sender]++
	}
	for _, uid := range a.id.Members() {
		a.others[uid] = append(a.others[uid], a.ord-a.own[uid])
	}
	if m.Ord != a.ord || m.OwnOrd != a.own[m.Sender] {
		a.violate("R24: entry %d says ord %d own %d, counted %d and %d", m.Seq, m.Ord, m.OwnOrd, a.ord, a.own[m.Sender])
	}
}

// modified: every target carries the body of its newest event.
func (a *auditor) modified(last map[uint64]*store.Message) {
	for seq, e := range last {
		m := a.log[seq-1]
		recalled := e.Kind == im.Kind_EVENT_RECALL
		if m.ModSeq != e.Seq || m.Recalled != recalled || recalled && m.Text != "" || !recalled && m.Text != e.Text {
			a.violate("R25: entry %d is %+v after %d changed it", seq, *m, e.Seq)
		}
	}
	for _, m := range a.log {
		if last[m.Seq] == nil && (m.ModSeq != 0 || m.Recalled) {
			a.violate("R25: entry %d was changed by nothing: %+v", m.Seq, *m)
		}
	}
}

func (a *auditor) head(t *truth) {
	h, err := t.view.Conv(a.key)
	if err != nil {
		a.violate("%v", err)
		return
	}
	maps.DeleteFunc(h.Own, func(_ string, n uint64) bool { return n == 0 })
	if h.Seq != uint64(len(a.log)) || h.Ord != a.ord || h.Flags != a.flags || !maps.Equal(h.Own, a.own) {
		a.violate("R02: the head is %+v, the log says %d %d %v %v", h, len(a.log), a.ord, a.own, a.flags)
	}
}

// member: unread is what the log says (R24, P12).
func (a *auditor) member(uid string, row *store.Member) {
	if row.LastSeq > uint64(len(a.log)) || row.ReadSeq > uint64(len(a.log)) {
		a.violate("the row of %s is beyond the log: %+v", uid, *row)
		return
	}
	at := func(seq uint64) uint64 {
		if seq == 0 {
			return 0
		}
		return a.others[uid][seq-1]
	}
	if asked := a.history.asked(userConv{a.key.Tenant, uid, a.key.ID}); row.ReadSeq > asked {
		a.violate("R24: %s has read %d, and marked %d at most", uid, row.ReadSeq, asked)
	}
	if row.LastOrd != at(row.LastSeq) || row.ReadOrd != at(row.ReadSeq) {
		a.violate("R24: the row of %s says %d at %d and %d at %d, counted %d and %d", uid,
			row.LastOrd, row.LastSeq, row.ReadOrd, row.ReadSeq, at(row.LastSeq), at(row.ReadSeq))
	}
	blocks := store.LowBlocksHigh
	if uid == a.id.B {
		blocks = store.HighBlocksLow
	}
	if row.LastSeq == uint64(len(a.log)) && row.Blocked != (a.flags&blocks != 0) {
		a.violate("R28: the row of %s says blocked=%v", uid, row.Blocked)
	}
}
