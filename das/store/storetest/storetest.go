// Package storetest is the one suite that every store passes: each sentence of the
// contract in package store, and a comparison with the memory store over random batches.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"hongyan/das/store"
	"hongyan/idl/im"
)

// Limits are for a store that is slow, or known to be wrong. Zero: there are none.
type Limits struct {
	// Steps is the most of a comparison with the memory store; 0: as many as it wants.
	Steps int
	// Without names checks that are left out.
	Without []string
}

// Run runs the suite. open returns a new, empty store and arranges for its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) store.Store, limits Limits) {
	for _, c := range []struct {
		name string
		test func(*fixture)
	}{
		{"Empty", testEmpty},
		{"MessageKeepsEveryField", testMessageFields},
		{"CommitIsAllOrNothing", testAllOrNothing},
		{"CommitKeepsNothingOfTheBatch", testNoAliasing},
		{"InvalidBatchesAreRefused", testInvalid},
		{"EveryWrongBeliefIsNamed", testFencesNamed},
		{"R01VersionsRiseOnlyFromTheHead", testUserFence},
		{"R02AppendsRiseOnlyFromTheHead", testConvFence},
		{"R01R02RacingWritersLeaveNoHole", testRacingWriters},
		{"R03DuplicateIsNotAStaleSeq", testDuplicates},
		{"R16ViewIsOneSnapshot", testSnapshot},
		{"R17BucketsFence", testBuckets},
		{"R24HeadCountsOwnMessages", testOwn},
		{"R25RewritesAndModified", testModified},
		{"R28FlagsOfAConversation", testFlags},
		{"RangeAndLast", testRanges},
		{"ByClientID", testByClientID},
		{"MemberPositionsOnlyRise", testMemberRaise},
		{"ChangesAndMembers", testChanges},
		{"DevicesAndR18Cursors", testDevices},
		{"Woken", testWoken},
		{"R27SessionsAreFenced", testSessions},
		{"R06OutboxRowsKeepTheirOrder", testOutboxRows},
		{"R07RangeDeleteCoversOnlyItsOwnersRange", testOutboxDone},
		{"LazyBatches", testLazy},
		{"PushesNewestFirst", testPushes},
		{"TenantsAndPrefixesDoNotMix", testIsolation},
		{"CancelledAndClosed", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&fixture{T: t, s: open(t)}) })
	}
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprintf("SameAsMemory/seed%d", seed), func(t *testing.T) {
			Compare(t, seed, 300, open(t), nil, limits)
		})
	}
}

// fixture is one test and its store.
type fixture struct {
	*testing.T
	s store.Store
}

func (f *fixture) commit(b *store.Batch) {
	f.Helper()
	if err := f.s.Commit(context.Background(), b); err != nil {
		f.Fatalf("commit: %v", err)
	}
}

// fenced commits what must fail and returns which beliefs were wrong.
func (f *fixture) fenced(b *store.Batch) *store.FenceError {
	f.Helper()
	err := f.s.Commit(context.Background(), b)
	var fence *store.FenceError
	if !errors.As(err, &fence) || fence.Empty() {
		f.Fatalf("commit: %v, want a FenceError", err)
	}
	return fence
}

func (f *fixture) view() store.View {
	f.Helper()
	v, err := f.s.View(context.Background())
	if err != nil {
		f.Fatalf("view: %v", err)
	}
	f.Cleanup(v.Close)
	return v
}

// read calls a method of a fresh view.
func read[T any](f *fixture, call func(store.View) (T, error)) T {
	f.Helper()
	v, err := f.s.View(context.Background())
	if err != nil {
		f.Fatalf("view: %v", err)
	}
	defer v.Close()
	got, err := call(v)
	if err != nil {
		f.Fatalf("read: %v", err)
	}
	return got
}

func equal[T any](f *fixture, what string, got, want T) {
	f.Helper()
	if !same(got, want) {
		f.Fatalf("%s:\n got %s\nwant %s", what, show(got), show(want))
	}
}

func notFound[T any](f *fixture, what string, _ T, err error) {
	f.Helper()
	if !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("%s: %v, want ErrNotFound", what, err)
	}
}

// same is deep equality for which an empty slice or map is as good as none.
func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || show(a) == show(b)
}

// show prints rows with what their pointers point to.
func show(x any) string {
	v := reflect.ValueOf(x)
	switch {
	case v.Kind() == reflect.Slice && v.Len() > 0 && v.Type().Elem().Kind() != reflect.Uint8:
		s := "["
		for i := range v.Len() {
			s += "\n  " + show(v.Index(i).Interface())
		}
		return s + "\n]"
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return show(v.Elem().Interface())
	}
	return fmt.Sprintf("%+v", x)
}

func key(id string) store.Key { return store.Key{Tenant: "shop", ID: id} }

var (
	chat = key("p:alice:bob")
	desk = key("p:alice:carol")
)

// text is an ordinary message; its client_msg_id is a UUID as clients write them.
func text(conv store.Key, seq uint64, sender string) *store.Message {
	return &store.Message{
		Conv: conv, Seq: seq, Sender: sender, ClientMsgID: uuid(conv.ID, seq), Kind: im.Kind_TEXT,
		Text: fmt.Sprintf("message %d", seq), CreatedMS: 1_700_000_000_000 + int64(seq), Ord: seq, OwnOrd: seq,
	}
}

func uuid(id string, n uint64) string {
	h := uint64(14695981039346656037)
	for _, c := range []byte(id) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%08x-%04x-7%03x-8000-%012x", uint32(h), uint16(h>>32), h>>48&0xfff, n)
}

// addEntries puts the entries after from into b, by one sender, with the move of the head.
func addEntries(b *store.Batch, conv store.Key, from, to uint64, sender string) {
	for seq := from + 1; seq <= to; seq++ {
		b.Messages = append(b.Messages, text(conv, seq, sender))
	}
	b.Convs = append(b.Convs, store.ConvMove{Key: conv, From: from, To: store.ConvHead{
		Seq: to, Ord: to, Own: map[string]uint64{sender: to},
	}})
}

func entries(conv store.Key, from, to uint64, sender string) *store.Batch {
	b := &store.Batch{}
	addEntries(b, conv, from, to, sender)
	return b
}

// rows moves a user to to with one row for each conversation.
func rows(user store.Key, from uint64, convs ...string) *store.Batch {
	b := &store.Batch{Users: []store.UserMove{{Key: user, From: from, To: from + uint64(len(convs))}}}
	for i, c := range convs {
		b.Members = append(b.Members, store.MemberRow{User: user, Member: store.Member{
			Conv: c, Version: from + uint64(i) + 1, LastSeq: 1, LastOrd: 1, UpdatedMS: 5,
		}})
	}
	return b
}

func seqs(list []*store.Message) []uint64 {
	out := []uint64{}
	for _, m := range list {
		out = append(out, m.Seq)
	}
	return out
}

func versions(list []store.Member) []uint64 {
	out := []uint64{}
	for _, m := range list {
		out = append(out, m.Version)
	}
	return out
}
