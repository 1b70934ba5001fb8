package das

import (
	"cmp"
	"fmt"
	"slices"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
)

// userSessions are the slots of a user as the batch so far leaves them.
type userSessions struct {
	rows  []store.Session
	dirty []bool
	from  uint64 // highest epoch before the batch
	epoch uint64 // highest now
}

func (p *plan) sessionsOf(k store.Key) (*userSessions, error) {
	if s := p.sessions[k]; s != nil {
		return s, nil
	}
	v, err := p.snapshot()
	if err != nil {
		return nil, err
	}
	rows, err := v.Sessions(k)
	if err != nil {
		return nil, fmt.Errorf("read the sessions of %q: %w", k.ID, err)
	}
	s := &userSessions{rows: rows, dirty: make([]bool, len(rows))}
	for _, r := range rows {
		s.from = max(s.from, r.Epoch)
	}
	s.epoch = s.from
	p.sessions[k] = s
	return s, nil
}

// put writes a slot.
func (s *userSessions) put(to store.Session) {
	i := slices.IndexFunc(s.rows, func(r store.Session) bool { return r.Class == to.Class && r.Slot == to.Slot })
	if i < 0 {
		i = len(s.rows)
		s.rows, s.dirty = append(s.rows, to), append(s.dirty, false)
	}
	s.rows[i], s.dirty[i] = to, true
}

// login plans a login under the multi-device policy (R27): a lower connection counter never
// replaces a higher one of the same device, and an equal one is the same login once more; a
// slot not renewed for three periods is free; when all are taken the oldest goes, or the new
// one is rejected.
func (p *plan) login(it *item, l *tier.Login) error {
	key := store.Key{Tenant: it.req.Tenant, ID: l.Uid}
	bucket := bucketOf(key)
	if err := p.fence(bucket); err != nil {
		return err
	}
	now, err := p.now()
	if err != nil {
		return err
	}
	s, err := p.sessionsOf(key)
	if err != nil {
		return err
	}
	devices, err := p.devicesOf(key)
	if err != nil {
		return err
	}
	if r := s.repeated(l); r != nil {
		it.out.login = &tier.LoggedIn{SessionEpoch: r.Epoch, Slot: r.Slot}
		it.out.epoch = p.w.epochs[bucket]
		return p.confirmBucket(bucket)
	}
	slot, replaced, err := s.place(l, now, p.w.das.cfg.Session.FreeAfter.Milliseconds())
	if err != nil {
		return cmp.Or(p.confirmBucket(bucket), err)
	}
	d := devices.edit(l.Device)
	if err := p.claim(d, key, bucket, l); err != nil {
		return err
	}
	for _, r := range replaced {
		s.put(store.Session{Class: r.Class, Slot: r.Slot, Epoch: r.Epoch, SeenMS: r.SeenMS})
	}
	s.epoch++
	s.put(store.Session{
		Class: l.Class, Slot: slot, Device: l.Device, Epoch: s.epoch, Counter: l.Counter,
		Gateway: l.Gateway, SeenMS: now,
	})
	d.SeenMS = now
	d.Platform = or(l.Platform, d.Platform)
	d.PushToken = or(l.PushToken, d.PushToken)
	it.out.login = &tier.LoggedIn{SessionEpoch: s.epoch, Slot: slot, Replaced: tellSessions(replaced)}
	it.out.epoch = p.w.epochs[bucket]
	return nil
}

