package gate_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/gate"
	"hongyan/internal/route"
)

// byDuty is a tier of which two serve logins and three messages.
var byDuty = setup{logics: 5, serves: []string{"session", "session", "message,contact", "message,open", "message"}}

// server is the Logic that a user's commands of a duty go to, and its address.
func (w *world) server(duty, uid string) (*logic, string) {
	w.t.Helper()
	peer, err := w.pool.PickFor(duty, route.Hash("demo", uid))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.logics[peer.Slot], peer.Addr
}

// loginSplit opens a session: who serves logins answers, and names the home.
func (w *world) loginSplit(uid string) *client {
	w.t.Helper()
	c := w.open(gate.Info{IP: "10.0.0.1"})
	seq := c.do(im.Cmd_AUTH, &im.Auth{Token: uid + "/d1"})
	session, addr := w.server("session", uid)
	if ups := session.took(tier.Uplink_PACKET); len(ups) != 1 || ups[0].Seq != seq {
		w.t.Fatalf("%s took %v of %s", addr, ups, uid)
	}
	_, home := w.server("message", uid)
	w.downFrom(addr, &tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq, SessionEpoch: 7, Home: home})
	c.expect("AUTH!")
	return c
}

func TestZZ21CommandsGoToWhoServesThem(t *testing.T) {
	inWorld(t, byDuty, func(w *world) {
		for i := range 40 {
			uid := fmt.Sprint("user", i)
			c := w.loginSplit(uid)
			for cmd, duty := range map[im.Cmd]string{
				im.Cmd_SEND: "message", im.Cmd_READ: "message", im.Cmd_SYNC: "contact", im.Cmd_HISTORY: "contact",
				im.Cmd_CALL: "open", im.Cmd_LOGOUT: "session",
			} {
				seq := c.do(cmd, &im.Sync{})
				l, addr := w.server(duty, uid)
				if ups := l.took(tier.Uplink_PACKET); !slices.Contains(seqs(ups), seq) {
					t.Errorf("%s of %s did not reach %s: %v", cmd, uid, addr, ups)
				}
			}
			c.conn.Closed("gone")
			home, addr := w.server("message", uid)
			if ups := home.took(tier.Uplink_CLOSED); len(ups) != 1 {
				t.Errorf("%s, the home of %s, heard %d times that he left", addr, uid, len(ups))
			}
		}
	})
}

// What waits for an instance that hangs stands before nothing that another takes.
// Seen to fail: with lanes by hash % slots, a SEND waits for the AUTH before it.
func TestZZ21HangingLoginsStandBeforeNoMessage(t *testing.T) {
	inWorld(t, byDuty, func(w *world) {
		var online []*client
		for i := range 60 {
			online = append(online, w.loginSplit(fmt.Sprint("user", i)))
		}
		for _, l := range w.logics[:2] {
			l.before(func(*tier.UplinkBatch) error { time.Sleep(4 * time.Second); return nil })
		}
		for i := range 200 {
			w.open(gate.Info{IP: "10.0.0.1"}).do(im.Cmd_AUTH, &im.Auth{Token: fmt.Sprintf("late%d/d1", i)})
		}
		synctest.Wait()
		for i, c := range online {
			seq := c.do(im.Cmd_SEND, &im.Send{})
			home, addr := w.server("message", fmt.Sprint("user", i))
			if ups := home.took(tier.Uplink_PACKET); !slices.Equal(seqs(ups), []uint32{seq}) {
				t.Fatalf("the SEND of user%d did not reach %s at once: %v", i, addr, ups)
			}
		}
		time.Sleep(30 * time.Second)
	})
}

// AUTH_ACK is the first frame of a session, also when the home pushes before it is out.
// Renewals go to the home; one that is named but is not the home any more, is corrected.
func TestZZ21HomePushesBeforeTheLoginIsAnswered(t *testing.T) {
	inWorld(t, byDuty, func(w *world) {
		c := w.open(gate.Info{IP: "10.0.0.1"})
		seq := c.do(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})
		_, session := w.server("session", "alice")
		home, addr := w.server("message", "alice")
		w.downFrom(addr, c.push(1, "early"))
		c.expect("")
		w.downFrom(session, &tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq, SessionEpoch: 7, Home: addr})
		c.expect("AUTH! | PUSH 1:1")
		w.flap() // homes are compared: nothing is to be renewed
		time.Sleep(time.Second)
		if n := len(home.renewalsTaken()); n != 0 {
			t.Errorf("%d renewals of a session that is where it should be", n)
		}
		time.Sleep(20 * time.Second)
		if n := len(home.renewalsTaken()); n != 1 {
			t.Errorf("%d renewals within a period", n)
		}

		bob := w.open(gate.Info{IP: "10.0.0.1"})
		seq = bob.do(im.Cmd_AUTH, &im.Auth{Token: "bob/d1"})
		home, addr = w.server("message", "bob")
		other := "logic-2"
		if other == addr {
			other = "logic-3"
		}
		w.flap()
		w.downFrom("logic-0", &tier.Down{Conn: bob.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq, SessionEpoch: 7, Home: other})
		time.Sleep(time.Second)
		if n := len(home.renewalsTaken()); n != 1 {
			t.Errorf("%d renewals of a session that was given to another home", n)
		}
	})
}

// flap lets an instance that is nobody's home be down for a moment.
func (w *world) flap() {
	w.t.Helper()
	for _, p := range w.pool.All() {
		if p.Slot == 0 {
			w.pool.Failed(p)
		}
	}
}
