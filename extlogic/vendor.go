package extlogic

import (
	"context"
	"log/slog"
	"time"
)

// Notification is what a device shows.
type Notification struct {
	Tenant, UID string
	Device      string
	Platform    string
	Token       string // of the device at the vendor; may be empty
	Conv        string
	Seq         uint64 // newest message of conv that it tells of
	Title, Body string
	Collapse    string // a later notification with the same replaces this one
	Badge       uint64 // unread messages of the user in all
	At          time.Time
}

// Result is what a vendor made of a notification.
type Result int

const (
	// Accepted: the vendor has it.
	Accepted Result = iota
	// BadToken: the vendor does not know the token, or there is none.
	BadToken
)

// Vendor pushes to devices that are not connected. It is safe for concurrent use.
type Vendor interface {
	// Name for metrics and logs.
	Name() string
	// Push hands one notification over. An error means: nothing was accepted, try later.
	Push(ctx context.Context, n Notification) (Result, error)
}

// LogVendor stands in for a vendor: the push is in the log, and as every push in the
// table that Das.Pushes reads.
type LogVendor struct{ Log *slog.Logger }

// Name implements Vendor.
func (LogVendor) Name() string { return "log" }

// Push implements Vendor. Devices without a token have pushes too.
func (v LogVendor) Push(_ context.Context, n Notification) (Result, error) {
	v.Log.Info("offline push", "tenant", n.Tenant, "uid", n.UID, "device", n.Device, "platform", n.Platform,
		"conv", n.Conv, "seq", n.Seq, "badge", n.Badge)
	return Accepted, nil
}
