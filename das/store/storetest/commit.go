package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"hongyan/das/store"
	"hongyan/idl/im"
)

func testEmpty(f *fixture) {
	v := f.view()
	conv, err := v.Conv(chat)
	equal(f, "conversation", conv, store.ConvHead{})
	equal(f, "error", err, nil)
	user, err := v.User(key("alice"))
	equal(f, "user", user, store.UserHead{})
	equal(f, "error", err, nil)
	bucket, err := v.Bucket(store.Buckets - 1)
	equal(f, "bucket", bucket, store.BucketState{Epoch: 1, Open: true})
	equal(f, "error", err, nil)
	m, err := v.Message(chat, 1)
	notFound(f, "message", m, err)
	m, err = v.ByClientID(chat, "alice", "x")
	notFound(f, "by client id", m, err)
	row, err := v.Member(key("alice"), chat.ID)
	notFound(f, "member", row, err)
	for what, n := range map[string]func() (int, error){
		"range":    func() (int, error) { l, err := v.Range(chat, 0, 9, 0); return len(l), err },
		"last":     func() (int, error) { l, err := v.Last(chat, 0, 9); return len(l), err },
		"modified": func() (int, error) { l, err := v.Modified(chat, 0, 9); return len(l), err },
		"changes":  func() (int, error) { l, err := v.Changes(key("alice"), 0, 9); return len(l), err },
		"members":  func() (int, error) { l, err := v.Members(key("alice"), 0, 9); return len(l), err },
		"devices":  func() (int, error) { l, err := v.Devices(key("alice")); return len(l), err },
		"sessions": func() (int, error) { l, err := v.Sessions(key("alice")); return len(l), err },
		"fan-out":  func() (int, error) { l, err := v.FanOutRows(store.RowKey{}, store.Anytime(), 9); return len(l), err },
		"deliver":  func() (int, error) { l, err := v.DeliverRows(store.RowKey{}, store.Anytime(), 9); return len(l), err },
		"pushes":   func() (int, error) { l, err := v.Pushes(key("alice"), 9); return len(l), err },
	} {
		if n, err := n(); n != 0 || err != nil {
			f.Errorf("%s of an empty store: %d rows, %v", what, n, err)
		}
	}
	f.commit(&store.Batch{})
	if now, err := f.s.Now(context.Background()); err != nil || now < 1_000_000_000_000 {
		f.Errorf("clock: %d, %v", now, err)
	}
}

func testMessageFields(f *fixture) {
	full := &store.Message{
		Conv: chat, Seq: 1, Sender: "alice", ClientMsgID: "not a uuid \xff", BodyHash: 1<<64 - 1, Kind: im.Kind_EVENT_EDIT,
		Text: "héllo", Data: []byte{0, 1, 255}, CreatedMS: 1_700_000_000_123, Ord: 1 << 40, OwnOrd: 7, ModSeq: 9,
		Recalled: true, TargetSeq: 3,
	}
	bare := &store.Message{Conv: chat, Seq: 2}
	upper := text(chat, 3, "bob") // looks like a UUID, but must come back as it was
	upper.ClientMsgID = "0190A0B0-C0D0-7000-8000-ABCDEFABCDEF"
	long := text(chat, 4, "bob")
	long.Data = bytes.Repeat([]byte("x"), 256<<10)
	b := &store.Batch{
		Convs:    []store.ConvMove{{Key: chat, To: store.ConvHead{Seq: 4, Ord: 4}}},
		Messages: []*store.Message{full, bare, upper, long},
	}
	f.commit(b)
	for _, want := range b.Messages {
		got := read(f, func(v store.View) (*store.Message, error) { return v.Message(chat, want.Seq) })
		equal(f, "message", got, want)
	}
	equal(f, "range", read(f, func(v store.View) ([]*store.Message, error) { return v.Range(chat, 1, 4, 0) }), b.Messages)
}

