package logic

import (
	"errors"
	"fmt"
	"time"

	"hongyan/internal/duty"
)

// Config of a Logic. The zero value is not usable: start from DefaultConfig.
type Config struct {
	// Serve lists the duties that this instance announces (session, message, contact, open);
	// empty = all of them. Gateways bring it the commands of these duties only, and message
	// makes it the home of users.
	Serve []string `koanf:"serve"`
	// Lanes bound what runs at once per duty, so that a storm of one starves no other.
	Lanes LanesConfig `koanf:"lanes"`
	// Hooks are what the platform is asked before something is done.
	Hooks HooksConfig `koanf:"hooks"`
	// Sessions is the multi-device policy by class (mobile, pad, desktop, web, mini, agent).
	Sessions map[string]ClassPolicy `koanf:"sessions"`
	// DefaultSession applies to a class that Sessions does not name.
	DefaultSession ClassPolicy `koanf:"default_session"`
	// Heartbeat is told to clients in AUTH_ACK, whole seconds.
	Heartbeat time.Duration `koanf:"heartbeat"`

	// MaxText bounds text, MaxData data of a message, in bytes.
	MaxText int `koanf:"max_text"`
	MaxData int `koanf:"max_data"`
	// MaxInFlight bounds client writes that wait for a das; more are refused as overloaded.
	MaxInFlight int `koanf:"max_in_flight"`
	// MaxFanOut bounds users that a committed message has yet to reach (two-stage form).
	// From half of it on, a growing share of SENDs is refused (R04).
	MaxFanOut int `koanf:"max_fan_out"`
	// MaxFanOutAge does the same for the time it takes to reach a user, or since when nobody was.
	MaxFanOutAge time.Duration `koanf:"max_fan_out_age"`
	// MaxDue bounds deliveries that are remembered until they are acked; what is beyond is
	// left to the outbox rows.
	MaxDue int `koanf:"max_due"`
	// BatchMax bounds the items of one call to another tier.
	BatchMax int `koanf:"batch_max"`
	// DownQueue bounds the frames that wait for one gateway; more are dropped, and found
	// again by the next renewal.
	DownQueue int `koanf:"down_queue"`

	// SettleTimeout is how long the outcome of a write is waited for; then it is unknown.
	SettleTimeout time.Duration `koanf:"settle_timeout"`
	// SendTTL bounds the life of a SEND that came without one (R10).
	SendTTL time.Duration `koanf:"send_ttl"`
	// CallTimeout bounds one call to another instance.
	CallTimeout time.Duration `koanf:"call_timeout"`
	// CommandTimeout bounds a command that reads.
	CommandTimeout time.Duration `koanf:"command_timeout"`
	// RenewPeriod is the gateways' period of renewals.
	RenewPeriod time.Duration `koanf:"renew_period"`
	// Reorder is how long a change waits for one with a lower version that is still under way.
	Reorder time.Duration `koanf:"reorder"`
	// CursorDelay gathers acked cursors before they are persisted.
	CursorDelay time.Duration `koanf:"cursor_delay"`
	// Overdue is the age at which a delivery that nobody acked wakes the user's devices.
	Overdue time.Duration `koanf:"overdue"`
	// WakeBackoff is the first pause before a user is woken again for the same change; it doubles.
	WakeBackoff time.Duration `koanf:"wake_backoff"`
	// FanOutAge and DeliverAge are the ages from which outbox rows are driven again, by
	// the store's clock. Owners use them too.
	FanOutAge  time.Duration `koanf:"fan_out_age"`
	DeliverAge time.Duration `koanf:"deliver_age"`
	// Drain is how long a stopping Logic waits for outcomes of what it submitted.
	Drain time.Duration `koanf:"drain"`
}

// LanesConfig has one lane per duty.
type LanesConfig struct {
	Session LaneConfig `koanf:"session"` // AUTH, LOGOUT
	Message LaneConfig `koanf:"message"` // RECALL, EDIT, BLOCK, READ, SETTINGS, TYPING
	Query   LaneConfig `koanf:"query"`   // SYNC, HISTORY, CONVERSATIONS, CONTACTS, UNREAD, PRESENCE
	Open    LaneConfig `koanf:"open"`    // CALL
}

// LaneConfig bounds one lane.
type LaneConfig struct {
	// Workers run at once. A user's commands of one lane stay in order.
	Workers int `koanf:"workers"`
	// Queue is how many commands may wait for each worker; one more is refused as overloaded.
	Queue int `koanf:"queue"`
}

// ClassPolicy says how many devices of a class may be logged in.
type ClassPolicy struct {
	// Slots is how many.
	Slots int `koanf:"slots"`
	// RejectNew refuses one more login; otherwise it replaces the oldest.
	RejectNew bool `koanf:"reject_new"`
}

