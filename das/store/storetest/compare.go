package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/im"
)

// Compare commits the same random batches to s and to a memory store, right and wrong
// ones, and wants the same answers of both: outcomes, reads, and reads of older views.
// With reopen, s is now and then replaced by what reopen returns for it.
func Compare(t *testing.T, seed uint64, steps int, s store.Store, reopen func(store.Store) store.Store, limits Limits) {
	if limits.Steps > 0 {
		steps = min(steps, limits.Steps)
	}
	w := &world{
		T: t, without: limits.Without, rng: rand.New(rand.NewPCG(seed, 0)), s: s, twin: memory.New(),
		owners: []string{"l1", "l2", "l"},
	}
	for _, tenant := range []string{"t", "tt"} {
		for _, id := range []string{"p:a:b", "p:a:bb", "p:b:c", "s:shop:a", "g:all"} {
			w.convs = append(w.convs, store.Key{Tenant: tenant, ID: id})
		}
		for _, id := range []string{"a", "b", "bb", "c"} {
			w.users = append(w.users, store.Key{Tenant: tenant, ID: id})
		}
	}
	for step := range steps {
		w.step = step
		w.commit(w.batch())
		w.sample()
		switch {
		case step%40 == 20 && reopen != nil:
			w.closeHeld()
			w.s = reopen(w.s)
		case step%17 == 0:
			w.compareHeld()
			w.hold()
		}
	}
	w.compareHeld()
	w.compareAll(w.pair(), nil)
}

// Checks that Limits may leave out, of views that are older than the newest commit.
const (
	// OldBackwards are reads in descending order.
	OldBackwards = "descending reads of older views"
	// OldPoints are reads of rows by their whole key, also by what another table or index names.
	OldPoints = "point reads of older views"
)

// world is a run of Compare.
type world struct {
	*testing.T
	without []string // checks that are left out
	rng     *rand.Rand
	s       store.Store
	twin    *memory.Store
	step    int
	convs   []store.Key
	users   []store.Key
	owners  []string
	nextID  uint64
	used    []*store.Message // committed, some of them repeated on purpose
	held    [2]store.View
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](w *world, list []T) T { return list[w.rng.IntN(len(list))] }

// some returns up to n different elements.
func some[T any](w *world, n int, list []T) []T {
	list = slices.Clone(list)
	w.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:w.rng.IntN(min(n, len(list))+1)]
}

// commit gives both stores the batch and compares what they say.
func (w *world) commit(b *store.Batch) {
	w.Helper()
	want, got := w.twin.Commit(context.Background(), b), w.s.Commit(context.Background(), b)
	if outcome(want) != outcome(got) {
		w.Fatalf("step %d: commit of %+v\n got %v (%s)\nwant %v (%s)", w.step, *b, got, outcome(got), want, outcome(want))
	}
	if want == nil {
		w.used = append(w.used, b.Messages...)
	}
}

