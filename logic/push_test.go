package logic

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/mq"
	"hongyan/internal/presence"
)

// homed returns a user whose home is the i-th Logic.
func (w *world) homed(i int, name string) string {
	for n := 0; ; n++ {
		if uid := fmt.Sprintf("%s%d", name, n); w.home(uid) == w.logics[i] {
			return uid
		}
	}
}

// offlines returns the users woken since the last time, and the highest version of each.
func (w *world) offlines() map[string]uint64 {
	w.t.Helper()
	out := map[string]uint64{}
	for _, m := range w.queue.take() {
		out[wakeOf(w.t, m).Uid] = wakeOf(w.t, m).Version
	}
	return out
}

func wakeOf(t testing.TB, m mq.Message) *event.Offline {
	t.Helper()
	e := &event.Offline{}
	if err := e.Unmarshal(m.Payload); err != nil || m.Topic != mq.TopicOffline || m.Key != e.Tenant+"/"+e.Uid {
		t.Fatalf("published %+v (%v)", m, err)
	}
	return e
}

// Both forms, one and several Logics and das: everybody gets everything, once, in order.
func TestMessagesReachTheHomesOfTheirMembers(t *testing.T) {
	for _, twoStage := range []bool{false, true} {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("two-stage %v, %d logics", twoStage, n), func(t *testing.T) {
				inWorld(t, n, n, func(w *world) {
					w.store.twoStage = twoStage
					alice, bob := w.client(w.homed(0, "alice"), "a1", 1), w.client(w.homed(n-1, "bob"), "b1", 2)
					other := w.client(alice.uid, "a2", 3)
					for _, c := range []*client{alice, bob, other} {
						c.login(0)
					}
					var want []string
					for i := range 20 {
						text := fmt.Sprint(i)
						want = append(want, text)
						alice.send(bob.uid, "m"+text, text)
						pass(time.Millisecond)
					}
					pass(time.Second)
					acked := false
					for _, d := range alice.frames() {
						if d.Cmd == uint32(im.Cmd_SEND) {
							acked = decode(t, d, &im.SendAck{}).Seq > 0
						} else if !twoStage {
							t.Errorf("%s to the sending device", im.Cmd(d.Cmd))
						}
					}
					equal(t, "acked", acked, true)
					for _, c := range []*client{bob, other} {
						got := pushes(t, c.frames())
						equal(t, "texts to "+c.uid, strings.Join(texts(got), ","), strings.Join(want, ","))
						for i := 1; i < len(got); i++ {
							equal(t, "version", got[i].Version, got[i-1].Version+1)
						}
					}
					other.ack(20)
					bob.ack(20)
					pass(5 * time.Second)
					equal(t, "delivery rows left", w.rows(tier.Outbox_DELIVER), 0)
					equal(t, "fan-out rows left", w.rows(tier.Outbox_FANOUT), 0)
				})
			})
		}
	}
}

// ZZ-07: two Logics pass changes on at the same time and the later arrives first: pushes
// leave in the order of versions all the same. What is missing is not waited for long.
// Seen to fail: without holdLocked, versions 2 and 3 leave before 1.
func TestPushesLeaveInTheOrderOfVersions(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		bob := w.client("bob", "b1", 2)
		bob.login(0)
		change := func(version uint64) {
			c := &tier.Change{Tenant: tenant, Uid: "bob", Epoch: 1, Row: &im.Conversation{Conv: "p:alice:bob", Version: version}}
			if _, err := w.logics[0].Deliver(context.Background(), &tier.DeliverBatch{Changes: []*tier.Change{c}}); err != nil {
				t.Fatal(err)
			}
		}
		versions := func() string {
			var out []string
			for _, c := range pushes(t, bob.frames()) {
				out = append(out, fmt.Sprint(c.Version))
			}
			return strings.Join(out, " ")
		}
		change(1)
		change(4)
		change(3)
		equal(t, "before the gap is closed", versions(), "1")
		change(2)
		equal(t, "after", versions(), "2 3 4")
		change(7)
		change(6)
		pass(29 * time.Millisecond)
		equal(t, "while 5 is waited for", versions(), "")
		pass(2 * time.Millisecond)
		equal(t, "without 5", versions(), "6 7")
		change(5)
		equal(t, "5, late", versions(), "5")
	})
}

