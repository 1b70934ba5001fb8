package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"hongyan/das/store"
)

// storage is the shared store as one life of one das sees it: late, refusing, forgetful of
// answers. A commit that was under way when its das died or gave up may still be applied.
type storage struct {
	store.Store
	proc    *process
	cluster *cluster
	odds    storeOdds

	mu  sync.Mutex
	rng *rand.Rand
}

// storeOdds are how likely a commit meets what.
type storeOdds struct {
	refused float64 // nothing written, an error
	hidden  float64 // written, an error
	late    float64 // an error, and written up to 10 s later; never on an exclusive store
	slow    float64 // takes up to 3 s
	killed  float64 // written, and the das dies before it knows
	unread  float64 // a view cannot be opened
}

var errStorage = errors.New("connection to the database lost")

func (c *cluster) storageOf(p *process, s store.Store, part ...string) *storage {
	return &storage{
		Store: s, proc: p, cluster: c, odds: c.profile.store,
		rng: newRand(c.seed, append([]string{"store", p.Boot}, part...)...),
	}
}

// verdict on one commit.
type verdict uint8

const (
	applied verdict = iota
	refusedCommit
	hidden
	late
	killed
)

func (s *storage) draw() (verdict, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, size, slow := s.rng.Float64(), s.rng.Float64(), s.rng.Float64()
	wait := 100*time.Microsecond + time.Duration(size*float64(300*time.Microsecond))
	if s.cluster.calm.Load() {
		return applied, wait
	}
	if slow < s.odds.slow {
		wait += time.Duration(size * float64(3*time.Second))
	}
	for _, o := range []struct {
		odds float64
		verdict
	}{{s.odds.refused, refusedCommit}, {s.odds.hidden, hidden}, {s.odds.late, late}, {s.odds.killed, killed}} {
		if kind < o.odds {
			return o.verdict, wait
		}
		kind -= o.odds
	}
	return applied, wait
}

// Commit implements store.Store.
func (s *storage) Commit(ctx context.Context, b *store.Batch) error {
	v, wait := s.draw()
	if v == late && s.Exclusive() {
		v = refusedCommit
	}
	if v == late {
		s.cluster.stats.count("commit late")
		s.commitLater(cloneBatch(b), time.Duration(float64(10*time.Second)*s.float()))
		return errStorage
	}
	if err := s.reach(ctx, wait); err != nil {
		return err
	}
	if v == refusedCommit {
		s.cluster.stats.count("commit refused")
		return errStorage
	}
	// What was on its way when the process fell asleep is done when it wakes, however late.
	err := s.commit(context.WithoutCancel(ctx), b)
	if err != nil {
		return err
	}
	if err := s.proc.awake(s.proc.ctx); err != nil {
		return err
	}
	switch v {
	case hidden:
		s.cluster.stats.count("commit hidden")
		return errStorage
	case killed:
		s.cluster.crash(s.proc, "crash after commit")
		return errStorage
	}
	return nil
}

// commit writes, and counts what tells of a defect.
func (s *storage) commit(ctx context.Context, b *store.Batch) error {
	before := s.rowsOf(ctx, b)
	err := s.cluster.rules.commit(s.Store, ctx, b)
	s.trace(b, err)
	var fence *store.FenceError
	switch {
	case err == nil:
		s.cluster.stats.count("commits")
		s.checkMoved(b, before)
	case errors.Is(err, store.ErrInvalid):
		s.cluster.history.violate("a das committed an invalid batch: %v", err)
	case errors.As(err, &fence):
		s.cluster.stats.count("commit fenced")
		s.checkVouched(fence)
	}
	return err
}

// trace logs a commit where somebody reads the log.
func (s *storage) trace(b *store.Batch, err error) {
	if !s.cluster.log.Enabled(context.Background(), slog.LevelDebug) || b.Lazy() {
		return
	}
	var entries []string
	for _, m := range b.Messages {
		entries = append(entries, fmt.Sprintf("%s/%d %s", m.Conv.ID, m.Seq, m.ClientMsgID))
	}
	s.cluster.log.Debug("commit", "boot", s.proc.Boot, "convs", b.Convs, "entries", entries, "users", b.Users,
		"members", b.Members, "fanout", b.FanOut, "deliver", b.Deliver, "sessions", b.Sessions, "err", err)
}