// outcome is an error's meaning, the order of what it names aside.
func outcome(err error) string {
	var fence *store.FenceError
	switch {
	case err == nil:
		return "committed"
	case errors.Is(err, store.ErrInvalid):
		return "invalid"
	case !errors.As(err, &fence):
		return err.Error()
	}
	var names []string
	for _, k := range fence.Buckets {
		names = append(names, fmt.Sprint("bucket ", k))
	}
	for _, k := range fence.Convs {
		names = append(names, fmt.Sprint("conversation ", k))
	}
	for _, k := range fence.Users {
		names = append(names, fmt.Sprint("user ", k))
	}
	for _, k := range fence.Sessions {
		names = append(names, fmt.Sprint("session ", k))
	}
	for _, m := range fence.Duplicates {
		names = append(names, fmt.Sprintf("duplicate %p", m))
	}
	for _, k := range fence.FanOut {
		names = append(names, fmt.Sprint("fan-out row ", k))
	}
	for _, k := range fence.Deliver {
		names = append(names, fmt.Sprint("delivery row ", k))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (w *world) batch() *store.Batch {
	b := &store.Batch{}
	v, _ := w.twin.View(context.Background())
	defer v.Close()
	if w.chance(80) {
		for _, k := range some(w, 3, w.convs) {
			w.addEntries(b, v, k)
		}
		for _, k := range some(w, 3, w.users) {
			w.addRows(b, v, k)
		}
		w.addOutbox(b)
		w.addSessions(b, v)
	}
	for _, owner := range some(w, 2, w.owners) {
		from := w.rng.Uint64N(40)
		r := store.RowRange{Owner: owner, From: from, To: from + w.rng.Uint64N(3)*w.rng.Uint64N(40)}
		if w.chance(50) {
			b.FanOutDone = append(b.FanOutDone, r)
		} else {
			b.DeliverDone = append(b.DeliverDone, r)
		}
	}
	for range w.rng.IntN(3) {
		b.Cursors = append(b.Cursors, store.DeviceRow{User: pick(w, w.users), Device: store.Device{
			ID: pick(w, []string{"d1", "d2"}), Platform: "ios", Epoch: w.rng.Uint64N(3), Cursor: w.rng.Uint64N(50), SeenMS: int64(w.step),
		}})
		b.Woken = append(b.Woken, store.WokenMark{User: pick(w, w.users), Version: w.rng.Uint64N(50)})
	}
	if w.chance(5) {
		b.Buckets = []store.BucketFence{{ID: w.rng.Uint32N(store.Buckets), Epoch: 1 + w.rng.Uint64N(2)}}
	}
	if w.chance(4) {
		w.spoil(b)
	}
	return b
}

// spoil breaks a rule of Batch, if the batch is large enough.
func (w *world) spoil(b *store.Batch) {
	if n := len(b.Messages); n > 1 && w.chance(50) {
		b.Messages[0], b.Messages[n-1] = b.Messages[n-1], b.Messages[0]
	} else if n := len(b.Members); n > 0 {
		b.Members = b.Members[:n-1]
	}
}

// addEntries appends entries of senders that fit the kind of log.
func (w *world) addEntries(b *store.Batch, v store.View, k store.Key) {
	head, _ := v.Conv(k)
	to := store.ConvHead{Seq: head.Seq, Ord: head.Ord, Own: map[string]uint64{}, Flags: head.Flags}
	for s, n := range head.Own {
		to.Own[s] = n
	}
	from := head.Seq
	if w.chance(5) {
		from += uint64(w.rng.IntN(3)) - 1
		to.Seq = from
	}
	if w.chance(10) {
		to.Flags = store.ConvFlags(w.rng.IntN(4))
	}
	parts := strings.Split(k.ID, ":")
	for range 1 + w.rng.IntN(4) {
		m := &store.Message{Conv: k, Sender: parts[1], CreatedMS: int64(w.step), BodyHash: w.rng.Uint64(), Text: strings.Repeat("x", w.rng.IntN(50))}
		if parts[0] != "s" {
			m.Sender = parts[1+w.rng.IntN(len(parts)-1)]
		}
		m.Kind = im.Kind_EVENT_RECALL
		if w.chance(80) {
			m.Kind = im.Kind_TEXT
			to.Ord++
			to.Own[m.Sender]++
		}
		to.Seq++
		m.Seq, m.Ord, m.OwnOrd = to.Seq, to.Ord, to.Own[m.Sender]
		w.giveID(m)
		b.Messages = append(b.Messages, m)
		if to.Seq > 1 && w.chance(10) {
			w.addRewrite(b, v, m)
		}
	}
	b.Convs = append(b.Convs, store.ConvMove{Key: k, From: from, To: to})
}

// giveID gives a message a fresh id, none, or one that is used already.
func (w *world) giveID(m *store.Message) {
	w.nextID++
	m.ClientMsgID = uuid("random", w.nextID)
	switch {
	case w.chance(3):
		m.ClientMsgID = ""
	case w.chance(5):
		m.ClientMsgID = fmt.Sprint("odd ", w.nextID)
	case w.chance(3) && len(w.used) > 0:
		old := pick(w, w.used)
		m.MayRepeat, m.ClientMsgID = true, old.ClientMsgID
		if old.Conv == m.Conv {
			m.Sender = old.Sender
		}
	case w.chance(20):
		m.MayRepeat = true
	}
}

func (w *world) addRewrite(b *store.Batch, v store.View, event *store.Message) {
	old, err := v.Message(event.Conv, 1+w.rng.Uint64N(event.Seq-1))
	if err != nil || slices.ContainsFunc(b.Rewrites, func(m *store.Message) bool { return m.Conv == old.Conv && m.Seq == old.Seq }) {
		return
	}
	old.ModSeq, old.Text = event.Seq, "rewritten"
	b.Rewrites = append(b.Rewrites, old)
}

func (w *world) addRows(b *store.Batch, v store.View, k store.Key) {
	head, _ := v.User(k)
	move := store.UserMove{Key: k, From: head.Version, To: head.Version}
	if w.chance(4) {
		move.From += uint64(w.rng.IntN(3)) - 1
		move.To = move.From
	}
	for _, conv := range some(w, 4, w.convs) {
		if conv.Tenant != k.Tenant {
			continue
		}
		move.To += 1 + w.rng.Uint64N(2)
		b.Members = append(b.Members, store.MemberRow{User: k, Member: store.Member{
			Conv: conv.ID, Version: move.To, LastEpoch: w.rng.Uint64N(3), BackEpoch: w.rng.Uint64N(3), LastSeq: w.rng.Uint64N(100), LastOrd: w.rng.Uint64N(100),
			ReadSeq: w.rng.Uint64N(100), ReadOrd: w.rng.Uint64N(100), PeerReadSeq: w.rng.Uint64N(100),
			Pinned: w.chance(50), Hidden: w.chance(10), Remark: strings.Repeat("r", w.rng.IntN(3)), UpdatedMS: int64(w.step),
		}})
	}
	b.Users = append(b.Users, move)
}

func (w *world) addOutbox(b *store.Batch) {
	for _, owner := range some(w, 3, w.owners) {
		b.FanOut = append(b.FanOut, fanOutRow(owner, w.rng.Uint64N(600), int64(w.step)))
	}
	for _, owner := range some(w, 3, w.owners) {
		b.Deliver = append(b.Deliver, deliverRow(owner, w.rng.Uint64N(600), int64(w.step)))
	}
	if w.chance(10) {
		b.Pushes = append(b.Pushes, store.PushRow{User: pick(w, w.users), Push: store.Push{Title: "x", AtMS: int64(w.step)}})
	}
}

func (w *world) addSessions(b *store.Batch, v store.View) {
	for _, k := range some(w, 1, w.users) {
		var highest uint64
		list, _ := v.Sessions(k)
		for _, s := range list {
			highest = max(highest, s.Epoch)
		}
		if w.chance(10) {
			highest++
		}
		b.Sessions = append(b.Sessions, store.SessionMove{User: k, From: highest, To: store.Session{
			Class: pick(w, []string{"web", "mobile"}), Slot: w.rng.Uint32N(2), Device: "d", Epoch: highest + w.rng.Uint64N(2), SeenMS: int64(w.step),
		}})
	}
}

func (w *world) pair() (pair [2]store.View) {
	w.Helper()
	for i, s := range []store.Store{w.twin, w.s} {
		v, err := s.View(context.Background())
		if err != nil {
			w.Fatalf("step %d: view: %v", w.step, err)
		}
		pair[i] = v
	}
	return pair
}

func (w *world) hold() { w.held = w.pair() }

func (w *world) closeHeld() {
	if w.held[0] != nil {
		w.held[0].Close()
		w.held[1].Close()
	}
	w.held = [2]store.View{}
}

func (w *world) compareHeld() {
	w.Helper()
	if w.held[0] != nil {
		w.compareAll(w.held, w.without)
	}
	w.held = [2]store.View{}
}

// sample compares a few random reads of fresh views.
func (w *world) sample() {
	w.Helper()
	pair := w.pair()
	conv, user, n, limit := pick(w, w.convs), pick(w, w.users), w.rng.Uint64N(60), w.rng.IntN(5)
	after := store.RowKey{Owner: pick(w, w.owners), N: n}
	created := store.Created{Before: int64(w.step) - 5, Beyond: int64(w.rng.IntN(2) * (w.step - 2))}
	for what, call := range map[string]func(v store.View) (any, error){
		"Range":       func(v store.View) (any, error) { return v.Range(conv, n/2, n, limit) },
		"Last":        func(v store.View) (any, error) { return v.Last(conv, n, limit) },
		"Modified":    func(v store.View) (any, error) { return v.Modified(conv, n, limit) },
		"Changes":     func(v store.View) (any, error) { return v.Changes(user, n, limit) },
		"Members":     func(v store.View) (any, error) { return v.Members(user, n, limit) },
		"FanOutRows":  func(v store.View) (any, error) { return v.FanOutRows(after, created, limit) },
		"DeliverRows": func(v store.View) (any, error) { return v.DeliverRows(after, created, limit) },
		"Member":      func(v store.View) (any, error) { return v.Member(user, conv.ID) },
		"Message":     func(v store.View) (any, error) { return v.Message(conv, n) },
		"User":        func(v store.View) (any, error) { return v.User(user) },
		"Conv":        func(v store.View) (any, error) { h, err := v.Conv(conv); return withoutZero(h), err },
	} {
		w.same(what, pair, call)
	}
	pair[0].Close()
	pair[1].Close()
}

// compareAll compares everything that two views show, but for some checks, and closes them.
func (w *world) compareAll(pair [2]store.View, without []string) {
	w.Helper()
	points, backwards := !slices.Contains(without, OldPoints), !slices.Contains(without, OldBackwards)
	for _, k := range w.convs {
		w.same("Range", pair, func(v store.View) (any, error) { return v.Range(k, 0, 1<<63, 0) })
		if points {
			w.same("Conv", pair, func(v store.View) (any, error) { h, err := v.Conv(k); return withoutZero(h), err })
			w.same("Modified", pair, func(v store.View) (any, error) { return v.Modified(k, 0, 0) })
		}
	}
	for range min(len(w.used), 30) {
		m := pick(w, w.used)
		if points {
			w.same("ByClientID", pair, func(v store.View) (any, error) { return v.ByClientID(m.Conv, m.Sender, m.ClientMsgID) })
		}
	}
	for _, k := range w.users {
		if points {
			w.same("User", pair, func(v store.View) (any, error) { return v.User(k) })
			w.same("Changes", pair, func(v store.View) (any, error) { return v.Changes(k, 0, 0) })
		}
		w.same("Devices", pair, func(v store.View) (any, error) { return v.Devices(k) })
		w.same("Sessions", pair, func(v store.View) (any, error) { return v.Sessions(k) })
		if backwards {
			w.same("Pushes", pair, func(v store.View) (any, error) { return v.Pushes(k, 0) })
		}
	}
	w.same("FanOutRows", pair, func(v store.View) (any, error) { return v.FanOutRows(store.RowKey{}, store.Anytime(), 0) })
	w.same("DeliverRows", pair, func(v store.View) (any, error) { return v.DeliverRows(store.RowKey{}, store.Anytime(), 0) })
	pair[0].Close()
	pair[1].Close()
}

func (w *world) same(what string, pair [2]store.View, call func(store.View) (any, error)) {
	w.Helper()
	want, err1 := call(pair[0])
	got, err2 := call(pair[1])
	if !errors.Is(err2, err1) || !same(got, want) {
		w.Fatalf("step %d: %s:\n got %s, %v\nwant %s, %v", w.step, what, show(got), err2, show(want), err1)
	}
}