// P30: a gateway is slow and its queue full: pushes are dropped, and their connections are
// told to sync as soon as there is room, not only by their next renewal. Found by tests/sim.
// Seen to fail: without lagLocked.
func TestP30DroppedPushIsFollowedByANotice(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		var slow atomic.Bool
		slow.Store(true)
		w.gateway.down = func() bool {
			if slow.Load() {
				time.Sleep(3 * time.Second)
			}
			return false
		}
		for i := range 10 {
			alice.send("bob", fmt.Sprint("m", i), "hello")
			pass(time.Millisecond)
		}
		pass(2 * time.Second)
		slow.Store(false)
		pass(10 * time.Second)
		frames := bob.frames()
		notice := decode(t, frames[len(frames)-1], &im.Notice{})
		equal(t, "last frame", frames[len(frames)-1].Cmd, uint32(im.Cmd_NOTICE))
		equal(t, "head", notice.Head, w.user("bob").head)
	}, func(_ *world, c *Config) { c.DownQueue = 4 })
}

// A gateway says that a connection is gone: its route is dropped, and the presence cache
// asked once more.
func TestGoneConnectionIsLookedUpOnceMore(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		w.gateway.gone[2] = true
		// The user has come back elsewhere, by another Logic.
		err := w.presence.Put(context.Background(), presence.User{Tenant: tenant, UID: "bob"},
			presence.Route{Device: "b2", Gateway: "gw", Boot: "gwboot", Conn: 5, SessionEpoch: 9})
		if err != nil {
			t.Fatal(err)
		}
		alice.send("bob", "m1", "hello")
		alice.frames()
		equal(t, "pushes to the new connection", len(pushes(t, w.client("bob", "b2", 5).frames())), 1)
		equal(t, "routes in the cache", w.online("bob"), 1)
		equal(t, "woken", len(w.offlines()), 0)
		w.gateway.gone[5] = true
		alice.send("bob", "m2", "hello?")
		pass(time.Second)
		equal(t, "woken for", w.offlines()["bob"], 2)
	})
}

// R21: the cache was flushed and the home is dead; the successor finds no route. That is
// not "offline": nobody is woken until the renewals had a whole period to come.
// Seen to fail: with foundLocked taking "not known" for offline, Bob is woken at once.
func TestR21NoRouteIsNotOffline(t *testing.T) {
	inWorld(t, 2, 1, func(w *world) {
		alice, bob := w.client(w.homed(0, "alice"), "a1", 1), w.client(w.homed(1, "bob"), "b1", 2)
		alice.login(0)
		bob.login(0)
		w.queue.hook(w.raiseWoken)
		w.presence.Flush()
		w.kill(1)
		alice.send(bob.uid, "m1", "hello")
		pass(15 * time.Second)
		equal(t, "woken before the renewals", len(w.offlines()), 0)
		reply := bob.renew(0)
		pass(time.Second)
		equal(t, "woken", len(w.offlines()), 0)
		equal(t, "pushed or told to sync", len(pushes(t, bob.frames()))+len(reply.Behind) > 0, true)
	})
}

// R21: the cache's word, or a whole renewal period as home, makes a user offline.
func TestR21OfflineByTheCachesWordOrAfterAPeriod(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.queue.hook(w.raiseWoken)
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		bob.request(im.Cmd_LOGOUT, &im.Logout{})
		bob.frames()
		alice.send("bob", "m1", "known to be gone")
		pass(time.Second)
		equal(t, "woken by the cache's word", w.offlines()["bob"], 1)
		alice.send("carol", "m2", "never seen")
		pass(10 * time.Second)
		equal(t, "woken too early", len(w.offlines()), 0)
		pass(16 * time.Second)
		equal(t, "woken after a period", w.offlines()["carol"], 1)
		alice.send("carol", "m3", "never seen")
		pass(time.Second)
		equal(t, "woken at once, later", w.offlines()["carol"], 2)
	})
}

