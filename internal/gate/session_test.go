package gate_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/gate"
	"hongyan/internal/wire"
)

func TestJT02HelloIsRecordedAndAuthGoesToTheHome(t *testing.T) {
	inWorld(t, setup{logics: 3}, func(w *world) {
		c := w.open(gate.Info{IP: "10.1.2.3"})
		c.do(im.Cmd_HELLO, &im.Hello{Device: "phone-1", Platform: "ios", Suites: []string{"noise", "plain"}})
		frames := c.got()
		var hello im.HelloAck
		if err := hello.Unmarshal(frames[0].Body); err != nil {
			t.Fatal(err)
		}
		if hello.Suite != "plain" || hello.HeartbeatMinS != 25 || hello.HeartbeatMaxS != 270 || hello.MaxBody != 256<<10 {
			t.Errorf("HELLO_ACK %+v", hello)
		}
		seq := c.do(im.Cmd_AUTH, &im.Auth{Token: "alice", Epoch: 1, Cursor: 5})
		ups := w.home("alice").took(tier.Uplink_PACKET)
		if len(ups) != 1 {
			t.Fatalf("%d packets", len(ups))
		}
		up := ups[0]
		if up.Cmd != uint32(im.Cmd_AUTH) || up.Seq != seq || up.Tenant != "demo" || up.Uid != "alice" || up.Device != "phone-1" ||
			up.Platform != "ios" || up.Class != "mobile" || up.Ip != "10.1.2.3" || up.Conn != c.conn.ID() || up.SessionEpoch != 0 {
			t.Errorf("AUTH went up as %+v", up)
		}
		w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq, SessionEpoch: 9})
		c.expect("AUTH!")
		c.do(im.Cmd_HISTORY, &im.History{Conv: "p:alice:bob"})
		ups = w.home("alice").took(tier.Uplink_PACKET)
		if len(ups) != 1 || ups[0].SessionEpoch != 9 || ups[0].TtlMs != 15000 || ups[0].RequestId == "" {
			t.Errorf("HISTORY went up as %+v", ups)
		}
		c.expectClose(0)
	})
}

func TestJT03AuthIsVerified(t *testing.T) {
	tests := []struct {
		name  string
		auth  im.Auth
		frame string
		close code.Code
	}{
		{"bad token", im.Auth{Token: "bad", Device: "d"}, "AUTH! 401 | ERROR 4401", code.CloseBadToken},
		{"no token", im.Auth{Device: "d"}, "AUTH! 401 | ERROR 4401", code.CloseBadToken},
		{"another device", im.Auth{Token: "alice/d1", Device: "d2"}, "AUTH! 401 | ERROR 4401", code.CloseBadToken},
		{"no device at all", im.Auth{Token: "alice"}, "AUTH! 400 | ERROR 4500", code.CloseProtocolError},
		{"huge device", im.Auth{Token: "alice", Device: strings.Repeat("d", 65)}, "AUTH! 400 | ERROR 4500", code.CloseProtocolError},
		{"device with a line feed", im.Auth{Token: "alice", Device: "a\nb"}, "AUTH! 400 | ERROR 4500", code.CloseProtocolError},
		{"uid that is none", im.Auth{Token: "al:ice/d1"}, "AUTH! 401 | ERROR 4401", code.CloseBadToken},
		{"good", im.Auth{Token: "alice/d1", Device: "d1"}, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				c := w.open(gate.Info{})
				c.do(im.Cmd_AUTH, &tt.auth)
				c.expect(tt.frame)
				c.expectClose(tt.close)
			})
		})
	}
}

func TestLogicsAnswerToAuthDecides(t *testing.T) {
	tests := []struct {
		status code.Code
		close  uint32 // named by Logic itself
		want   code.Code
	}{
		{code.BadToken, 0, code.CloseBadToken},
		{code.Denied, 0, code.CloseBanned},
		{code.StaleLogin, 0, code.CloseStaleLogin},
		{code.TooManySessions, 0, code.CloseReplaced},
		{code.Overloaded, 0, code.CloseOverloaded},
		{code.Denied, uint32(code.CloseVersionTooOld), code.CloseVersionTooOld},
	}
	for _, tt := range tests {
		t.Run(tt.status.Name(), func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				c := w.open(gate.Info{})
				seq := c.do(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})
				synctest.Wait()
				w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq,
					Status: uint32(tt.status), Close: tt.close})
				c.expect(fmt.Sprintf("AUTH! %d | ERROR %d", tt.status, tt.want))
				c.expectClose(tt.want)
			})
		})
	}
}