func testAllOrNothing(f *fixture) {
	f.commit(entries(chat, 0, 1, "alice"))
	b := entries(desk, 0, 2, "carol")
	addEntries(b, chat, 0, 1, "bob") // stale
	more := rows(key("alice"), 0, desk.ID)
	b.Users, b.Members = more.Users, more.Members
	b.Deliver = []store.DeliverRow{{RowKey: store.RowKey{Owner: "l1", N: 1}}}
	b.Cursors = []store.DeviceRow{{User: key("alice"), Device: store.Device{ID: "phone", Cursor: 1}}}
	fence := f.fenced(b)
	equal(f, "conversations", fence.Convs, []store.Key{chat})

	v := f.view()
	m, err := v.Message(desk, 1)
	notFound(f, "message of a refused batch", m, err)
	m, err = v.ByClientID(desk, "carol", uuid(desk.ID, 1))
	notFound(f, "key of a refused batch", m, err)
	row, err := v.Member(key("alice"), desk.ID)
	notFound(f, "row of a refused batch", row, err)
	devices, err := v.Devices(key("alice"))
	if head, _ := v.User(key("alice")); head.Version != 0 || len(devices) != 0 || err != nil {
		f.Errorf("a refused batch left head %v, devices %v", head, devices)
	}
	deliver, err := v.DeliverRows(store.RowKey{}, store.Anytime(), 0)
	if len(deliver) != 0 || err != nil {
		f.Errorf("a refused batch left rows %v", deliver)
	}
	// The beliefs that were right still are.
	f.commit(entries(desk, 0, 2, "carol"))
	f.commit(rows(key("alice"), 0, desk.ID))
}

func testNoAliasing(f *fixture) {
	b := entries(chat, 0, 1, "alice")
	b.Messages[0].Data = []byte("before")
	b.Deliver = []store.DeliverRow{{RowKey: store.RowKey{Owner: "l", N: 1}, Entries: []store.DeliverEntry{{Version: 1}}}}
	f.commit(b)
	b.Messages[0].Data[0], b.Messages[0].Text = 'X', "changed"
	b.Deliver[0].Entries[0].Version = 99
	b.Convs[0].To.Own["alice"] = 99

	get := func(v store.View) (*store.Message, error) { return v.Message(chat, 1) }
	m := read(f, get)
	equal(f, "data", string(m.Data), "before")
	m.Data[0], m.Text = 'Y', "changed"
	equal(f, "data after the reader wrote to its copy", string(read(f, get).Data), "before")
	head := read(f, func(v store.View) (store.ConvHead, error) { return v.Conv(chat) })
	equal(f, "own", head.Own["alice"], 1)
	head.Own["alice"] = 77
	equal(f, "own", read(f, func(v store.View) (store.ConvHead, error) { return v.Conv(chat) }).Own["alice"], 1)
	row := read(f, func(v store.View) ([]store.DeliverRow, error) {
		return v.DeliverRows(store.RowKey{}, store.Created{Before: 9}, 9)
	})
	equal(f, "row", row[0].Entries[0].Version, 1)
}

