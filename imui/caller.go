package imui

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"hongyan/idl/code"
	"hongyan/idl/platform"
)

// callers knows the apps by name.
type callers map[string]app

type app struct {
	key     [sha256.Size]byte
	tenants []string
}

func newCallers(apps []App) callers {
	c := make(callers, len(apps))
	for _, a := range apps {
		c[a.Name] = app{sha256.Sum256([]byte(a.Key)), a.Tenants}
	}
	return c
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
