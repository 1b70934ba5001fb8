package das

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

var crowdSeeds = flag.Int("crowd", 12, "seeds of TestCrowd")

// A crowd of users sends through several das over one store that loses commits and answers
// and is slow, while das restart and any of them is asked for any key. Afterwards nothing
// that was acked is lost, doubled or out of its sender's order; heads, versions, unread
// counts and what a device learned by SYNC agree with the logs.
func TestCrowd(t *testing.T) {
	for seed := range uint64(*crowdSeeds) {
		t.Run(fmt.Sprintf("two-stage/%d", seed), func(t *testing.T) { runCrowd(t, seed, 3, FormAuto) })
		t.Run(fmt.Sprintf("one-commit/%d", seed), func(t *testing.T) { runCrowd(t, seed, 1, FormAuto) })
		t.Run(fmt.Sprintf("one-commit by three/%d", seed), func(t *testing.T) { runCrowd(t, seed, 3, FormOneCommit) })
		t.Run(fmt.Sprintf("two-stage by one/%d", seed), func(t *testing.T) { runCrowd(t, seed, 1, FormTwoStage) })
	}
}

type crowd struct {
	*bed
	mu   sync.Mutex
	rng  *rand.Rand
	das  []*Das
	stop []func() error
	// acked: conversation -> sender/id -> seq
	acked map[string]map[string]uint64
}