// rowsOf are the rows that a batch is about to write, as they are.
func (s *storage) rowsOf(ctx context.Context, b *store.Batch) []store.Member {
	if len(b.Members) == 0 {
		return nil
	}
	v, err := s.Store.View(ctx)
	if err != nil {
		return nil
	}
	defer v.Close()
	rows := make([]store.Member, len(b.Members))
	for i, r := range b.Members {
		rows[i], _ = v.Member(r.User, r.Conv)
	}
	return rows
}

// checkMoved: a row that takes a version has changed in something (R08). Settings are left
// out: two repeated ones in one commit may add up to nothing.
func (s *storage) checkMoved(b *store.Batch, before []store.Member) {
	for i, old := range before {
		now := b.Members[i].Member
		now.Version, now.UpdatedMS = old.Version, old.UpdatedMS
		if now.Raise(&old); now == old && old.Remark == "" {
			s.cluster.history.violate("R08: %s gave %s of %s a version for nothing: %+v after %+v", s.proc.Boot, old.Conv, b.Members[i].User.ID, b.Members[i].Member, old)
		}
	}
}

// checkVouched: a writer vouched for a key that is stored already, although its belief in
// the conversation was right (R10).
func (s *storage) checkVouched(f *store.FenceError) {
	for _, m := range f.Duplicates {
		stale := false
		for _, k := range f.Convs {
			stale = stale || k == m.Conv
		}
		if !m.MayRepeat && !stale {
			s.cluster.history.violate("R10: %s vouched that (%s, %s) is new in %s", s.proc.Boot, m.Sender, m.ClientMsgID, m.Conv.ID)
		}
	}
}

// commitLater applies a batch whose writer was told that it failed.
func (s *storage) commitLater(b *store.Batch, in time.Duration) {
	s.cluster.work.Go(func() {
		if sleep(s.cluster.ctx, in) == nil {
			_ = s.commit(s.cluster.ctx, b) // nobody hears
		}
	})
}

func (s *storage) float() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Float64()
}

// reach is the way to the database.
func (s *storage) reach(ctx context.Context, wait time.Duration) error {
	if err := sleep(ctx, wait); err != nil {
		return err
	}
	return s.proc.awake(s.proc.ctx)
}

// View implements store.Store.
func (s *storage) View(ctx context.Context) (store.View, error) {
	if err := s.proc.awake(ctx); err != nil {
		return nil, err
	}
	if !s.cluster.calm.Load() && s.float() < s.odds.unread {
		s.cluster.stats.count("read refused")
		return nil, errStorage
	}
	v, err := s.Store.View(ctx)
	if err != nil {
		return nil, err
	}
	return s.cluster.rules.view(v), nil
}

// Now implements store.Store.
func (s *storage) Now(ctx context.Context) (int64, error) {
	if err := s.proc.awake(ctx); err != nil {
		return 0, err
	}
	return s.Store.Now(ctx)
}

// cloneBatch copies a batch whole: its writer uses it again.
func cloneBatch(b *store.Batch) *store.Batch {
	c := *b
	c.Buckets = append([]store.BucketFence(nil), b.Buckets...)
	c.Users = append([]store.UserMove(nil), b.Users...)
	c.FanOutDone = append([]store.RowRange(nil), b.FanOutDone...)
	c.DeliverDone = append([]store.RowRange(nil), b.DeliverDone...)
	c.Woken = append([]store.WokenMark(nil), b.Woken...)
	c.Convs = cloned(b.Convs, func(m store.ConvMove) store.ConvMove { m.To = m.To.Clone(); return m })
	c.Messages = cloned(b.Messages, cloneMessage)
	c.Rewrites = cloned(b.Rewrites, cloneMessage)
	c.Members = cloned(b.Members, func(r store.MemberRow) store.MemberRow { r.Member = r.Member.Clone(); return r })
	c.FanOut = cloned(b.FanOut, store.FanOutRow.Clone)
	c.Deliver = cloned(b.Deliver, store.DeliverRow.Clone)
	c.Sessions = cloned(b.Sessions, func(m store.SessionMove) store.SessionMove { m.To = m.To.Clone(); return m })
	c.Pushes = cloned(b.Pushes, func(r store.PushRow) store.PushRow { r.Push = r.Push.Clone(); return r })
	c.Cursors = cloned(b.Cursors, func(r store.DeviceRow) store.DeviceRow { r.Device = r.Device.Clone(); return r })
	return &c
}

func cloneMessage(m *store.Message) *store.Message {
	c := m.Clone()
	c.MayRepeat = m.MayRepeat
	return c
}

func cloned[T any](list []T, clone func(T) T) []T {
	var out []T
	for _, v := range list {
		out = append(out, clone(v))
	}
	return out
}
