package extlogic

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
)

// The delivery row of a user without any device ends by woken_version alone (R09), so it
// is raised although there is nothing to wake. Seen to fail with a return from wake where
// the user has no devices.
func TestR09UserWithoutDevicesIsWokenToo(t *testing.T) {
	bubble(t, func(w *world) {
		defer w.start()()
		w.das.message("p:alice:bob", "bob", "hi")
		w.offline(1)
		w.wantPushes(0)
		w.wantWoken(1)
	})
}

// Also where every device is silent, and where the last attempt at a vendor failed.
func TestR09WokenRisesWhateverThereIsToShow(t *testing.T) {
	for name, change := range map[string]func(*im.Conversation){
		"muted":             func(c *im.Conversation) { c.Muted = true },
		"blocked":           func(c *im.Conversation) { c.Blocked = true },
		"read elsewhere":    func(c *im.Conversation) { c.ReadSeq, c.Unread = c.LastSeq, 0 },
		"own message":       func(c *im.Conversation) { c.Messages[0].Sender = "alice" },
		"recalled":          func(c *im.Conversation) { c.Messages[0].Recalled = true },
		"an event":          func(c *im.Conversation) { c.Messages[0].Kind = im.Kind_EVENT_BLOCK },
		"nothing but state": func(c *im.Conversation) { c.Messages = nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.das.devices = []*tier.Device{device("phone", "ios")}
				change(w.das.message("p:alice:bob", "bob", "hi"))
				defer w.start()()
				w.offline(1)
				w.wantPushes(0)
				w.wantWoken(1)
			})
		})
	}
}

func TestZZ08EachDeviceIsPushedOncePerConversation(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios"), device("pad", "android")}
		for i := range 3 {
			w.das.message("p:alice:bob", "bob", fmt.Sprintf("number %d\n\tof bob", i))
		}
		w.das.message("s:orders:alice", "orders", "order 7 is on its way")
		defer w.start()()
		w.offline(4)
		got := w.wantPushes(4)
		for i, want := range []string{"phone p:alice:bob/3", "phone s:orders:alice/1", "pad p:alice:bob/3", "pad s:orders:alice/1"} {
			if n := got[i]; fmt.Sprintf("%s %s/%d", n.Device, n.Conv, n.Seq) != want || n.Badge != 4 || n.Collapse != n.Conv || n.Token != "token of "+n.Device {
				t.Errorf("push %d is %+v, want %s", i, n, want)
			}
		}
		if got[0].Title != "bob" || got[0].Body != "number 2 of bob" || got[1].Title != "orders" {
			t.Errorf("pushes %+v", got[:2])
		}
		w.wantWoken(4)
		if r := w.das.pushes; len(r) != 4 || r[3].Uid != "alice" || r[3].Device != "phone" || r[3].Platform != "ios" || r[3].Title != "bob" ||
			r[3].Badge != 4 || r[3].AtMs != time.Now().UnixMilli() || w.das.writes != 1 {
			t.Errorf("records %+v in %d commits", r, w.das.writes)
		}
	})
}

func TestDD16TheSameEventTwicePushesOnce(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		defer w.start()()
		w.das.message("p:alice:bob", "bob", "one")
		w.das.message("p:alice:bob", "bob", "two")
		w.offline(1)
		w.offline(1)
		w.offline(2) // the first wake spoke for it too
		w.wantPushes(1)
		w.wantWoken(2)
		w.das.message("p:alice:bob", "bob", "three")
		w.offline(3)
		if got := w.wantPushes(2); got[1].Body != "three" {
			t.Errorf("the second push is %+v", got[1])
		}
		// The row moves without anything new: what was shown is not shown again.
		w.das.set(func(d *fakeDas) { d.head++; d.rows[0].Version = d.head })
		w.offline(4)
		w.wantPushes(2)
		w.wantWoken(4)
	})
}

func TestAckedMeanwhileIsNotPushed(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		w.das.message("p:alice:bob", "bob", "one")
		w.das.message("p:alice:carol", "carol", "on its way to a connection that acks")
		w.das.cursor = 1
		defer w.start()()
		w.offline(1)
		w.wantPushes(0)
		w.wantWoken(1) // of version 2 nothing was said
	})
}

// A failed vendor is tried again, for the devices that it failed for, and not for ever.
func TestVendorFails(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios"), device("pad", "ios")}
		w.das.message("p:alice:bob", "bob", "hi")
		var failing atomic.Bool
		failing.Store(true)
		w.vendor.push = func(_ context.Context, n Notification) (Result, error) {
			if failing.Load() && n.Device == "phone" {
				return 0, errVendor
			}
			return Accepted, nil
		}
		defer w.start()()
		w.offline(1)
		w.wantPushes(1)
		w.wantWoken(0)
		failing.Store(false)
		time.Sleep(5 * time.Second)
		if got := w.wantPushes(2); got[0].Device != "pad" || got[1].Device != "phone" {
			t.Errorf("pushes %+v", got)
		}
		w.wantWoken(1)

		failing.Store(true)
		w.das.message("p:alice:bob", "bob", "again")
		w.offline(2)
		time.Sleep(long)
		w.wantPushes(3)
		w.wantWoken(2)
		if n := w.dead(mq.TopicOffline, groupPush); n != 0 {
			t.Errorf("%d dead letters", n)
		}
	})
}

