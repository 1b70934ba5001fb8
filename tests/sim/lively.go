package sim

import (
	"context"
	"fmt"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/internal/conv"
	"hongyan/sdk/go/core"
)

// After healing and one renewal period, pushes reach everybody at once again: what is only
// repaired by the next renewal would go unnoticed otherwise.
const (
	wellAfter    = 25 * time.Second
	pushedWithin = 2 * time.Second
)

// lively lets every device write once and expects every device concerned to show it soon;
// then every device asks for its counts and its list.
func (w *world) lively(healed time.Time) {
	time.Sleep(max(0, time.Until(healed.Add(wellAfter))))
	synctest.Wait()
	for _, d := range w.devices {
		if !d.out {
			d.schedule(action{time.Now(), unblocked})
			d.schedule(action{time.Now().Add(100 * time.Millisecond), burst(1)})
			d.poke()
		}
	}
	within := pushedWithin
	if w.cluster.profile.drops {
		within = wellAfter // as long as the next renewal may take
	}
	time.Sleep(within)
	synctest.Wait()
	differences := w.differences()
	if len(differences) > 0 { // a notice that the queue was late with may have been stored just now
		time.Sleep(pushedWithin)
		synctest.Wait()
		differences = w.differences()
	}
	for _, difference := range differences {
		w.cluster.history.violate("L: %v after a message in a healed world: %s", within, difference)
	}
	w.ask()
}

// unblocked lets everybody write to this user again.
func unblocked(d *device, now time.Time) {
	for name, s := range d.app.convs {
		if id, err := conv.Parse(name); err == nil && s.row != nil && s.row.Blocked {
			d.sent++
			d.call(now, im.Cmd_BLOCK, &im.Block{Uid: id.Peer(d.uid), ClientMsgId: fmt.Sprintf("%s-%d", d.id, d.sent)}, &im.BlockAck{}, d.answered)
		}
	}
}

// ask lets every device ask for its unread counts and its list: they are the same on all
// devices of a user, and what the store holds (P12).
func (w *world) ask() {
	t, err := w.truth()
	if err != nil {
		w.cluster.history.violate("%v", err)
		return
	}
	defer t.close()
	answers := 0
	asked := 0
	for _, d := range w.devices {
		if d.out {
			continue
		}
		asked += 2
		h := t.users[store.Key{Tenant: d.tenant, ID: d.uid}]
		d.later(time.Now(), func(now time.Time) {
			d.call(now, im.Cmd_UNREAD, &im.Unread{}, &im.UnreadRsp{}, func(a core.Answer) { answers += d.judgeUnread(h, a) })
			d.call(now, im.Cmd_CONVERSATIONS, &im.Conversations{Limit: 500, Hidden: true}, &im.ConversationsRsp{}, func(a core.Answer) { answers += d.judgeList(h, a) })
		})
		d.poke()
		time.Sleep(10 * time.Millisecond) // one after the other: answers is shared
	}
	time.Sleep(time.Second)
	synctest.Wait()
	if answers != asked {
		w.cluster.history.violate("L: %d of %d questions were answered in a healed world", answers, asked)
	}
}

// overtaken: something of the user was stored since the truth was read, a notice that the
// queue had held back, so that the answer may tell it or not.
func (d *device) overtaken(h *holding) bool {
	v, err := d.world.cluster.store.View(context.Background())
	if err != nil {
		d.app.violate("%v", err)
		return true
	}
	defer v.Close()
	now, err := v.User(store.Key{Tenant: d.tenant, ID: d.uid})
	if err != nil {
		d.app.violate("%v", err)
	}
	return now.Version != h.head.Version
}

func (d *device) judgeUnread(h *holding, a core.Answer) int {
	if a.Err != nil {
		d.app.violate("UNREAD in a healed world: %v", a.Err)
		return 0
	}
	if d.overtaken(h) {
		return 1
	}
	want, got := map[string]uint64{}, map[string]uint64{}
	total := uint64(0)
	for i := range h.rows {
		if n := h.rows[i].Unread(); n > 0 {
			want[h.rows[i].Conv] = n
			total += n
		}
	}
	rsp := a.Reply.(*im.UnreadRsp)
	for _, c := range rsp.Conversations {
		got[c.Conv] = c.Unread
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || rsp.Total != total {
		d.app.violate("P12: unread is told as %v of %d, it is %v of %d", got, rsp.Total, want, total)
	}
	return 1
}

func (d *device) judgeList(h *holding, a core.Answer) int {
	if a.Err != nil {
		d.app.violate("CONVERSATIONS in a healed world: %v", a.Err)
		return 0
	}
	if d.overtaken(h) {
		return 1
	}
	rsp := a.Reply.(*im.ConversationsRsp)
	if len(rsp.Conversations) != len(h.rows) {
		d.app.violate("P12: %d conversations are listed of %d", len(rsp.Conversations), len(h.rows))
		return 1
	}
	for i, r := range rsp.Conversations { // both by descending version
		row := &h.rows[i]
		if r.Conv != row.Conv || r.Version != row.Version || r.LastSeq != row.LastSeq || r.ReadSeq != row.ReadSeq || r.PeerReadSeq != row.PeerReadSeq {
			d.app.violate("P12: %s is listed as %v, it is %+v", r.Conv, r, *row)
		}
		d.compareRow(r, row, d.app.violate)
	}
	return 1
}
