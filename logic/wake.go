package logic

import (
	"context"
	"errors"
	"slices"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// wake is what a user's devices were told through the queue of offline pushes.
type wake struct {
	at     position      // highest version told
	next   time.Time     // not again before
	pause  time.Duration // doubles
	queued bool          // on its way to the queue
	// looks at the user that found him where he was, and when the next is worth its reads;
	// reset whenever he moves or is woken.
	looks  int
	lookAt time.Time
}

// watchItem is a user with deliveries outstanding, to be looked at again.
type watchItem struct {
	user *user
	at   time.Time
}

// watchEvery is how often a user with deliveries outstanding is looked at.
const watchEvery = 2 * time.Second

// askEvery is how long the presence cache's word "offline" is believed while changes come.
const askEvery = time.Second

// waitingMax bounds the changes kept for a user whose routes are being looked up; beyond,
// his connections are told to sync.
const waitingMax = 64

// overdue: a gateway says that a connection has not acked its oldest push in time.
func (l *Logic) overdue(up *tier.Uplink) {
	s, _ := l.users.lock(up.Tenant, up.Uid)
	defer s.Unlock()
	if u := s.all[presence.User{Tenant: up.Tenant, UID: up.Uid}]; u != nil {
		l.wakeLocked(u, time.Now())
	}
}

// unroutedLocked keeps a change of a user without a connection here and asks the presence
// cache: another Logic may have registered one. Only the cache's word, or a whole renewal
// period as home, makes him offline (R21).
func (l *Logic) unroutedLocked(u *user, c *tier.Change, now time.Time) {
	if now.Sub(u.absent) < askEvery {
		l.wakeLocked(u, now)
		return
	}
	if len(u.waiting) <= waitingMax {
		u.waiting = append(u.waiting, c)
	}
	l.askLocked(u)
}

func (l *Logic) askLocked(u *user) {
	if !u.asking {
		u.asking = l.asks.Add(u.User)
	}
}

// ask looks users up in the presence cache.
func (l *Logic) ask(ctx context.Context, users []presence.User) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	entries, err := l.deps.Presence.Get(ctx, users)
	if err != nil || len(entries) != len(users) {
		if ctx.Err() == nil && !errors.Is(err, presence.ErrDown) {
			l.log.Warn("presence cache cannot be read", "users", len(users), "err", err)
		}
		entries = make([]presence.Entry, len(users)) // not known
	}
	now := time.Now()
	for i, key := range users {
		s, _ := l.users.lock(key.Tenant, key.UID)
		if u := s.all[key]; u != nil {
			u.asking = false
			l.foundLocked(u, entries[i], now)
		}
		s.Unlock()
	}
}

// foundLocked takes the cache's word about a user.
func (l *Logic) foundLocked(u *user, e presence.Entry, now time.Time) {
	for _, r := range e.Routes {
		if !l.usable(u, r) {
			continue // just said to be gone, by its gateway or with it
		}
		if c, _, ok := u.put(r); ok && c.renewed.IsZero() {
			c.renewed = now
		}
	}
	switch {
	case len(u.conns) > 0:
		l.waitingLocked(u, now)
	case e.Known || l.settled(now):
		u.waiting, u.absent = nil, now
		l.wakeLocked(u, now)
	}
}

// settled tells that this Logic has been home to its users for a whole renewal period:
// every connection of theirs would have been renewed here.
func (l *Logic) settled(now time.Time) bool {
	return now.Sub(time.Unix(0, l.homeSince.Load())) > l.cfg.RenewPeriod+homeSlack
}

// homeSlack is how late a renewal may come.
const homeSlack = 2 * time.Second

// waitingLocked sends what waited for a route.
func (l *Logic) waitingLocked(u *user, now time.Time) {
	waiting := u.waiting
	u.waiting = nil
	if len(waiting) > waitingMax {
		for _, c := range u.conns {
			l.noticeLocked(c)
		}
		return
	}
	for _, c := range waiting {
		l.emitLocked(u, c, &encoder{}, now)
	}
}

// wakeLocked lets the devices of a user be woken for the highest version that nobody acked,
// unless they were, a moment ago.
func (l *Logic) wakeLocked(u *user, now time.Time) {
	if u.wake.queued {
		return // goes out with what is then the highest
	}
	d := u.toWake()
	if d == nil || !u.wake.at.less(d.version) && now.Before(u.wake.next) {
		return
	}
	u.wake.queued = l.wakes.Add(u.User)
}

// toWake is the highest delivery outstanding that is worth a wake.
func (u *user) toWake() *due {
	var top *due
	for i := range u.due {
		if d := &u.due[i]; !d.silent && (top == nil || top.version.less(d.version)) {
			top = d
		}
	}
	return top
}