// raiseWoken is what extlogic does with an event: always, also when there is nobody to wake.
func (w *world) raiseWoken(m mq.Message) {
	e := wakeOf(w.t, m)
	w.store.Lock()
	defer w.store.Unlock()
	u := w.store.user(e.Tenant, e.Uid)
	u.woken = max(u.woken, e.Version)
}

// R09: a user without any device: extlogic raises woken_version, and that ends his row.
// Without it the user is woken again, with doubling pauses, for ever.
// Seen to fail: without refresh the row stays.
func TestR09WokenVersionEndsTheDeliveryRow(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		pass(30 * time.Second)
		alice.renew(0)
		alice.send("bob", "m1", "hello")
		alice.frames()
		alice.ack(1)
		pass(time.Second)
		equal(t, "woken", len(w.queue.take()), 1)
		pass(3 * time.Minute)
		equal(t, "rows while nobody took the event", w.rows(tier.Outbox_DELIVER), 1)
		wakes := len(w.queue.take())
		if wakes < 3 || wakes > 8 {
			t.Errorf("woken %d times in three minutes", wakes)
		}
		w.queue.hook(w.raiseWoken)
		pass(3 * time.Minute)
		equal(t, "rows", w.rows(tier.Outbox_DELIVER), 0)
		equal(t, "outstanding", w.due(), 0)
		w.queue.take()
		pass(15 * time.Minute)
		equal(t, "woken afterwards", len(w.queue.take()), 0)
	})
}

// JM-08: what is not acked in time wakes the user's devices, once for all of it.
func TestOverdueWakesOnceForAll(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.queue.hook(w.raiseWoken)
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		for i := range 5 {
			alice.send("bob", fmt.Sprint("m", i), "hello")
		}
		pass(5 * time.Second)
		equal(t, "woken before it is overdue", len(w.offlines()), 0)
		bob.up(&tier.Uplink{Event: tier.Uplink_OVERDUE})
		pass(time.Second)
		head := w.user("bob").head
		woken := w.queue.take()
		equal(t, "wakes", len(woken), 1)
		equal(t, "woken for", wakeOf(t, woken[0]).Version, head)
		alice.send("bob", "m6", "and this")
		pass(20 * time.Second)
		equal(t, "woken without the gateway's word", w.offlines()["bob"], head+1)
		alice.ack(head + 1)
		pass(5 * time.Second)
		equal(t, "rows", w.rows(tier.Outbox_DELIVER), 0)
	})
}

// Nobody is woken for his own message, or because somebody has read.
func TestNobodyIsWokenForWhatIsSilent(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.queue.hook(w.raiseWoken)
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		alice.send("bob", "m1", "hello")
		pass(time.Second)
		bob.ack(1)
		bob.request(im.Cmd_READ, &im.Read{Conv: "p:alice:bob", Seq: 1})
		pass(time.Second)
		bob.ack(2)
		pass(time.Minute)
		equal(t, "woken", len(w.offlines()), 0)
		equal(t, "rows", w.rows(tier.Outbox_DELIVER), 0)
	})
}

// The queue is down: wakes are repeated until it is back (P5).
func TestP5WakesSurviveADeadQueue(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		var down atomic.Bool
		down.Store(true)
		w.queue.down = down.Load
		w.queue.hook(w.raiseWoken)
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		pass(10 * time.Minute)
		equal(t, "woken", len(w.offlines()), 0)
		down.Store(false)
		pass(time.Minute)
		equal(t, "woken for", w.offlines()["bob"], 1)
		pass(5 * time.Minute)
		equal(t, "rows", w.rows(tier.Outbox_DELIVER), 0)
	})
}

