package memory

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/internal/presence"
	"hongyan/internal/presence/presencetest"
)

func TestSuite(t *testing.T) {
	presencetest.Run(t, presencetest.Backend{
		Open:  func(_ *testing.T, ttl, remember time.Duration) presence.Cache { return New(Config{ttl, remember}) },
		Flush: func(_ *testing.T, c presence.Cache) { c.(*Cache).Flush() },
		Sleep: time.Sleep,
	}, synctest.Test)
}

func TestForgottenUsersTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{time.Minute, time.Hour})
		for i := range 1000 {
			if err := c.Put(t.Context(), presence.User{UID: fmt.Sprint(i)}, presence.Route{Device: "d"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		for i := range 1000 { // some user in every shard
			_ = c.Put(t.Context(), presence.User{UID: fmt.Sprint("new", i)}, presence.Route{Device: "d"})
		}
		left := 0
		for i := range c.shard {
			left += len(c.shard[i].users)
			if len(c.shard[i].users) != c.shard[i].order.Len() {
				t.Fatalf("shard %d: %d users, %d in order", i, len(c.shard[i].users), c.shard[i].order.Len())
			}
		}
		if left != 1000 {
			t.Errorf("%d users held, want the 1000 new ones", left)
		}
	})
}

// A home that finds nothing for a user in a flushed cache must not take him for offline
// (R21): the cache tells "I do not know" from "not connected". Seen to fail with Known set
// for a user without a record.
func TestR21FlushedCacheSaysNotKnownInsteadOfOffline(t *testing.T) {
	c := New(Config{})
	user := presence.User{Tenant: "t", UID: "alice"}
	known := func() bool {
		t.Helper()
		e, err := c.Get(t.Context(), []presence.User{user})
		if err != nil || len(e[0].Routes) > 0 {
			t.Fatalf("%+v, %v", e, err)
		}
		return e[0].Known
	}
	if err := c.Remove(t.Context(), user, "phone", 1); err != nil {
		t.Fatal(err)
	}
	if !known() {
		t.Error("a user who logged out is not known to be offline")
	}
	c.Flush()
	if known() {
		t.Error("a flushed cache claims to know a user")
	}
}
