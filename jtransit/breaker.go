package jtransit

import (
	"sync"
	"time"
)

// window is how far back a breaker looks, in buckets of a second.
const window = 10

// breaker refuses calls to a service that fails, so that its callers do not wait for it and
// it is left alone. closed -> open for a while -> one probe -> closed, or open again.
type breaker struct {
	mu      sync.Mutex
	cfg     BreakerConfig
	buckets [window]bucket // by second
	until   time.Time      // not zero: open, and when the probe may go
	probing bool
	life    uint64 // changes with the state: what began in an older one says nothing any more
}

type bucket struct {
	second        int64
	calls, failed int
}

// verdict is what a call says of the service.
type verdict int

const (
	neither verdict = iota // the caller gave up
	worked
	failed
)

// configure replaces the bounds; what has been counted stays.
func (b *breaker) configure(cfg BreakerConfig) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg = cfg
}

// admit lets a call through, or tells how long calls are refused.
func (b *breaker) admit(now time.Time) (life uint64, wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
	case now.Before(b.until):
		return 0, b.until.Sub(now), false
	case b.probing:
		return 0, time.Second, false
	default:
		b.probing = true
	}
	return b.life, 0, true
}

// done tells how an admitted call ended.
func (b *breaker) done(life uint64, v verdict, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if life != b.life {
		return
	}
	if b.probing {
		b.probing = false
		switch v {
		case worked:
			b.until = time.Time{}
			b.buckets = [window]bucket{}
			b.life++
		case failed:
			b.open(now)
		}
		return
	}
	if v != neither && b.count(v, now) {
		b.open(now)
	}
}

func (b *breaker) open(now time.Time) {
	b.until = now.Add(b.cfg.OpenFor)
	b.life++
}

// count adds a call and tells whether too many have failed.
func (b *breaker) count(v verdict, now time.Time) bool {
	second := now.Unix()
	at := &b.buckets[second%window]
	if at.second != second {
		*at = bucket{second: second}
	}
	at.calls++
	if v == failed {
		at.failed++
	}
	var sum bucket
	for _, k := range b.buckets {
		if second-k.second < window {
			sum.calls += k.calls
			sum.failed += k.failed
		}
	}
	return sum.failed > 0 && sum.calls >= b.cfg.MinCalls && float64(sum.failed) >= b.cfg.Ratio*float64(sum.calls)
}

// isOpen tells whether calls are refused; for the metrics.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero()
}