// testInvalid was seen to fail with heads that were not forgotten after a batch was given up.
func testInvalid(f *fixture) {
	f.commit(entries(chat, 0, 2, "alice"))
	f.commit(rows(key("alice"), 0, chat.ID))
	alice := key("alice")
	long := string(bytes.Repeat([]byte("u"), store.MaxID+1))
	move := func(from, to uint64) []store.ConvMove {
		return []store.ConvMove{{Key: chat, From: from, To: store.ConvHead{Seq: to}}}
	}
	member := func(conv string, version uint64) store.MemberRow {
		return store.MemberRow{User: alice, Member: store.Member{Conv: conv, Version: version}}
	}
	user := func(to uint64) []store.UserMove { return []store.UserMove{{Key: alice, From: 1, To: to}} }
	msgs := func(m ...*store.Message) []*store.Message { return m }
	for name, b := range map[string]*store.Batch{
		"an entry without a move":      {Messages: msgs(text(chat, 3, "bob"))},
		"a move without entries":       {Convs: move(2, 3)},
		"a move that goes nowhere":     {Convs: move(2, 2)},
		"a move back":                  {Convs: move(2, 1)},
		"a hole between entries":       {Convs: move(2, 4), Messages: msgs(text(chat, 4, "bob"), text(chat, 4, "bob"))},
		"entries out of order":         {Convs: move(2, 4), Messages: msgs(text(chat, 4, "bob"), text(chat, 3, "bob"))},
		"too few entries":              {Convs: move(2, 4), Messages: msgs(text(chat, 3, "bob"))},
		"two moves of a conversation":  {Convs: append(move(2, 3), move(2, 3)...), Messages: msgs(text(chat, 3, "bob"))},
		"a rewrite without a move":     {Rewrites: msgs(text(chat, 1, "alice"))},
		"a rewrite of nothing":         {Convs: move(2, 3), Messages: msgs(text(chat, 3, "bob")), Rewrites: msgs(text(chat, 9, "bob"))},
		"a rewrite that changes hands": {Convs: move(2, 3), Messages: msgs(text(chat, 3, "bob")), Rewrites: msgs(text(chat, 1, "mallory"))},
		"a row without its user":       {Members: []store.MemberRow{member(chat.ID, 2)}},
		"a row behind its user":        {Users: user(2), Members: []store.MemberRow{member(chat.ID, 1)}},
		"a row ahead of its user":      {Users: user(2), Members: []store.MemberRow{member(chat.ID, 3)}},
		"no row at the new version":    {Users: user(3), Members: []store.MemberRow{member(chat.ID, 2)}},
		"a version twice":              {Users: user(2), Members: []store.MemberRow{member(chat.ID, 2), member(desk.ID, 2)}},
		"a row twice":                  {Users: user(3), Members: []store.MemberRow{member(chat.ID, 2), member(chat.ID, 3)}},
		"two moves of a user":          {Users: []store.UserMove{{Key: alice, From: 1, To: 1}, {Key: alice, From: 1, To: 1}}},
		"a user who moves back":        {Users: user(0)},
		"a zero byte in a conversation": {Convs: []store.ConvMove{{Key: key("a\x00b"), To: store.ConvHead{Seq: 1}}},
			Messages: msgs(text(key("a\x00b"), 1, "bob"))},
		"a user without id":       {Users: []store.UserMove{{Key: key("")}}},
		"an id too long":          {Users: []store.UserMove{{Key: key(long)}}},
		"a tenant too long":       {Users: []store.UserMove{{Key: store.Key{Tenant: long, ID: "a"}}}},
		"a sender too long":       {Convs: move(2, 3), Messages: msgs(text(chat, 3, long))},
		"a row without owner":     {FanOut: []store.FanOutRow{{RowKey: store.RowKey{N: 1}}}},
		"a zero byte in an owner": {Deliver: []store.DeliverRow{{RowKey: store.RowKey{Owner: "a\x00", N: 1}}}},
		"an empty range":          {DeliverDone: []store.RowRange{{Owner: "l", From: 2, To: 1}}},
		"no such bucket":          {Buckets: []store.BucketFence{{ID: store.Buckets, Epoch: 1}}},
		"a device id too long":    {Cursors: []store.DeviceRow{{User: alice, Device: store.Device{ID: long}}}},
		"a session class too long": {Sessions: []store.SessionMove{
			{User: alice, To: store.Session{Class: long}}}},
	} {
		if err := f.s.Commit(context.Background(), b); !errors.Is(err, store.ErrInvalid) {
			f.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	// Nothing of it was written, nor believed.
	f.commit(entries(chat, 2, 3, "bob"))
	f.commit(rows(alice, 1, desk.ID, chat.ID))
	equal(f, "entries", seqs(read(f, func(v store.View) ([]*store.Message, error) { return v.Range(chat, 0, 99, 0) })), []uint64{1, 2, 3})
}

func testFencesNamed(f *fixture) {
	f.commit(entries(chat, 0, 1, "alice"))
	f.commit(rows(key("alice"), 0, chat.ID))
	f.commit(&store.Batch{Sessions: []store.SessionMove{{User: key("alice"), To: store.Session{Class: "mobile", Epoch: 1}}}})
	b := entries(chat, 3, 4, "bob")
	addEntries(b, desk, 0, 1, "carol")
	dup := text(desk, 2, "carol")
	dup.ClientMsgID, dup.MayRepeat = uuid(desk.ID, 1), true
	b.Messages, b.Convs[1].To.Seq = append(b.Messages, dup), 2
	r := rows(key("alice"), 4, chat.ID)
	b.Users, b.Members = append(r.Users, store.UserMove{Key: key("bob"), From: 1, To: 1}), r.Members
	b.Sessions = []store.SessionMove{{User: key("alice"), To: store.Session{Class: "web"}}}
	b.Buckets = []store.BucketFence{{ID: 3, Epoch: 1}, {ID: 4, Epoch: 2}}
	fence := f.fenced(b)
	equal(f, "buckets", fence.Buckets, []uint32{4})
	equal(f, "conversations", fence.Convs, []store.Key{chat})
	equal(f, "users", fence.Users, []store.Key{key("alice"), key("bob")})
	equal(f, "sessions", fence.Sessions, []store.Key{key("alice")})
	if len(fence.Duplicates) != 1 || fence.Duplicates[0] != dup {
		f.Errorf("duplicates: %v, want the very message of the batch", fence.Duplicates)
	}
}

// testUserFence was seen to fail with the comparison of users taken out of Commit.
func testUserFence(f *fixture) {
	alice := key("alice")
	f.commit(rows(alice, 0, "c1", "c2"))
	for _, from := range []uint64{0, 1, 3, 1 << 40} { // behind and ahead
		equal(f, "users", f.fenced(rows(alice, from, "c3")).Users, []store.Key{alice})
	}
	f.commit(rows(alice, 2, "c3"))
	f.commit(&store.Batch{Users: []store.UserMove{{Key: alice, From: 3, To: 3}}})
	equal(f, "head", read(f, func(v store.View) (store.UserHead, error) { return v.User(alice) }), store.UserHead{Version: 3})
}

// testConvFence was seen to fail with the comparison of conversations taken out of Commit.
func testConvFence(f *fixture) {
	f.commit(entries(chat, 0, 2, "alice"))
	for _, from := range []uint64{0, 1, 3, 1 << 40} {
		b := &store.Batch{}
		addEntries(b, chat, from, from+1, "bob")
		b.Messages[0].ClientMsgID = "other"
		fence := f.fenced(b)
		equal(f, "conversations", fence.Convs, []store.Key{chat})
		equal(f, "duplicates", len(fence.Duplicates), 0)
	}
	f.commit(entries(chat, 2, 5, "bob"))
	head := read(f, func(v store.View) (store.ConvHead, error) { return v.Conv(chat) })
	equal(f, "head", head.Seq, 5)
}

// testRacingWriters has several das that believe they own the same log.
func testRacingWriters(f *fixture) {
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				if err := appendOne(f.s, fmt.Sprintf("u%d", w), n); err != nil {
					f.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	got := read(f, func(v store.View) ([]*store.Message, error) { return v.Range(chat, 0, 1<<40, 0) })
	if len(got) != writers*each {
		f.Fatalf("%d entries, want %d", len(got), writers*each)
	}
	next := map[string]int{}
	for i, m := range got {
		if m.Seq != uint64(i+1) || m.ClientMsgID != fmt.Sprint(next[m.Sender]) {
			f.Fatalf("entry %d is %s's %s at seq %d", i, m.Sender, m.ClientMsgID, m.Seq)
		}
		next[m.Sender]++
	}
	rows := read(f, func(v store.View) ([]store.Member, error) { return v.Changes(key("alice"), 0, 0) })
	equal(f, "rows", len(rows), writers)
	head := read(f, func(v store.View) (store.UserHead, error) { return v.User(key("alice")) })
	equal(f, "version", head.Version, writers*each)
}

// appendOne reads the heads and appends, until it was not overtaken.
func appendOne(s store.Store, sender string, n int) error {
	for {
		v, err := s.View(context.Background())
		if err != nil {
			return err
		}
		conv, err1 := v.Conv(chat)
		user, err2 := v.User(key("alice"))
		v.Close()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		b := entries(chat, conv.Seq, conv.Seq+1, sender)
		b.Messages[0].ClientMsgID = fmt.Sprint(n)
		r := rows(key("alice"), user.Version, "of "+sender)
		b.Users, b.Members = r.Users, r.Members
		err = s.Commit(context.Background(), b)
		var fence *store.FenceError
		if !errors.As(err, &fence) {
			return err
		}
	}
}

// testDuplicates was seen to fail with the look-up of keys taken out, on disk and within
// the batch.
func testDuplicates(f *fixture) {
	f.commit(entries(chat, 0, 1, "alice"))
	id := uuid(chat.ID, 1)
	again := func(seq uint64, conv store.Key, sender, id string) *store.Batch {
		b := &store.Batch{}
		addEntries(b, conv, seq-1, seq, sender)
		b.Messages[0].ClientMsgID, b.Messages[0].MayRepeat = id, true
		return b
	}
	b := again(2, chat, "alice", id)
	fence := f.fenced(b)
	equal(f, "conversations", len(fence.Convs), 0)
	if len(fence.Duplicates) != 1 || fence.Duplicates[0] != b.Messages[0] {
		f.Fatalf("duplicates: %v, want the message itself", fence.Duplicates)
	}
	fence = f.fenced(again(1, chat, "bob", "fresh")) // a stale seq is no duplicate
	equal(f, "conversations", fence.Convs, []store.Key{chat})
	equal(f, "duplicates", len(fence.Duplicates), 0)

	f.commit(again(2, chat, "bob", id))   // of another sender
	f.commit(again(1, desk, "alice", id)) // in another conversation
	f.commit(again(3, chat, "alice", "")) // without a key
	f.commit(again(4, chat, "alice", ""))

	b = again(5, chat, "alice", "twice")
	b.Convs[0].To.Seq = 7
	for seq := uint64(6); seq <= 7; seq++ {
		m := text(chat, seq, "alice")
		m.ClientMsgID, m.MayRepeat = "twice", true
		b.Messages = append(b.Messages, m)
	}
	fence = f.fenced(b)
	if len(fence.Duplicates) != 2 || fence.Duplicates[0] != b.Messages[1] || fence.Duplicates[1] != b.Messages[2] {
		f.Errorf("duplicates within a batch: %v, want the later two", fence.Duplicates)
	}
}

// testSnapshot was seen to fail with a view that opens its iterator anew for each read.
func testSnapshot(f *fixture) {
	f.commit(entries(chat, 0, 1, "alice"))
	f.commit(rows(key("alice"), 0, chat.ID))
	old := f.view()
	b := entries(chat, 1, 2, "bob")
	edited := text(chat, 1, "alice")
	edited.Text, edited.ModSeq = "edited", 2
	b.Rewrites = []*store.Message{edited}
	r := rows(key("alice"), 1, chat.ID)
	b.Users, b.Members = r.Users, r.Members
	b.Deliver = []store.DeliverRow{{RowKey: store.RowKey{Owner: "l", N: 1}}}
	b.Cursors = []store.DeviceRow{{User: key("alice"), Device: store.Device{ID: "d"}}}
	f.commit(b)

	head, _ := old.Conv(chat)
	equal(f, "head in the old view", head.Seq, 1)
	list, _ := old.Range(chat, 0, 9, 0)
	equal(f, "entries in the old view", seqs(list), []uint64{1})
	equal(f, "text in the old view", list[0].Text, "message 1")
	user, _ := old.User(key("alice"))
	equal(f, "user in the old view", user.Version, 1)
	changes, _ := old.Changes(key("alice"), 0, 0)
	equal(f, "changes in the old view", versions(changes), []uint64{1})
	_, err := old.ByClientID(chat, "bob", uuid(chat.ID, 2))
	notFound(f, "key in the old view", 0, err)
	deliver, _ := old.DeliverRows(store.RowKey{}, store.Created{Before: 9}, 0)
	devices, _ := old.Devices(key("alice"))
	equal(f, "rows in the old view", len(deliver)+len(devices), 0)
	modified, _ := old.Modified(chat, 0, 0)
	equal(f, "modified in the old view", len(modified), 0)

	fresh := f.view()
	head, _ = fresh.Conv(chat)
	equal(f, "head in a new view", head.Seq, 2)
	m, _ := fresh.Message(chat, 1)
	equal(f, "text in a new view", m.Text, "edited")
}

// bucketSetter is what administration needs beside the contract.
type bucketSetter interface {
	SetBucket(ctx context.Context, id uint32, state store.BucketState) error
}

// testBuckets was seen to fail with the comparison of buckets taken out of Commit.
func testBuckets(f *fixture) {
	admin, ok := f.s.(bucketSetter)
	if !ok {
		f.Skip("the store has no SetBucket")
	}
	b := entries(chat, 0, 1, "alice")
	b.Buckets = []store.BucketFence{{ID: 7, Epoch: 1}}
	f.commit(b)
	for _, state := range []store.BucketState{{Epoch: 2, Open: true}, {Epoch: 1, Open: false}} {
		if err := admin.SetBucket(context.Background(), 7, state); err != nil {
			f.Fatal(err)
		}
		equal(f, "bucket", read(f, func(v store.View) (store.BucketState, error) { return v.Bucket(7) }), state)
		b = entries(chat, 1, 2, "alice")
		b.Buckets = []store.BucketFence{{ID: 6, Epoch: 1}, {ID: 7, Epoch: 1}}
		equal(f, "buckets", f.fenced(b).Buckets, []uint32{7})
	}
	if err := admin.SetBucket(context.Background(), 7, store.BucketState{Epoch: 3, Open: true}); err != nil {
		f.Fatal(err)
	}
	b.Buckets[1].Epoch = 3
	f.commit(b)
}

func testCancelled(f *fixture) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.s.Commit(ctx, entries(chat, 0, 1, "alice")); !errors.Is(err, context.Canceled) {
		f.Errorf("commit under a cancelled context: %v", err)
	}
	if _, err := f.s.View(ctx); !errors.Is(err, context.Canceled) {
		f.Errorf("view under a cancelled context: %v", err)
	}
	v, err := f.s.View(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	v.Close()
	v.Close()
	if _, err := v.Conv(chat); !errors.Is(err, store.ErrClosed) {
		f.Errorf("read of a closed view: %v, want ErrClosed", err)
	}
	if err := f.s.Close(); err != nil {
		f.Errorf("close: %v", err)
	}
	if err := f.s.Commit(context.Background(), entries(chat, 0, 1, "alice")); !errors.Is(err, store.ErrClosed) {
		f.Errorf("commit to a closed store: %v, want ErrClosed", err)
	}
	if _, err := f.s.View(context.Background()); !errors.Is(err, store.ErrClosed) {
		f.Errorf("view of a closed store: %v, want ErrClosed", err)
	}
}