// publish hands users to the queue of offline pushes.
func (l *Logic) publish(ctx context.Context, users []presence.User) {
	var msgs []mq.Message
	told := map[presence.User]position{}
	for _, key := range users {
		s, _ := l.users.lock(key.Tenant, key.UID)
		if u := s.all[key]; u != nil {
			u.wake.queued = false
			if d := u.toWake(); d != nil {
				msgs = append(msgs, offline(key, d.version, d.conv, d.seq))
				told[key] = d.version
			}
		}
		s.Unlock()
	}
	if len(msgs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
	defer cancel()
	err := l.deps.Queue.Publish(ctx, msgs...)
	if err != nil {
		l.log.Warn("offline events cannot be published", "events", len(msgs), "err", err)
	} else {
		l.met.wakes.Add(float64(len(msgs)))
	}
	now := time.Now()
	for key, version := range told {
		s, _ := l.users.lock(key.Tenant, key.UID)
		if u := s.all[key]; u != nil {
			u.wake.told(version, err == nil, now, l.cfg.WakeBackoff)
		}
		s.Unlock()
	}
}

// wakeMost bounds the pause between two wakes for the same change.
const wakeMost = 10 * time.Minute

// told notes a wake, or that it failed: then it is tried again at the next look.
func (w *wake) told(version position, ok bool, now time.Time, first time.Duration) {
	if !ok {
		w.next = now
		return
	}
	if w.at.less(version) {
		w.at, w.pause = version, 0
	}
	w.looks, w.lookAt = 0, time.Time{}
	w.pause = min(max(first, 2*w.pause), wakeMost)
	w.next = now.Add(w.pause)
}

func offline(user presence.User, version position, conv string, seq uint64) mq.Message {
	e := &event.Offline{
		Tenant: user.Tenant, Uid: user.UID, Epoch: version.epoch, Version: version.n,
		Conv: conv, Seq: seq, AtMs: time.Now().UnixMilli(),
	}
	payload, _ := e.Marshal(nil) // fails for no such message
	return mq.Message{Topic: mq.TopicOffline, Key: user.Tenant + "/" + user.UID, Payload: payload}
}

// watchDue looks at the users whose time has come, and ends finished rows.
func (l *Logic) watchDue(ctx context.Context, now time.Time) {
	var progress []presence.User
	for i := range l.users.shards {
		s := &l.users.shards[i]
		s.Lock()
		n := 0
		for ; n < len(s.watch) && !now.Before(s.watch[n].at); n++ {
			u := s.watch[n].user
			if u.watched = len(u.due) > 0; !u.watched {
				continue
			}
			if l.lookLocked(u, now) {
				progress = append(progress, u.User)
			}
			if u.watched = len(u.due) > 0; u.watched {
				s.watch = append(s.watch, watchItem{u, now.Add(watchEvery)})
			}
		}
		s.watch = slices.Delete(s.watch, 0, n)
		s.Unlock()
	}
	if len(progress) > 0 {
		l.refresh(ctx, progress)
	}
	l.endRows(tier.Outbox_DELIVER, l.rows.take(now, 2*l.cfg.DeliverAge))
}

// lookLocked examines a user with deliveries outstanding. True: the store should be asked
// how far he is.
func (l *Logic) lookLocked(u *user, now time.Time) bool {
	old := now.Add(-l.cfg.Overdue)
	late, woken := false, false
	u.due = slices.DeleteFunc(u.due, func(d due) bool {
		woken = woken || !d.silent && !u.wake.at.less(d.version)
		if d.at.After(old) {
			return false
		}
		if d.silent {
			l.rows.reached(d.row)
			return true
		}
		late = true
		return false
	})
	switch {
	case len(u.due) == 0 || now.Before(u.wake.lookAt):
		return false
	case len(u.conns) == 0:
		l.askLocked(u)
	case late:
		l.wakeLocked(u, now)
	case !woken:
		return false
	}
	u.wake.looks++
	u.wake.lookAt = now.Add(backoff(u.wake.looks, watchEvery, lookMost))
	return late || woken
}

// lookMost bounds the pause between two questions about a user who does not move.
const lookMost = 30 * time.Second

// refresh reads how far users are: a device may have acked elsewhere, or was woken (R09).
func (l *Logic) refresh(ctx context.Context, users []presence.User) {
	for key, p := range l.progress(ctx, users, false) {
		s, _ := l.users.lock(key.Tenant, key.UID)
		if u := s.all[key]; u != nil {
			u.saw(position{p.Epoch, p.Head})
			l.reachedLocked(u, u.claims(position{p.Epoch, max(p.Cursor, p.Woken)}))
		}
		s.Unlock()
	}
}

// progressMax is how many users one call asks about.
const progressMax = 500

// progress reads heads, and cursors or sessions, from the das of each user, in one call per das
// and tenant, or few. Users whose das did not answer are missing.
func (l *Logic) progress(ctx context.Context, users []presence.User, sessions bool) map[presence.User]*tier.UserProgress {
	type call struct {
		das, tenant string
		part        int
	}
	count := map[call]int{}
	groups := map[call][]string{}
	at := map[call]uint64{}
	named := make(map[presence.User]bool, len(users))
	for _, u := range users {
		hash := route.Hash(u.Tenant, u.UID)
		peer, err := l.deps.Das.Pick(hash)
		if err != nil || named[u] {
			continue
		}
		named[u] = true
		whole := call{das: peer.Addr, tenant: u.Tenant}
		c := call{peer.Addr, u.Tenant, count[whole] / progressMax}
		count[whole]++
		at[c] = hash
		groups[c] = append(groups[c], u.UID)
	}
	out := make(map[presence.User]*tier.UserProgress, len(users))
	for c, uids := range groups {
		req := &tier.ProgressRequest{Tenant: c.tenant, Uids: uids, Sessions: sessions, NoCursor: sessions}
		reply, err := read(l, ctx, at[c], func(ctx context.Context, das tier.Das) (*tier.ProgressReply, error) {
			return das.Progress(ctx, req)
		})
		if err != nil {
			l.log.Warn("progress cannot be read", "users", len(uids), "err", err)
			continue
		}
		for _, p := range reply.Users {
			out[presence.User{Tenant: c.tenant, UID: p.Uid}] = p
		}
	}
	return out
}