func runCrowd(t *testing.T, seed uint64, n int, form Form) {
	c := &crowd{rng: rand.New(rand.NewPCG(seed, 7)), acked: make(map[string]map[string]uint64)}
	opt := memory.Options{Exclusive: n == 1, Strict: true}
	opt.BeforeCommit = func(*store.Batch) error { return c.trouble() }
	opt.AfterCommit = func(*store.Batch) error { return c.trouble() }
	inBed(t, memory.New(opt), func(t *testing.T, b *bed) {
		c.bed = b
		b.cfg.Cache = CacheConfig{Conversations: 3, Users: 4, Members: 5}
		b.cfg.Commit.Items, b.cfg.Form = 4, form
		for i := range n {
			d, stop := b.startStoppable(i)
			c.das, c.stop = append(c.das, d), append(c.stop, stop)
		}
		var wg sync.WaitGroup
		users := []string{"a", "b", "c", "d"}
		devices := make(map[string]*device)
		for _, uid := range users {
			d := &device{crowd: c, uid: uid, last: make(map[string]uint64)}
			devices[uid] = d
			wg.Go(func() { c.chat(uid, users) })
			wg.Go(func() { d.run(20 * time.Second) })
		}
		wg.Go(c.restarts)
		wg.Wait()
		c.settleDown()
		for _, uid := range users {
			devices[uid].sync()
			c.checkUser(uid, devices[uid])
		}
		c.checkLogs()
		for _, stop := range c.stop {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

func (c *crowd) intn(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// trouble delays a commit or its answer, and sometimes loses it.
func (c *crowd) trouble() error {
	time.Sleep(time.Duration(c.intn(20)) * time.Millisecond)
	if c.intn(25) == 0 {
		return errLost
	}
	return nil
}

func (c *crowd) any() *Das {
	i := c.intn(len(c.das))
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.das[i]
}

// restarts ends a das now and then, and starts its next life.
func (c *crowd) restarts() {
	for range 4 {
		time.Sleep(time.Duration(1+c.intn(3000)) * time.Millisecond)
		i := c.intn(len(c.das))
		if err := c.stop[i](); err != nil {
			c.Error(err)
		}
		d, stop := c.startStoppable(i)
		c.mu.Lock()
		c.das[i], c.stop[i] = d, stop
		c.mu.Unlock()
	}
}

// chat sends 30 messages to random peers, each naming the one before it to that peer.
func (c *crowd) chat(uid string, users []string) {
	before := make(map[string]string)
	for i := range 30 {
		peer := users[c.intn(len(users))]
		if peer == uid {
			continue
		}
		convID := "p:" + min(uid, peer) + ":" + max(uid, peer)
		id := fmt.Sprintf("%s-%03d", uid, i)
		c.sendUntilAcked(convID, uid, id, before[convID])
		before[convID] = id
		if c.intn(4) == 0 {
			_, _ = c.try(read(uid, convID, uint64(1+c.intn(20))))
		}
		time.Sleep(time.Duration(c.intn(50)) * time.Millisecond)
	}
}

func (c *crowd) sendUntilAcked(convID, uid, id, after string) {
	for attempt := uint32(1); ; attempt++ {
		s := send(convID, uid, id, "text of "+id)
		s.Append.Attempt, s.Append.After = attempt, after
		s.Append.DisplayedSeq = uint64(c.intn(10))
		a, err := c.try(s)
		if err == nil && a.items[0].Code == 0 {
			c.note(convID, uid+"/"+id, a.items[0].Append.Seq)
			if c.intn(10) > 0 { // else the Logic dies here: the row is driven later
				c.driveCrowd(a)
			}
			return
		}
		if err == nil && !code.Code(a.items[0].Code).Retryable() {
			c.Errorf("%s %s: %s", convID, id, a.codes())
			return
		}
		time.Sleep(time.Duration(10+c.intn(100)) * time.Millisecond)
	}
}

func (c *crowd) note(convID, key string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acked[convID] == nil {
		c.acked[convID] = make(map[string]uint64)
	}
	c.acked[convID][key] = seq
}

// try writes once through any das.
func (c *crowd) try(s *tier.Submit) (answers, error) {
	s.Tenant, s.Id = tenant, 1
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	rsp, err := c.any().Write(ctx, &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: []*tier.Submit{s}})
	if err != nil {
		return answers{}, err
	}
	return answers{items: rsp.Items, changes: rsp.Changes}, nil
}

func (c *crowd) driveCrowd(a answers) {
	for _, s := range a.items {
		for _, m := range s.GetAppend().GetOrder().GetMembers() {
			f := *m
			if r, err := c.try(&tier.Submit{Fanout: &f, TtlMs: 1}); err == nil && r.items[0].Code != 0 &&
				!code.Code(r.items[0].Code).Retryable() {
				c.Errorf("fan-out: %s", r.codes())
			}
		}
	}
}

// settleDown drives every fan-out row that is open, as the Logics would.
func (c *crowd) settleDown() {
	for _, row := range c.scan(c.any(), tier.Outbox_FANOUT) {
		for _, o := range row.Orders {
			for _, m := range o.Members {
				for {
					r, err := c.try(&tier.Submit{Fanout: m})
					if err == nil && r.items[0].Code == 0 {
						break
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		}
	}
}

func (c *crowd) checkLogs() {
	c.Helper()
	for convID, acked := range c.acked {
		id := strings.Split(convID, ":")[1]
		list := c.history(c.any(), id, convID)
		seen := make(map[string]uint64)
		last := make(map[string]string) // sender -> id
		for i, m := range list {
			key := m.Sender + "/" + m.ClientMsgId
			if m.Seq != uint64(i+1) || seen[key] != 0 {
				c.Errorf("%s: entry %d has seq %d, key %s seen at %d", convID, i+1, m.Seq, key, seen[key])
			}
			if last[m.Sender] > m.ClientMsgId {
				c.Errorf("%s: %s after %s", convID, m.ClientMsgId, last[m.Sender])
			}
			seen[key], last[m.Sender] = m.Seq, m.ClientMsgId
		}
		for key, seq := range acked {
			if seen[key] != seq {
				c.Errorf("%s: %s was acked at %d and is at %d", convID, key, seq, seen[key])
			}
		}
	}
}

func (c *crowd) checkUser(uid string, d *device) {
	c.Helper()
	s := c.sync(c.any(), uid, 0)
	if s.Head != d.cursor {
		c.Errorf("%s: head %d, device at %d", uid, s.Head, d.cursor)
	}
	var versions []uint64
	for _, row := range s.Changes {
		versions = append(versions, row.Version)
		list := c.history(c.any(), uid, row.Conv)
		unread := uint64(0)
		for _, m := range list {
			if m.Sender != uid && m.Seq > row.ReadSeq {
				unread++
			}
		}
		if row.LastSeq != uint64(len(list)) || d.last[row.Conv] != row.LastSeq || row.Unread != unread {
			c.Errorf("%s of %s: last_seq %d, device %d, log %d; unread %d, counted %d",
				row.Conv, uid, row.LastSeq, d.last[row.Conv], len(list), row.Unread, unread)
		}
	}
	if !slices.IsSorted(versions) || len(slices.Compact(versions)) != len(s.Changes) {
		c.Errorf("%s: versions %v", uid, versions)
	}
}

// device learns by SYNC alone, from its cursor.
type device struct {
	*crowd
	uid    string
	cursor uint64
	last   map[string]uint64
}

func (d *device) run(span time.Duration) {
	for end := time.Now().Add(span); time.Now().Before(end); {
		time.Sleep(time.Duration(d.intn(300)) * time.Millisecond)
		d.sync()
	}
}

func (d *device) sync() {
	rsp, err := d.any().Sync(d.Context(), &tier.SyncRequest{Tenant: tenant, Uid: d.uid, Sync: &im.Sync{Epoch: 1, Cursor: d.cursor}})
	if err != nil {
		d.Errorf("sync of %s: %v", d.uid, err)
		return
	}
	if rsp.MustReset {
		d.Errorf("%s at %d of %d is told to reset", d.uid, d.cursor, rsp.Head)
	}
	for _, row := range rsp.Changes {
		d.last[row.Conv] = row.LastSeq
	}
	d.cursor = rsp.NextCursor
}