// claim takes the cursor that a device names at its login, unless it is beyond the user's
// head: a device of another copy of the database, which is told to reset. Cursors never go
// back, so everything up to that one would count as delivered.
func (p *plan) claim(d *store.Device, key store.Key, bucket uint32, l *tier.Login) error {
	epoch := p.w.epochs[bucket]
	if l.Epoch != epoch || d.Epoch == epoch && l.Cursor <= d.Cursor {
		return nil // nothing to raise, nothing to read
	}
	u, err := p.user(key)
	if err == nil && l.Cursor <= u.version {
		raiseCursor(d, epoch, l.Epoch, l.Cursor)
	}
	return err
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// repeated is the session that an earlier try of the same login has made: its answer was
// lost, or is on its way to somebody who must not lose the session to himself.
func (s *userSessions) repeated(l *tier.Login) *store.Session {
	for i := range s.rows {
		r := &s.rows[i]
		if l.Counter > 0 && r.Counter == l.Counter && r.Device == l.Device && r.Class == l.Class && r.Gateway == l.Gateway {
			return r
		}
	}
	return nil
}

// place finds the slot of a login and who loses his for it. Who has not renewed his for long
// loses it only if there is no other: his connection may still stand.
func (s *userSessions) place(l *tier.Login, now, freeAfter int64) (slot uint32, replaced []store.Session, err error) {
	taken := make(map[uint32]bool)
	stale := make(map[uint32]store.Session) // of other devices, free
	var others []store.Session              // alive, of other devices
	for _, r := range s.rows {
		free := r.Device == "" || now-r.SeenMS >= freeAfter
		switch {
		case r.Class != l.Class || r.Device == "":
		case r.Device == l.Device:
			if !free && r.Counter > l.Counter {
				return 0, nil, code.Errorf(code.StaleLogin, "connection %d of this device has logged in, this is %d", r.Counter, l.Counter)
			}
			replaced = append(replaced, r)
		case free:
			stale[r.Slot] = r
		default:
			others, taken[r.Slot] = append(others, r), true
		}
	}
	if over := len(others) - int(max(l.Slots, 1)) + 1; over > 0 {
		if l.RejectNew {
			return 0, nil, code.Errorf(code.TooManySessions, "%d devices of class %s are logged in", len(others), l.Class)
		}
		slices.SortFunc(others, func(a, b store.Session) int { return int(int64(a.Epoch - b.Epoch)) })
		for _, r := range others[:over] {
			replaced = append(replaced, r)
			delete(taken, r.Slot)
		}
	}
	for slots := max(l.Slots, 1); slot < slots; slot++ {
		if _, held := stale[slot]; !held && !taken[slot] {
			return slot, replaced, nil
		}
	}
	for slot = 0; taken[slot]; {
		slot++
	}
	if r, held := stale[slot]; held {
		replaced = append(replaced, r)
	}
	return slot, replaced, nil
}

func tellSessions(rows []store.Session) []*tier.Session {
	told := make([]*tier.Session, len(rows))
	for i, r := range rows {
		told[i] = &tier.Session{
			Class: r.Class, Slot: r.Slot, Device: r.Device, SessionEpoch: r.Epoch,
			Gateway: r.Gateway, Counter: r.Counter,
		}
	}
	return told
}

// find returns the live row of a session, nil when a newer login took its slot.
func (s *userSessions) find(device string, epoch uint64) *store.Session {
	for i := range s.rows {
		if r := &s.rows[i]; r.Epoch == epoch && r.Device == device && device != "" {
			return r
		}
	}
	return nil
}

// logout frees the slot of one session. One that came late finds a newer login there and
// changes nothing.
func (p *plan) logout(it *item, l *tier.LogoutMark) error {
	key := store.Key{Tenant: it.req.Tenant, ID: l.Uid}
	if err := p.fence(bucketOf(key)); err != nil {
		return err
	}
	s, err := p.sessionsOf(key)
	if err != nil {
		return err
	}
	r := s.find(l.Device, l.SessionEpoch)
	if r == nil {
		return nil
	}
	s.put(store.Session{Class: r.Class, Slot: r.Slot, Epoch: r.Epoch, SeenMS: r.SeenMS})
	if !l.ForgetPush {
		return nil
	}
	devices, err := p.devicesOf(key)
	if err == nil {
		devices.edit(l.Device).PushToken = ""
	}
	return err
}

// renew marks a session as alive, if it still has its slot.
func (p *plan) renew(key store.Key, m *tier.CursorMark, now int64) error {
	s, err := p.sessionsOf(key)
	if err != nil {
		return err
	}
	r := s.find(m.Device, m.SessionEpoch)
	if r == nil || r.Class != m.Class || now-r.SeenMS < p.w.das.cfg.Session.RenewAfter.Milliseconds() {
		return nil
	}
	to := *r
	to.SeenMS = now
	to.Gateway = or(m.Gateway, to.Gateway)
	s.put(to)
	return nil
}