func TestWhatIsOutOfPlaceIsAProtocolError(t *testing.T) {
	t.Run("a command before AUTH", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			c := w.open(gate.Info{})
			c.do(im.Cmd_SEND, &im.Send{})
			c.expect("ERROR 4500")
			c.expectClose(code.CloseProtocolError)
		})
	})
	t.Run("a second AUTH", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			c := w.login("alice", nil)
			c.do(im.Cmd_AUTH, &im.Auth{Token: "bob/d1"})
			c.expect("ERROR 4500")
			c.expectClose(code.CloseProtocolError)
		})
	})
	t.Run("frames without end before AUTH", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			c := w.open(gate.Info{})
			for range 17 {
				c.do(im.Cmd_PING, &im.Ping{})
			}
			c.expectClose(code.CloseProtocolError)
		})
	})
	t.Run("a command before AUTH is answered waits for nobody", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			c := w.open(gate.Info{})
			c.do(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})
			c.do(im.Cmd_UNREAD, &im.Unread{})
			c.expect("UNREAD! 504")
			c.expectClose(0)
		})
	})
	t.Run("bytes that are no frame", func(t *testing.T) {
		inWorld(t, setup{}, func(w *world) {
			c := w.login("alice", nil)
			_, _, err := wire.Decode([]byte("GET / HTTP/1.1\r\n"), c.conn.MaxBody())
			c.conn.Malformed(err)
			c.expect("ERROR 4500")
			c.expectClose(code.CloseProtocolError)
			if up := w.logics[0].took(tier.Uplink_CLOSED); len(up) != 1 {
				t.Errorf("%d CLOSED", len(up))
			}
		})
	})
}

func TestUnknownCommandsAreAnswered(t *testing.T) {
	tests := []struct {
		name  string
		cmd   im.Cmd
		flags wire.Flags
		want  string
	}{
		{"unknown", 999, 0, "999! 415"},
		{"unknown, critical", 999, wire.FlagCritical, "999! 415"},
		{"unknown, one-way", 999, wire.FlagOneWay, ""},
		{"unknown, one-way, critical", 999, wire.FlagOneWay | wire.FlagCritical, "999! 415"},
		{"a server's command", im.Cmd_KICK, 0, "KICK! 415"},
		{"an encrypted record", 0xFFFF, 0, "65535! 415"},
		{"a response to nothing", im.Cmd_PING, wire.FlagResponse, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				c := w.login("alice", nil)
				c.conn.Receive(wire.Frame{Cmd: tt.cmd, Flags: tt.flags, Seq: 3})
				c.expect(tt.want)
				c.expectClose(0)
			})
		})
	}
}

func TestP20NoAuthInTime(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.open(gate.Info{})
		time.Sleep(9 * time.Second)
		c.do(im.Cmd_HELLO, &im.Hello{}) // bytes do not help
		c.expectClose(0)
		time.Sleep(1300 * time.Millisecond)
		c.expectClose(code.CloseAuthTimeout)
	})
}

func TestP20HalfAFrameIsNotWaitedForForEver(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.login("alice", nil)
		for range 40 { // a byte a second
			c.conn.Heard()
			c.conn.Partial(true)
			time.Sleep(time.Second)
		}
		c.expectClose(code.CloseIdle)

		c = w.login("bob", nil)
		for range 40 { // frames that end
			c.conn.Heard()
			c.conn.Partial(true)
			c.conn.Partial(false)
			time.Sleep(time.Second)
		}
		c.expectClose(0)
	})
}

func TestAuthThatIsNeverAnswered(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.open(gate.Info{})
		c.do(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})
		time.Sleep(26 * time.Second)
		c.expectClose(code.CloseOverloaded)
	})
}

