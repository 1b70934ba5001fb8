package imui

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"hongyan/idl/code"
	"hongyan/idl/platform"
)

// callers knows the apps by name.
type callers map[string]app

type app struct {
	key     [sha256.Size]byte
	tenants []string
	limit   *rate.Limiter // nil: no bound
}

func newCallers(apps []App) callers {
	c := make(callers, len(apps))
	for _, a := range apps {
		c[a.Name] = app{sha256.Sum256([]byte(a.Key)), a.Tenants, a.limiter()}
	}
	return c
}

func (a App) limiter() *rate.Limiter {
	if a.Rate == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(a.Rate), cmp.Or(a.Burst, max(MaxRecipients, int(math.Ceil(a.Rate)))))
}

// spend takes n calls of an admitted app's rate. One that is larger than the burst waits for
// a full one.
func (c callers) spend(from *platform.Caller, n int) error {
	limit := c[from.App].limit
	if limit == nil {
		return nil
	}
	now := time.Now()
	r := limit.ReserveN(now, min(n, limit.Burst()))
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	over := code.Errorf(code.Overloaded, "app %s is over its %g calls a second", from.App, float64(limit.Limit()))
	over.RetryAfter = wait
	return over
}

const maxRequestID = 64

// admit checks who calls, in the same time whether the app or its key is wrong.
func (c callers) admit(from *platform.Caller) error {
	if from == nil {
		return code.Errorf(code.BadToken, "caller is missing")
	}
	if len(from.RequestId) > maxRequestID {
		return code.Errorf(code.BadRequest, "caller.request_id is over %d bytes", maxRequestID)
	}
	known, ok := c[from.App]
	given := sha256.Sum256([]byte(from.Key))
	if subtle.ConstantTimeCompare(known.key[:], given[:]) != 1 || !ok {
		return code.Errorf(code.BadToken, "caller.app or caller.key is wrong")
	}
	if !slices.Contains(known.tenants, from.Tenant) {
		return code.Errorf(code.Denied, "app %s may not act in tenant %.64q", from.App, from.Tenant)
	}
	return nil
}
