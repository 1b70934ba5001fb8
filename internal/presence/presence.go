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

var (
	// ErrClosed: the cache is closed.
	ErrClosed = errors.New("presence cache is closed")
	// ErrDown: the cache has just failed and is not asked for a moment. It has said so itself:
	// callers need not log it.
	ErrDown = errors.New("presence cache is down")
)

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

// Change is one write of many: routes to put or, where there are none, a device to remove.
type Change struct {
	User   User
	Routes []Route
	// Device and SessionEpoch name what is removed, as in Cache.Remove.
	Device       string
	SessionEpoch uint64
}

// Cache is safe for concurrent use. An error means "not known", never "offline".
type Cache interface {
	// Put writes routes, one field per device, unless the field holds a higher session
	// epoch that has not expired. They expire after TTL unless put again.
	// The strings are kept: give clones of what was decoded from a message.
	Put(ctx context.Context, user User, routes ...Route) error
	// Remove deletes the device's field if it holds this session epoch or a lower one: a
	// late logout cannot remove a newer login.
	Remove(ctx context.Context, user User, device string, sessionEpoch uint64) error
	// Apply makes many changes for the price of one: in one round trip. Those of one user are
	// made in order. An error says that some may not have been made.
	Apply(ctx context.Context, changes []Change) error
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
