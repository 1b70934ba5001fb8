package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/das/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := memory.New()
		t.Cleanup(func() { s.Close() })
		return s
	}, storetest.Limits{})
}

func batch(seq uint64) *store.Batch {
	k := store.Key{Tenant: "t", ID: "p:a:b"}
	return &store.Batch{
		Convs:    []store.ConvMove{{Key: k, From: seq - 1, To: store.ConvHead{Seq: seq}}},
		Messages: []*store.Message{{Conv: k, Seq: seq, Sender: "a", ClientMsgID: "id"}},
	}
}

func TestHooks(t *testing.T) {
	refused, lost := errors.New("refused"), errors.New("lost")
	var before, after error
	s := memory.New(memory.Options{
		Exclusive:    true,
		BeforeCommit: func(*store.Batch) error { return before },
		AfterCommit:  func(*store.Batch) error { return after },
	})
	if !s.Exclusive() {
		t.Error("not exclusive")
	}
	head := func() uint64 {
		v, err := s.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		h, _ := v.Conv(store.Key{Tenant: "t", ID: "p:a:b"})
		return h.Seq
	}
	before, after = refused, lost
	if err := s.Commit(t.Context(), batch(1)); !errors.Is(err, refused) || head() != 0 {
		t.Errorf("a refused commit: %v, head %d", err, head())
	}
	before = nil
	if err := s.Commit(t.Context(), batch(1)); !errors.Is(err, lost) || head() != 1 {
		t.Errorf("a commit whose answer is lost: %v, head %d", err, head())
	}
}

func TestStrictPanicsWhenAWriterVouchedForADuplicate(t *testing.T) {
	s := memory.New(memory.Options{Strict: true})
	if err := s.Commit(context.Background(), batch(1)); err != nil {
		t.Fatal(err)
	}
	var fence *store.FenceError
	if err := s.Commit(t.Context(), batch(1)); !errors.As(err, &fence) {
		t.Errorf("a stale writer: %v, want a FenceError", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.Commit(context.Background(), batch(2))
}

func TestClockOfABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		start, _ := s.Now(t.Context())
		time.Sleep(time.Hour)
		if now, _ := s.Now(t.Context()); now-start != time.Hour.Milliseconds() {
			t.Errorf("an hour took %d ms", now-start)
		}
	})
}

func TestCloseNamesLeakedViews(t *testing.T) {
	s := memory.New()
	if _, err := s.View(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Close() == nil {
		t.Error("an open view went unnoticed")
	}
}