func TestReadSettingsAndTyping(t *testing.T) {
	for _, twoStage := range []bool{false, true} {
		t.Run(fmt.Sprint("two-stage ", twoStage), func(t *testing.T) {
			inWorld(t, 2, 2, func(w *world) {
				w.store.twoStage = twoStage
				alice, bob := w.client(w.homed(0, "alice"), "a1", 1), w.client(w.homed(1, "bob"), "b1", 2)
				second := w.client(bob.uid, "b2", 3)
				for _, c := range []*client{alice, bob, second} {
					c.login(0)
				}
				alice.send(bob.uid, "m1", "hello")
				pass(time.Second)
				name := pushes(t, bob.frames())[0].Conv
				alice.frames()
				second.frames()

				bob.request(im.Cmd_READ, &im.Read{Conv: name, Seq: 1})
				pass(time.Second)
				frames := bob.frames()
				ack := decode(t, one(t, frames, im.Cmd_READ), &im.ReadAck{})
				equal(t, "read seq", ack.ReadSeq, 1)
				equal(t, "version", ack.Version, 2)
				equal(t, "echoes", len(pushes(t, frames)), 0)
				got := pushes(t, second.frames())
				equal(t, "other device: read seq", got[0].ReadSeq, 1)
				got = pushes(t, alice.frames())
				equal(t, "peer: read seq", got[0].PeerReadSeq, 1)

				bob.request(im.Cmd_SETTINGS, &im.Settings{Conv: name, Pinned: true, Fields: []string{"pinned"}})
				pass(time.Second)
				settings := decode(t, one(t, bob.frames(), im.Cmd_SETTINGS), &im.SettingsAck{})
				equal(t, "pinned", settings.Conversation.Pinned, true)
				equal(t, "version", settings.Version, 3)
				equal(t, "other device: pinned", pushes(t, second.frames())[0].Pinned, true)

				alice.request(im.Cmd_TYPING, &im.Typing{Conv: name})
				equal(t, "answers to typing", len(alice.frames()), 0)
				typing := decode(t, one(t, bob.frames(), im.Cmd_TYPING), &im.Typing{})
				equal(t, "who types", typing.Uid, alice.uid)

				for _, c := range []struct {
					cmd   im.Cmd
					body  message
					about string
				}{
					{im.Cmd_READ, &im.Read{Conv: name}, "seq"},
					{im.Cmd_READ, &im.Read{Conv: "p:x:y", Seq: 1}, "member"},
					{im.Cmd_SETTINGS, &im.Settings{Conv: name}, "fields"},
					{im.Cmd_SETTINGS, &im.Settings{Conv: name, Fields: []string{"colour"}}, "colour"},
					{im.Cmd_SETTINGS, &im.Settings{Conv: name, Fields: []string{"remark"}, Remark: strings.Repeat("x", 129)}, "remark"},
					{im.Cmd_BLOCK, &im.Block{Uid: bob.uid}, "itself"},
				} {
					bob.request(c.cmd, c.body)
					if e := errorOf(t, bob.frames(), c.cmd); !strings.Contains(e.Message, c.about) {
						t.Errorf("%s %+v: %q does not name %s", c.cmd, c.body, e.Message, c.about)
					}
				}
			})
		})
	}
}

// What a SEND says was shown is read, also where logs and users live apart.
func TestDisplayedIsReadInTheTwoStageForm(t *testing.T) {
	inWorld(t, 1, 2, func(w *world) {
		w.store.twoStage = true
		alice, bob := w.client("alice", "a1", 1), w.client("bob", "b1", 2)
		alice.login(0)
		bob.login(0)
		alice.send("bob", "m1", "hello")
		pass(time.Second)
		bob.request(im.Cmd_SEND, &im.Send{ClientMsgId: "m2", Attempt: 1, To: "alice", Text: "hi", DisplayedSeq: 1})
		pass(time.Second)
		equal(t, "read", w.user("bob").rows["p:alice:bob"].ReadSeq, 1)
		equal(t, "peer knows", w.user("alice").rows["p:alice:bob"].PeerReadSeq, 1)
	})
}

