package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Clocks of different servers may differ by so much: outbox rows and sessions are dated by a
// database's clock, and after a promotion by another's.
const (
	skewWarning   = 500 * time.Millisecond
	skewViolation = 5 * time.Second
	clockRounds   = 5
)

// skew is by how much a server's clock is ahead of this machine's.
type skew struct {
	server string
	ahead  time.Duration
	error  time.Duration // it may be off by so much, either way
}

// skews of all servers, to compare them with each other.
type skews struct {
	mu   sync.Mutex
	list []skew
}

// clock measures a server's clock: the median of some round trips, each dated at its middle.
// resolution is what the server rounds its time down to.
func (k *skews) clock(ctx context.Context, server string, resolution time.Duration, ask func(context.Context) (time.Time, error)) Finding {
	const wanted = "within 500ms of this machine's"
	rounds := make([]skew, 0, clockRounds)
	for range clockRounds {
		before := time.Now()
		there, err := ask(ctx)
		if err != nil {
			return unchecked(wanted, err)
		}
		half := time.Since(before) / 2
		rounds = append(rounds, skew{server, there.Add(resolution / 2).Sub(before.Add(half)), half + resolution/2})
	}
	slices.SortFunc(rounds, func(a, b skew) int { return cmp.Compare(a.ahead, b.ahead) })
	s := rounds[len(rounds)/2]
	k.mu.Lock()
	k.list = append(k.list, s)
	k.mu.Unlock()
	found := fmt.Sprintf("%v ahead, ± %v", s.ahead.Round(time.Millisecond), max(s.error, time.Millisecond).Round(time.Millisecond))
	off := max(s.ahead.Abs()-s.error, 0)
	switch {
	case off >= skewViolation:
		return violation(found, wanted, setClock)
	case off >= skewWarning:
		return warn(found, wanted, setClock)
	}
	return ok(found, wanted)
}

const setClock = "let the host follow a time server: systemctl enable --now chrony (or systemd-timesyncd); chronyc tracking says how far it is off"

// compare finds the two servers whose clocks are furthest apart.
func (k *skews) compare() []Finding {
	if len(k.list) < 2 {
		return nil
	}
	slices.SortFunc(k.list, func(a, b skew) int { return cmp.Compare(a.ahead, b.ahead) })
	low, high := k.list[0], k.list[len(k.list)-1]
	apart := high.ahead - low.ahead
	off := max(apart-low.error-high.error, 0)
	f := Finding{
		Server: "all servers", Check: "clocks agree", Wanted: "within 500ms of each other", Verdict: OK,
		Found: fmt.Sprintf("%v between %s and %s", apart.Round(time.Millisecond), low.server, high.server),
	}
	if off >= skewWarning {
		f.Verdict, f.Advice = Warning, setClock
	}
	if off >= skewViolation {
		f.Verdict = Violation
	}
	return []Finding{f}
}