func TestMF11JT04ReadIdle(t *testing.T) {
	tests := []struct {
		name  string
		info  gate.Info
		every uint32 // T the client states
		limit time.Duration
	}{
		{"foreground", gate.Info{}, 0, 60 * time.Second},
		{"shorter than the least", gate.Info{}, 5, 60 * time.Second},
		{"native, in the background", gate.Info{}, 270, 599 * time.Second},
		{"longer than the most", gate.Info{}, 4_000_000_000, 599 * time.Second},
		{"a WebSocket behind a proxy", gate.Info{Transport: gate.WebSocket}, 270, 60 * time.Second},
		{"a limit of the gateway's own", gate.Info{Transport: gate.Poll, Idle: 40 * time.Second}, 270, 40 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, setup{}, func(w *world) {
				c := w.open(tt.info)
				seq := c.do(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})
				synctest.Wait()
				w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_AUTH), Response: true, Seq: seq})
				c.do(im.Cmd_PING, &im.Ping{EveryS: tt.every})
				c.expect("AUTH! | PING!")
				for range 3 { // any byte counts, whatever it is part of
					time.Sleep(tt.limit - time.Second)
					c.conn.Heard()
				}
				time.Sleep(tt.limit - time.Second)
				c.expectClose(0)
				time.Sleep(1300 * time.Millisecond)
				c.expectClose(code.CloseIdle)
			})
		})
	}
}

func TestDrainSpreadsReconnects(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		var clients []*client
		for i := range 20 {
			clients = append(clients, w.login(fmt.Sprint("u", i), nil))
		}
		start := time.Now()
		w.gate.Drain(w.t.Context())
		if d := time.Since(start); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("drained in %v", d)
		}
		for _, c := range clients {
			c.expect("GOAWAY | ERROR 4301")
			c.expectClose(code.CloseShutdown)
		}
		late := w.open(gate.Info{})
		late.expectClose(code.CloseShutdown)
	})
}

func TestStopClosesEveryConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, setup{})
		c := w.login("alice", nil)
		w.stop()
		c.expectClose(code.CloseShutdown)
		if up := w.logics[0].took(tier.Uplink_CLOSED); len(up) != 1 || up[0].Uid != "alice" {
			t.Errorf("CLOSED: %v", up)
		}
	})
}

func TestClosedTransportLeavesNothing(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.login("alice", nil)
		w.down(c.push(1, "hi"))
		c.conn.Closed("gone")
		c.conn.Closed("gone again")
		if up := w.logics[0].took(tier.Uplink_CLOSED); len(up) != 1 || up[0].SessionEpoch != 7 || up[0].Conn != c.conn.ID() {
			t.Errorf("CLOSED: %v", up)
		}
		if gone := w.down(c.push(2, "you there?"), c.push(3, "hello?")); len(gone) != 1 || gone[0] != c.conn.ID() {
			t.Errorf("gone: %v", gone)
		}
		c.do(im.Cmd_PING, &im.Ping{})
		time.Sleep(time.Hour)
		c.expect("PUSH 1:1")
		c.expectClose(0)
	})
}

func TestKickIsTheLastFrame(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.login("alice", nil)
		kick := encode(t, &im.Kick{Code: 4402, Reason: "replaced"})
		w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_KICK), Body: kick, Close: 4402}, c.push(1, "not for him"))
		c.expect("KICK 4402 replaced")
		c.expectClose(code.CloseReplaced)
	})
}

func TestLogoutIsAnsweredThenClosed(t *testing.T) {
	inWorld(t, setup{}, func(w *world) {
		c := w.login("alice", nil)
		seq := c.do(im.Cmd_LOGOUT, nil)
		synctest.Wait()
		w.down(&tier.Down{Conn: c.conn.ID(), Cmd: uint32(im.Cmd_LOGOUT), Response: true, Seq: seq, Close: 4404})
		c.expect("LOGOUT! | ERROR 4404")
		c.expectClose(code.CloseLoggedOut)
	})
}
