package das

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/idl/tier"
)

func login(device string, counter uint64, slots uint32) *tier.Submit {
	return &tier.Submit{Login: &tier.Login{
		Uid: "u", Device: device, Class: "mobile", Counter: counter, Slots: slots, Gateway: "g1",
		Platform: "ios", PushToken: "token-" + device,
	}}
}

func logout(device string, epoch uint64) *tier.Submit {
	return &tier.Submit{Logout: &tier.LogoutMark{Uid: "u", Device: device, SessionEpoch: epoch, ForgetPush: true}}
}

// sessions lists who is logged in: slot:device@epoch.
func (b *bed) sessions(d *Das) string {
	b.Helper()
	var list []string
	for _, s := range b.progress(d, "u").Sessions {
		list = append(list, fmt.Sprintf("%d:%s@%d", s.Slot, s.Device, s.SessionEpoch))
	}
	return strings.Join(list, " ")
}

func replaced(a answers) string {
	var list []string
	for _, s := range a.items[0].Login.Replaced {
		list = append(list, fmt.Sprintf("%s@%d", s.Device, s.SessionEpoch))
	}
	return strings.Join(list, " ")
}

// Seen red: without the comparison of counters c1 takes the slot back from c2.
func TestR27LowerConnectionCounterNeverReplacesAHigher(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		b.write(d0, login("phone", 2, 1)).ok(t)                                               // c2
		equal(t, "c1 hung in AUTH", b.write(d1, login("phone", 1, 1)).codes(), "stale_login") // c1
		equal(t, "sessions", b.sessions(d1), "0:phone@1")
		a := b.write(d1, login("phone", 3, 1)).ok(t)
		equal(t, "own older session is named", replaced(a), "phone@1")
		equal(t, "sessions", b.sessions(d0), "0:phone@2")
	})
}

// Seen red: with logout finding the slot by device alone, the late logout removes the new
// login.
func TestR27LateLogoutLeavesANewerLogin(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		first := b.write(d, login("phone", 1, 1)).ok(t).items[0].Login.SessionEpoch
		second := b.write(d, login("phone", 2, 1)).ok(t).items[0].Login.SessionEpoch
		b.write(d, logout("phone", first)).ok(t)
		equal(t, "sessions", b.sessions(d), fmt.Sprintf("0:phone@%d", second))
		equal(t, "push token is kept", b.progress(d, "u").Devices[0].PushToken, "token-phone")
		b.write(d, logout("phone", second)).ok(t)
		equal(t, "sessions", b.sessions(d), "")
		equal(t, "push token is gone", b.progress(d, "u").Devices[0].PushToken, "")
		again := b.write(d, login("phone", 3, 1)).ok(t).items[0].Login.SessionEpoch
		equal(t, "epochs rise over a logout", again, second+1)
	})
}

// Seen red: with FreeAfter ignored, reject_new refuses for ever after a crash.
func TestR27SlotNotRenewedIsFree(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		rejecting := func(device string) *tier.Submit {
			l := login(device, 1, 1)
			l.Login.RejectNew = true
			return l
		}
		epoch := b.write(d, rejecting("phone")).ok(t).items[0].Login.SessionEpoch
		for i := range 5 { // renewed: not free
			time.Sleep(30 * time.Second)
			b.write(d, &tier.Submit{Cursor: &tier.CursorMark{
				Uid: "u", Device: "phone", Class: "mobile", SessionEpoch: epoch, Gateway: "g1", Alive: i > 0,
			}}).ok(t)
			equal(t, "while renewed", b.write(d, rejecting("pad")).codes(), "too_many_sessions")
		}
		time.Sleep(61 * time.Second)
		equal(t, "no more renewed", replaced(b.write(d, rejecting("pad")).ok(t)), "phone@1")
		equal(t, "sessions", b.sessions(d), "0:pad@2")
		b.write(d, &tier.Submit{Cursor: &tier.CursorMark{ // the loser still renews
			Uid: "u", Device: "phone", Class: "mobile", SessionEpoch: epoch, Gateway: "g1",
		}}).ok(t)
		equal(t, "sessions", b.sessions(d), "0:pad@2")
	})
}

func TestLoginPolicy(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, login("a", 1, 2)).ok(t)
		b.write(d, login("b", 1, 2)).ok(t)
		equal(t, "both", b.sessions(d), "0:a@1 1:b@2")
		equal(t, "the oldest goes", replaced(b.write(d, login("c", 1, 2)).ok(t)), "a@1")
		equal(t, "sessions", b.sessions(d), "0:c@3 1:b@2")
		equal(t, "the policy shrank", replaced(b.write(d, login("e", 1, 1)).ok(t)), "b@2 c@3")
		equal(t, "sessions", b.sessions(d), "0:e@4")
		web := login("browser", 1, 1)
		web.Login.Class = "web"
		equal(t, "another class", replaced(b.write(d, web).ok(t)), "")
		equal(t, "sessions", b.sessions(d), "0:e@4 0:browser@5")
		equal(t, "in one batch", b.write(d, login("f", 1, 1), login("g", 1, 1)).codes(), "ok ok")
		equal(t, "sessions", b.sessions(d), "0:g@7 0:browser@5")
	})
}

// Fifty logins race through two das: never more sessions than the policy allows, and each
// loser is named to somebody (P13). Seen red: with login's SessionMove carrying the epoch
// after the batch as From, the store lets nobody in; with the sessions of the plan kept over
// a fence, two das give out one epoch twice.
func TestR27RacingLoginsKeepThePolicy(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		b.cfg.Commit.Repeats = 100
		das := []*Das{b.start(0), b.start(1)}
		var wg sync.WaitGroup
		var mu sync.Mutex
		epochs, losers := make(map[uint64]bool), make(map[uint64]bool)
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
				l := login(fmt.Sprint("device", i), 1, 3)
				l.Tenant = tenant
				rsp, err := das[i%2].Write(t.Context(), &tier.SubmitBatch{Logic: "L1", Boot: "boot-L1", Items: []*tier.Submit{l}})
				if err != nil || rsp.Items[0].Code != 0 {
					t.Errorf("login %d: %v %v", i, rsp, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				epochs[rsp.Items[0].Login.SessionEpoch] = true
				for _, r := range rsp.Items[0].Login.Replaced {
					losers[r.SessionEpoch] = true
				}
			})
		}
		wg.Wait()
		equal(t, "epochs", len(epochs), 50)
		equal(t, "losers", len(losers), 47)
		equal(t, "sessions", len(b.progress(das[0], "u").Sessions), 3)
	})
}
