package gate_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/internal/gate"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/notice"
	"hongyan/internal/wire"
)

// inNoticeWorld runs the test with a Gate that listens to a queue.
func inNoticeWorld(t *testing.T, test func(w *world, tell func(*event.OnlineNotice))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		queue, err := memory.Open(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, setup{queue: queue})
		test(w, func(n *event.OnlineNotice) {
			t.Helper()
			m, err := notice.Message(n)
			if err != nil {
				t.Fatal(err)
			}
			if err := queue.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		})
		w.stop()
		if err := queue.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestJT13ANoticeReachesWhomItIsFor(t *testing.T) {
	inNoticeWorld(t, func(w *world, tell func(*event.OnlineNotice)) {
		ios := w.login("alice", &im.Auth{Platform: "ios"})
		web := w.login("bob", &im.Auth{Platform: "web"})
		slow := w.login("carol", &im.Auth{Platform: "ios"})
		early := w.open(gate.Info{IP: "10.0.0.1"}) // not logged in
		slow.setQueued(gate.DefaultConfig().SlowBytes + 1)

		tell(&event.OnlineNotice{Id: "n1", Tenant: "demo", Text: "sale", Data: []byte("{}")})
		frames := ios.got()
		if len(frames) != 1 || frames[0].Cmd != im.Cmd_ANNOUNCE || frames[0].Flags != wire.FlagOneWay {
			t.Fatalf("got %s", describe(frames))
		}
		var a im.Announcement
		if err := a.Unmarshal(frames[0].Body); err != nil || a.Id != "n1" || a.Text != "sale" || string(a.Data) != "{}" || a.AtMs != time.Now().UnixMilli() {
			t.Errorf("got %+v, %v", &a, err)
		}
		web.expect("ANNOUNCE")
		slow.expect("")
		early.expect("")

		tell(&event.OnlineNotice{Id: "n1", Tenant: "demo", Text: "again"})
		tell(&event.OnlineNotice{Tenant: "other", Text: "x"})
		tell(&event.OnlineNotice{Tenant: "demo", Platforms: []string{"android"}, Text: "x"})
		ios.expect("")
		tell(&event.OnlineNotice{Tenant: "demo", Platforms: []string{"android", "ios"}, Text: "x"})
		tell(&event.OnlineNotice{Tenant: "demo", Classes: []string{"web"}, Text: "x"})
		ios.expect("ANNOUNCE")
		web.expect("ANNOUNCE")
		slow.setQueued(0)
		tell(&event.OnlineNotice{Tenant: "demo", Text: "x"})
		slow.expect("ANNOUNCE")
	})
}

// Many sessions are not written all at once.
func TestJT13ANoticeIsSpreadOverTime(t *testing.T) {
	inNoticeWorld(t, func(w *world, tell func(*event.OnlineNotice)) {
		const n = 2000
		var clients []*client
		for i := range n {
			clients = append(clients, w.login(fmt.Sprintf("u%d", i), nil))
		}
		told := func() (count int) {
			for _, c := range clients {
				c.mu.Lock()
				count += len(c.frames)
				c.mu.Unlock()
			}
			return count
		}
		tell(&event.OnlineNotice{Tenant: "demo", Text: "x", TtlMs: 60})
		if at := told(); at == 0 || at > n/4 {
			t.Errorf("%d of %d were told at once", at, n)
		}
		time.Sleep(50 * time.Millisecond)
		if at := told(); at < n/4 || at > 3*n/4 {
			t.Errorf("%d of %d were told after 50 ms", at, n)
		}
		time.Sleep(time.Second) // its time is over in the middle
		if at := told(); at < n/2 || at > n-1 {
			t.Errorf("%d of %d were told in the end", at, n)
		}
	})
}

// brokenQueue cannot be listened to at first.
type brokenQueue struct {
	mq.Queue
	until time.Time
}

func (q *brokenQueue) SubscribeAll(ctx context.Context, topic string, h mq.Handler) error {
	if time.Now().Before(q.until) {
		return errors.New("no broker")
	}
	return q.Queue.SubscribeAll(ctx, topic, h)
}

// A gateway serves while the queue cannot be reached, and listens once it can.
func TestJT13AQueueThatIsAwayStopsNoGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue, err := memory.Open(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, setup{queue: &brokenQueue{queue, time.Now().Add(time.Minute)}})
		alice := w.login("alice", nil)
		publish := func() {
			m, err := notice.Message(&event.OnlineNotice{Tenant: "demo", Text: "x"})
			if err == nil {
				err = queue.Publish(t.Context(), m)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		publish()
		alice.expect("")
		for range 7 {
			time.Sleep(10 * time.Second)
			alice.conn.Heard()
		}
		alice.got()
		publish()
		alice.expect("ANNOUNCE")
		w.stop()
		if err := queue.Close(); err != nil {
			t.Error(err)
		}
	})
}
