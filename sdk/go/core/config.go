package core

import (
	"errors"
	"time"
)

// Config is what a core is told once. Zero fields take the value of DefaultConfig, but for
// Device, which must be set.
type Config struct {
	Device        string // stable id of the installation, at most 64 bytes
	Platform      string // ios, android, web, desktop, mini, cli
	ClientVersion string
	PushToken     string // of the platform's push service, if any

	RetryAfter   time.Duration // a send without an answer is written again
	SendDeadline time.Duration // from the user's call to failed
	Window       int           // unacknowledged sends on a connection
	OutboxLimit  int           // entries waiting or failed; beyond, Send refuses

	AckDelay time.Duration // PUSH_ACK: at most one in this time,
	AckEvery int           // or as soon as this many changes wait for it

	GapDelay  time.Duration // how long a missing seq may still arrive by itself
	SyncDelay time.Duration // how long a missing version may still arrive by itself
	Fetches   int           // conversations whose gaps are fetched at the same time

	RequestTimeout time.Duration // HELLO, AUTH, PING, SYNC, HISTORY
	Heartbeat      time.Duration // PING when nothing was written for so long; the server may ask for less

	SyncLimit    uint32 // conversations in one SYNC
	SyncMessages uint32 // newest messages of each
	// FullHistory fetches conversations to their first entry, also those that existed
	// before this device's first login.
	FullHistory bool

	// Rand returns uniform values in [0, 1) for the jitter of retries; nil means none.
	Rand func() float64
}

// DefaultConfig returns the protocol's numbers.
func DefaultConfig() Config {
	return Config{
		Platform:       "cli",
		ClientVersion:  "hongyan-go/1",
		RetryAfter:     5 * time.Second,
		SendDeadline:   2 * time.Minute,
		Window:         32,
		OutboxLimit:    1000,
		AckDelay:       200 * time.Millisecond,
		AckEvery:       50,
		GapDelay:       200 * time.Millisecond,
		SyncDelay:      50 * time.Millisecond,
		Fetches:        4,
		RequestTimeout: 10 * time.Second,
		Heartbeat:      25 * time.Second,
		SyncLimit:      100,
		SyncMessages:   20,
		Rand:           func() float64 { return 0.5 },
	}
}

func (c Config) withDefaults() Config {
	d := DefaultConfig()
	orString(&c.Platform, d.Platform)
	orString(&c.ClientVersion, d.ClientVersion)
	or(&c.RetryAfter, d.RetryAfter)
	or(&c.SendDeadline, d.SendDeadline)
	or(&c.Window, d.Window)
	or(&c.OutboxLimit, d.OutboxLimit)
	or(&c.AckDelay, d.AckDelay)
	or(&c.AckEvery, d.AckEvery)
	or(&c.GapDelay, d.GapDelay)
	or(&c.SyncDelay, d.SyncDelay)
	or(&c.Fetches, d.Fetches)
	or(&c.RequestTimeout, d.RequestTimeout)
	or(&c.Heartbeat, d.Heartbeat)
	or(&c.SyncLimit, d.SyncLimit)
	or(&c.SyncMessages, d.SyncMessages)
	if c.Rand == nil {
		c.Rand = d.Rand
	}
	return c
}

func or[T int | uint32 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func orString(v *string, d string) {
	if *v == "" {
		*v = d
	}
}

func (c *Config) validate() error {
	if c.Device == "" || len(c.Device) > 64 {
		return errors.New("device must be 1 to 64 bytes: the stable id of this installation")
	}
	return nil
}