// DefaultConfig serves a small installation and the tests.
func DefaultConfig() Config {
	return Config{
		Lanes: LanesConfig{
			Session: LaneConfig{Workers: 64, Queue: 512},
			Message: LaneConfig{Workers: 32, Queue: 512},
			Query:   LaneConfig{Workers: 32, Queue: 256},
			Open:    LaneConfig{Workers: 8, Queue: 64},
		},
		Hooks: defaultHooks(),
		Sessions: map[string]ClassPolicy{
			"mobile": {Slots: 1}, "pad": {Slots: 1}, "desktop": {Slots: 2},
			"web": {Slots: 5}, "mini": {Slots: 1}, "agent": {Slots: 1},
		},
		DefaultSession: ClassPolicy{Slots: 1},
		Heartbeat:      25 * time.Second,
		MaxText:        32 << 10,
		MaxData:        128 << 10,
		MaxInFlight:    65536,
		MaxFanOut:      200_000,
		MaxFanOutAge:   10 * time.Second,
		MaxDue:         1_000_000,
		BatchMax:       256,
		DownQueue:      65536,
		SettleTimeout:  10 * time.Second,
		SendTTL:        2 * time.Minute,
		CallTimeout:    5 * time.Second,
		CommandTimeout: 10 * time.Second,
		RenewPeriod:    20 * time.Second,
		Reorder:        30 * time.Millisecond,
		CursorDelay:    3 * time.Second,
		Overdue:        15 * time.Second,
		WakeBackoff:    10 * time.Second,
		FanOutAge:      5 * time.Second,
		DeliverAge:     time.Minute,
		Drain:          2 * time.Second,
	}
}

// Validate names the first field that cannot work.
func (c *Config) Validate() error {
	var errs []error
	if _, err := duty.Join(c.Serve); err != nil {
		errs = append(errs, fmt.Errorf("serve: %w", err))
	}
	for _, l := range []struct {
		name string
		LaneConfig
	}{{"session", c.Lanes.Session}, {"message", c.Lanes.Message}, {"query", c.Lanes.Query}, {"open", c.Lanes.Open}} {
		if l.Workers < 1 || l.Workers > 4096 || l.Queue < 1 || l.Queue > 1<<20 {
			errs = append(errs, fmt.Errorf("lanes.%s: workers must be 1 to 4096 and queue 1 to %d", l.name, 1<<20))
		}
	}
	if err := c.Hooks.BeforeSend.validate(); err != nil {
		errs = append(errs, fmt.Errorf("hooks.before_send: %w", err))
	}
	for class, p := range c.Sessions {
		if p.Slots < 1 || p.Slots > 64 {
			errs = append(errs, fmt.Errorf("sessions.%s: slots must be 1 to 64", class))
		}
	}
	if c.DefaultSession.Slots < 1 || c.DefaultSession.Slots > 64 {
		errs = append(errs, errors.New("default_session: slots must be 1 to 64"))
	}
	for _, f := range []struct {
		name  string
		value int
	}{
		{"max_text", c.MaxText}, {"max_data", c.MaxData}, {"max_in_flight", c.MaxInFlight},
		{"max_fan_out", c.MaxFanOut}, {"max_due", c.MaxDue}, {"batch_max", c.BatchMax}, {"down_queue", c.DownQueue},
	} {
		if f.value < 1 {
			errs = append(errs, fmt.Errorf("%s: must be at least 1", f.name))
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat", c.Heartbeat}, {"max_fan_out_age", c.MaxFanOutAge}, {"settle_timeout", c.SettleTimeout},
		{"send_ttl", c.SendTTL}, {"call_timeout", c.CallTimeout}, {"command_timeout", c.CommandTimeout},
		{"renew_period", c.RenewPeriod}, {"cursor_delay", c.CursorDelay}, {"overdue", c.Overdue},
		{"wake_backoff", c.WakeBackoff}, {"fan_out_age", c.FanOutAge}, {"deliver_age", c.DeliverAge},
	} {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be more than 0", f.name))
		}
	}
	if c.Reorder < 0 || c.Drain < 0 {
		errs = append(errs, errors.New("reorder, drain: must not be negative"))
	}
	return errors.Join(errs...)
}

// Duties is what the instance announces, as control.Instance.Serves.
func (c *Config) Duties() string {
	serves, _ := duty.Join(c.Serve) // Validate tells what is wrong
	return serves
}

// policy of a class of devices.
func (c *Config) policy(class string) ClassPolicy {
	if p, ok := c.Sessions[class]; ok {
		return p
	}
	return c.DefaultSession
}
