package core

import (
	"time"

	"hongyan/idl/code"
)

const (
	backoffBase   = 500 * time.Millisecond
	backoffCap    = 20 * time.Second
	maxRetryAfter = 5 * time.Minute // whatever a server says
)

// Final tells that a client must not reconnect by itself after this code, of a close or of
// a refused login: another device replaced it, its token is revoked, it is banned, or it
// speaks too old a version.
func Final(c code.Code) bool {
	switch c {
	case code.BadRequest, code.BadToken, code.TooManySessions, code.Denied, code.Unsupported:
		return true
	}
	return c >= 4400 && c < 4500
}

// Backoff is how long to wait before try n (from 0) of a reconnect: full jitter over 0.5 s
// doubled each time, at most 20 s, and never less than the server asked for. rnd is
// uniform in [0, 1).
func Backoff(n int, retryAfter time.Duration, rnd float64) time.Duration {
	top := backoffCap
	if n < 6 {
		top = min(top, backoffBase<<max(n, 0))
	}
	wait := time.Duration(rnd * float64(top))
	if retryAfter > 0 {
		return min(retryAfter, maxRetryAfter) + wait
	}
	return wait
}

// resendAfter is the pause of a refused send before try n+1: what the server asked for, or
// doubling from 100 ms to 5 s; plus up to a quarter of jitter.
func (c *Core) resendAfter(n int, asked time.Duration) time.Duration {
	wait := asked
	if wait <= 0 {
		wait = min(5*time.Second, 100*time.Millisecond<<min(max(n, 0), 6))
	}
	return wait + time.Duration(c.cfg.Rand()*float64(wait)/4)
}
