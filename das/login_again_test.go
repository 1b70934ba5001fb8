package das

import (
	"testing"
	"time"
)

// A login whose call timed out is submitted again, and both may run: the second must not
// take the session from the first, whose answer the connection got. Seen red without
// repeated(): the second login is session 2, and the next renewal kicks session 1 for good.
// Found by tests/sim.
func TestR27RepeatedLoginIsTheSameSession(t *testing.T) {
	inBed(t, shared(), func(t *testing.T, b *bed) {
		d0, d1 := b.start(0), b.start(1)
		first := b.write(d0, login("phone", 7, 2)).ok(t)
		again := login("phone", 7, 2)
		again.Repeated = true
		second := b.write(d1, again).ok(t)
		equal(t, "session", second.items[0].Login.SessionEpoch, first.items[0].Login.SessionEpoch)
		equal(t, "nobody lost", replaced(second), "")
		equal(t, "in one batch", b.write(d0, login("pad", 1, 2), login("pad", 1, 2)).codes(), "ok ok")
		equal(t, "sessions", b.sessions(d1), "0:phone@1 1:pad@2")
		other := login("phone", 7, 2)
		other.Login.Gateway = "g2"
		equal(t, "through another gateway it is another", replaced(b.write(d1, other).ok(t)), "phone@1")
	})
}

// Nobody could renew for a while: a login takes a slot of its own while there is one, for
// the connections of those that could not renew may still stand. Seen red while every stale
// session was replaced: a device was kicked for good though there was room for all.
func TestR27StaleSessionLosesItsSlotOnlyWhenThereIsNoOther(t *testing.T) {
	inBed(t, exclusive(), func(t *testing.T, b *bed) {
		d := b.start(0)
		b.write(d, login("a", 1, 3)).ok(t)
		b.write(d, login("b", 1, 3)).ok(t)
		time.Sleep(61 * time.Second)
		equal(t, "room for three", replaced(b.write(d, login("c", 1, 3)).ok(t)), "")
		equal(t, "sessions", b.sessions(d), "0:a@1 1:b@2 2:c@3")
		equal(t, "a stale one goes", replaced(b.write(d, login("e", 1, 3)).ok(t)), "a@1")
		equal(t, "sessions", b.sessions(d), "0:e@4 1:b@2 2:c@3")
	})
}