func TestBadTokenIsNotTriedAgain(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		w.das.message("p:alice:bob", "bob", "hi")
		w.vendor.push = func(context.Context, Notification) (Result, error) { return BadToken, nil }
		defer w.start()()
		w.offline(1)
		time.Sleep(long)
		if w.vendor.tries != 1 || len(w.das.pushes) != 0 {
			t.Errorf("%d tries, records %+v", w.vendor.tries, w.das.pushes)
		}
		w.wantWoken(1)
	})
}

func TestSlowVendorIsBounded(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		w.das.message("p:alice:bob", "bob", "hi")
		w.vendor.push = func(ctx context.Context, _ Notification) (Result, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		defer w.start()()
		w.offline(1)
		time.Sleep(2 * long)
		w.wantWoken(1)
		if w.vendor.tries != mq.MaxAttempts {
			t.Errorf("%d tries, want %d", w.vendor.tries, mq.MaxAttempts)
		}
	})
}

// An instance dies with a push in its hands: another one does it, and nothing is lost.
func TestZZ19AnInstanceDiesUnderAPush(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		w.das.message("p:alice:bob", "bob", "hi")
		w.vendor.push = func(ctx context.Context, _ Notification) (Result, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		die := w.start()
		w.offline(1)
		w.vendor.mu.Lock()
		w.vendor.push = nil
		w.vendor.mu.Unlock()
		defer w.start()()
		die()
		synctest.Wait()
		w.wantPushes(1)
		w.wantWoken(1)
	})
}

func TestStoreIsDown(t *testing.T) {
	for name, down := range map[string]error{
		"unreachable": code.Errorf(code.Unavailable, "refused"), "overloaded": code.Errorf(code.Overloaded, "full"), "slow": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.das.devices = []*tier.Device{device("phone", "ios")}
				w.das.message("p:alice:bob", "bob", "hi")
				w.das.down = down
				defer w.start()()
				w.offline(1)
				time.Sleep(3 * time.Minute)
				w.das.set(func(d *fakeDas) { d.down = nil })
				time.Sleep(2 * time.Minute)
				w.wantPushes(1)
				w.wantWoken(1)
			})
		})
	}
}

// The positions of another epoch are not comparable: the store's word is taken.
func TestEventOfAnEarlierEpoch(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		w.das.epoch = 2
		w.das.message("p:alice:bob", "bob", "hi")
		defer w.start()()
		w.offline(90)
		w.wantPushes(1)
		w.wantWoken(1)
	})
}

// An event that runs ahead of what the store shows comes again.
func TestEventAheadOfTheStore(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		defer w.start()()
		w.offline(1)
		w.wantWoken(0)
		w.das.message("p:alice:bob", "bob", "hi")
		time.Sleep(5 * time.Second)
		w.wantPushes(1)
		w.wantWoken(1)
	})
}

func TestManyConversationsAreBounded(t *testing.T) {
	bubble(t, func(w *world) {
		w.das.devices = []*tier.Device{device("phone", "ios")}
		const n = 250 // more than a page of SYNC
		for i := range n {
			w.das.message(fmt.Sprintf("p:alice:u%03d", i), fmt.Sprintf("u%03d", i), "hi")
		}
		defer w.start()()
		w.offline(n)
		got := w.wantPushes(w.cfg.MaxConversations)
		if got[0].Title != "u230" || got[len(got)-1].Title != "u249" {
			t.Errorf("pushed %s to %s, want the newest", got[0].Title, got[len(got)-1].Title)
		}
		w.wantWoken(n)
	})
}

func TestGarbageIsADeadLetterAtOnce(t *testing.T) {
	bubble(t, func(w *world) {
		defer w.start()()
		w.publish(mq.TopicOffline, []byte("\xff\xff\xff"))
		w.publish(mq.TopicOffline, nil)
		if n := w.dead(mq.TopicOffline, groupPush); n != 2 {
			t.Errorf("%d dead letters, want 2", n)
		}
	})
}

func TestCompose(t *testing.T) {
	e, err := New(Config{CallTimeout: 1, PushTimeout: 1, MaxConversations: 9, MaxText: 5}, Deps{Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	body := func(m im.Message) string {
		m.Seq, m.Sender = 1, "bob"
		notes := e.compose(user{"t", "alice"}, []*im.Conversation{{Conv: "p:alice:bob", Peer: "bob", Remark: "Bobby", Unread: 1, Messages: []*im.Message{&m}}})
		if len(notes) != 1 || notes[0].Title != "Bobby" {
			t.Fatalf("composed %+v", notes)
		}
		return notes[0].Body
	}
	for want, m := range map[string]im.Message{
		"hello":     {Kind: im.Kind_TEXT, Text: " hel\x00lo "[0:4] + "lo"},
		"你好你好你…":    {Kind: im.Kind_TEXT, Text: strings.Repeat("你好", 9)},
		"[image]":   {Kind: im.Kind_IMAGE},
		"[card]":    {Kind: im.Kind_CARD, Data: []byte("{}")},
		"[message]": {Kind: im.Kind_CUSTOM},
		"a b":       {Kind: im.Kind_FILE, Text: "a\r\n\x1bb"},
	} {
		if got := body(m); got != want {
			t.Errorf("%+v: body %q, want %q", m, got, want)
		}
	}
	e.cfg.HideText = true
	if got := body(im.Message{Text: "secret"}); got != "[message]" {
		t.Errorf("hidden text shows %q", got)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "push_timeout") {
		t.Errorf("empty configuration: %v", err)
	}
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("made with an empty configuration")
	}
}