func TestQueries(t *testing.T) {
	inWorld(t, 2, 1, func(w *world) {
		alice, bob := w.client(w.homed(0, "alice"), "a1", 1), w.client(w.homed(1, "bob"), "b1", 2)
		alice.login(0)
		bob.login(0)
		alice.send(bob.uid, "m1", "hello")
		alice.frames()
		name := pushes(t, bob.frames())[0].Conv
		ask := func(cmd im.Cmd, body message) *tier.Down {
			bob.request(cmd, body)
			return one(t, bob.frames(), cmd)
		}
		equal(t, "sync", len(decode(t, ask(im.Cmd_SYNC, &im.Sync{}), &im.SyncRsp{}).Changes), 1)
		equal(t, "history", len(decode(t, ask(im.Cmd_HISTORY, &im.History{Conv: name}), &im.HistoryRsp{}).Messages), 1)
		equal(t, "conversations", len(decode(t, ask(im.Cmd_CONVERSATIONS, &im.Conversations{}), &im.ConversationsRsp{}).Conversations), 1)
		equal(t, "unread", decode(t, ask(im.Cmd_UNREAD, &im.Unread{}), &im.UnreadRsp{}).Total, 1)
		contacts := decode(t, ask(im.Cmd_CONTACTS, &im.Contacts{}), &im.ContactsRsp{}).Contacts
		if len(contacts) != 1 || contacts[0].Uid != alice.uid || !contacts[0].Online {
			t.Fatalf("contacts %+v", contacts)
		}
		users := decode(t, ask(im.Cmd_PRESENCE, &im.Presence{Uids: []string{alice.uid, bob.uid, "nobody"}}), &im.PresenceRsp{}).Users
		if len(users) != 3 || !users[0].Online || !users[1].Online || users[2].Online || users[0].Platforms[0] != "web" {
			t.Fatalf("presence %+v", users)
		}
		for _, c := range []struct {
			cmd   im.Cmd
			body  message
			about string
		}{
			{im.Cmd_SYNC, &im.Sync{Limit: 501}, "limit"},
			{im.Cmd_SYNC, &im.Sync{Messages: 101}, "messages"},
			{im.Cmd_HISTORY, &im.History{Conv: "p:x:y"}, "member"},
			{im.Cmd_HISTORY, &im.History{}, "conv"},
			{im.Cmd_HISTORY, &im.History{Conv: name, Limit: 1 << 31}, "limit"},
			{im.Cmd_HISTORY, &im.History{Conv: name, FromSeq: 5, ToSeq: 4}, "range"},
			{im.Cmd_HISTORY, &im.History{Conv: name, ToSeq: 4}, "range"},
			{im.Cmd_HISTORY, &im.History{Conv: name, FromSeq: 1, ToSeq: 4, BeforeSeq: 1}, "before_seq"},
			{im.Cmd_CONVERSATIONS, &im.Conversations{Limit: 1000}, "limit"},
			{im.Cmd_CONTACTS, &im.Contacts{Limit: 1000}, "limit"},
			{im.Cmd_UNREAD, &im.Unread{Conv: "p:x:y"}, "member"},
			{im.Cmd_PRESENCE, &im.Presence{}, "uids"},
			{im.Cmd_PRESENCE, &im.Presence{Uids: make([]string, 101)}, "uids"},
			{im.Cmd_PRESENCE, &im.Presence{Uids: []string{"a b"}}, "uids"},
			{im.Cmd_CALL, &im.Call{Name: "order.list"}, "order.list"},
		} {
			bob.request(c.cmd, c.body)
			if e := errorOf(t, bob.frames(), c.cmd); !strings.Contains(e.Message, c.about) {
				t.Errorf("%s %+v: %q does not name %s", c.cmd, c.body, e.Message, c.about)
			}
		}
		bob.up(&tier.Uplink{Cmd: 999, Seq: 1})
		bob.up(&tier.Uplink{Cmd: uint32(im.Cmd_HISTORY), Seq: 2, Body: []byte{0xff}})
		synctest.Wait()
		equal(t, "errors", strings.Join(names(bob.frames()), " "), "999:unsupported HISTORY:bad_request")
	})
}
