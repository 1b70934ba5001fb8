package gate

import (
	"errors"
	"fmt"
	"time"
)

// Config of a Gate. DefaultConfig documents itself: start from it.
type Config struct {
	// AuthTimeout is how long a connection may stay without AUTH, and then how long its
	// answer may take.
	AuthTimeout time.Duration `yaml:"auth_timeout" koanf:"auth_timeout"`
	// FrameTimeout is how long one frame may take from its first byte to its last.
	FrameTimeout time.Duration `yaml:"frame_timeout" koanf:"frame_timeout"`
	// MaxBody is the limit of a frame's body after AUTH, in bytes; at most 1 MiB.
	MaxBody int `yaml:"max_body" koanf:"max_body"`

	// HeartbeatMin is the shortest T a client is told, and the one assumed. A connection is
	// closed after 2.2 T + 5 s without a byte.
	HeartbeatMin time.Duration `yaml:"heartbeat_min" koanf:"heartbeat_min"`
	// HeartbeatMax is the longest T a native client in the background may ask for.
	HeartbeatMax time.Duration `yaml:"heartbeat_max" koanf:"heartbeat_max"`

	// AckTimeout is how long a push may stay unacknowledged before it is sent again.
	AckTimeout time.Duration `yaml:"ack_timeout" koanf:"ack_timeout"`
	// AckRetries is how often it is sent again before the connection is closed.
	AckRetries int `yaml:"ack_retries" koanf:"ack_retries"`
	// AckBudget is how many bytes of unacknowledged pushes are kept for one connection, to be
	// sent again. Beyond it the client is told to SYNC instead.
	AckBudget int `yaml:"ack_budget" koanf:"ack_budget"`

	// SlowBytes is how much may wait for one connection to take it, in bytes; a frame counts
	// 256 at least, so that 256 KiB are also 1,024 frames. Beyond it pushes are dropped.
	SlowBytes int `yaml:"slow_bytes" koanf:"slow_bytes"`
	// SlowTimeout is how long a connection may stay over half of SlowBytes after that.
	SlowTimeout time.Duration `yaml:"slow_timeout" koanf:"slow_timeout"`

	// MaxUnackedSends of one connection; more are refused as overloaded.
	MaxUnackedSends int `yaml:"max_unacked_sends" koanf:"max_unacked_sends" live:"true"`
	// Rate of frames one connection may send, per second, and Burst at once.
	Rate  float64 `yaml:"rate" koanf:"rate" live:"true"`
	Burst int     `yaml:"burst" koanf:"burst" live:"true"`

	// Stripes is how many batches may be on their way to one Logic instance at once.
	Stripes int `yaml:"stripes" koanf:"stripes"`
	// BatchMax is how many packets a batch holds.
	BatchMax int `yaml:"batch_max" koanf:"batch_max"`
	// UplinkQueue is how many packets wait in one stripe, UplinkBytes how many bytes in all.
	// Beyond either, requests are refused as overloaded.
	UplinkQueue int `yaml:"uplink_queue" koanf:"uplink_queue"`
	UplinkBytes int `yaml:"uplink_bytes" koanf:"uplink_bytes"`
	// CallTimeout of one call to a Logic. It answers on acceptance, so this is not the time
	// of a commit.
	CallTimeout time.Duration `yaml:"call_timeout" koanf:"call_timeout"`
	// SendLife is how long a SEND may live from here on (R10), RequestLife anything else.
	SendLife    time.Duration `yaml:"send_life" koanf:"send_life"`
	RequestLife time.Duration `yaml:"request_life" koanf:"request_life"`

	// RenewEvery is the period in which each session is renewed with its home Logic.
	RenewEvery time.Duration `yaml:"renew_every" koanf:"renew_every"`
	// CursorEvery is how long acknowledged cursors are gathered before they go up.
	CursorEvery time.Duration `yaml:"cursor_every" koanf:"cursor_every"`
	// DrainNotice is for how long a gateway that was asked to stop still takes connections,
	// while /readyz says no: for balancers that look there and do not try another server when
	// one refuses.
	DrainNotice time.Duration `yaml:"drain_notice" koanf:"drain_notice"`
	// DrainDelay is over how much time connections are then closed; clients are told it, and
	// leave at a time of their own within it. 0: at once.
	DrainDelay time.Duration `yaml:"drain_delay" koanf:"drain_delay"`
}

// DefaultConfig holds the published numbers of the protocol.
func DefaultConfig() Config {
	return Config{
		AuthTimeout:     10 * time.Second,
		FrameTimeout:    30 * time.Second,
		MaxBody:         256 << 10,
		HeartbeatMin:    25 * time.Second,
		HeartbeatMax:    270 * time.Second,
		AckTimeout:      10 * time.Second,
		AckRetries:      3,
		AckBudget:       64 << 10,
		SlowBytes:       256 << 10,
		SlowTimeout:     10 * time.Second,
		MaxUnackedSends: 32,
		Rate:            2000,
		Burst:           4000,
		Stripes:         4,
		BatchMax:        128,
		UplinkQueue:     8192,
		UplinkBytes:     64 << 20,
		CallTimeout:     3 * time.Second,
		SendLife:        2 * time.Minute,
		RequestLife:     15 * time.Second,
		RenewEvery:      20 * time.Second,
		CursorEvery:     500 * time.Millisecond,
		DrainDelay:      10 * time.Second,
	}
}

// maxMaxBody is the largest body any peer of the protocol must be ready for.
const maxMaxBody = 1 << 20

// Validate names every field that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s must be more than 0", name))
		}
	}
	positive("auth_timeout", c.AuthTimeout > 0)
	positive("frame_timeout", c.FrameTimeout > 0)
	positive("heartbeat_min", c.HeartbeatMin > 0)
	positive("ack_timeout", c.AckTimeout > 0)
	positive("ack_budget", c.AckBudget > 0)
	positive("slow_bytes", c.SlowBytes > 0)
	positive("slow_timeout", c.SlowTimeout > 0)
	positive("max_unacked_sends", c.MaxUnackedSends > 0)
	positive("rate", c.Rate > 0)
	positive("burst", c.Burst > 0)
	positive("stripes", c.Stripes > 0)
	positive("batch_max", c.BatchMax > 0)
	positive("uplink_queue", c.UplinkQueue > 0)
	positive("uplink_bytes", c.UplinkBytes > 0)
	positive("call_timeout", c.CallTimeout > 0)
	positive("send_life", c.SendLife > 0)
	positive("request_life", c.RequestLife > 0)
	positive("renew_every", c.RenewEvery > 0)
	positive("cursor_every", c.CursorEvery > 0)
	if c.AckRetries < 0 {
		errs = append(errs, errors.New("ack_retries must not be negative"))
	}
	if c.DrainDelay < 0 || c.DrainNotice < 0 {
		errs = append(errs, errors.New("drain_delay, drain_notice must not be negative"))
	}
	if c.HeartbeatMax < c.HeartbeatMin || c.HeartbeatMax > time.Hour {
		errs = append(errs, errors.New("heartbeat_max must be between heartbeat_min and 1h"))
	}
	if c.MaxBody < earlyBody || c.MaxBody > maxMaxBody {
		errs = append(errs, fmt.Errorf("max_body must be between %d and %d", earlyBody, maxMaxBody))
	}
	return errors.Join(errs...)
}
