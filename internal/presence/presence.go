// Package presence caches where users are connected: Redis in a cluster, memory in one
// process. It is a hint (law 5): it may be flushed or down at any moment, and what it
// held is rebuilt by the gateways' renewals within one period.
package presence

import (
	"context"
	"errors"
	"time"
)

const (
	// TTL is how long a route is believed without being put again: three renewal periods.
	TTL = 60 * time.Second
	// Remember is how long a user's last word is kept: after TTL it says "offline", after
	// Remember the cache knows nothing of the user.
	Remember = 24 * time.Hour
)

// ErrClosed: the cache is closed.
var ErrClosed = errors.New("presence cache is closed")

// Route is one connection of a user.
type Route struct {
	Device       string `json:"device"`
	Class        string `json:"class"`
	Platform     string `json:"platform"`
	Gateway      string `json:"gateway"`       // address
	Boot         string `json:"boot"`          // of the gateway
	Conn         uint64 `json:"conn"`          // unique within the gateway's boot
	SessionEpoch uint64 `json:"session_epoch"` // a lower one never replaces a higher
	IP           string `json:"ip"`
	LoginMS      int64  `json:"login_ms"`
}

// User names a user.
type User struct{ Tenant, UID string }

// Cache is safe for concurrent use. An error means "not known", never "offline".
type Cache interface {
	// Put writes routes, one field per device, unless the field holds a higher session
	// epoch that has not expired. They expire after TTL unless put again.
	// The strings are kept: give clones of what was decoded from a message.
	Put(ctx context.Context, user User, routes ...Route) error
	// Remove deletes the device's field if it holds this session epoch or a lower one: a
	// late logout cannot remove a newer login.
	Remove(ctx context.Context, user User, device string, sessionEpoch uint64) error
	// Get returns what is known of each user, in the order asked. Known is false for a user the
	// cache cannot speak for (not written since it was last flushed): not known to be offline.
	Get(ctx context.Context, users []User) ([]Entry, error)
	Close() error
}

// Entry is what the cache knows of one user.
type Entry struct {
	Routes []Route // ascending device
	// Known: the cache holds a word about this user, be it that he is offline.
	Known bool
}
