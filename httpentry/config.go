package httpentry

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"hongyan/internal/gate"
)

// Config of the tier. DefaultConfig documents itself: start from it. TLS is terminated in
// front of this tier.
type Config struct {
	// Listen is host:port for HTTP, WebSocket and long poll; port 0 = any free one.
	Listen string `yaml:"listen" koanf:"listen"`

	// MaxHeaderBytes of a request, its request line included.
	MaxHeaderBytes int `yaml:"max_header_bytes" koanf:"max_header_bytes"`
	// MaxBodyBytes of a request.
	MaxBodyBytes int `yaml:"max_body_bytes" koanf:"max_body_bytes"`
	// MaxConnections at once, of every kind; 0 = no limit but the descriptors'.
	MaxConnections int `yaml:"max_connections" koanf:"max_connections"`
	// HeaderReadTimeout is how long a request may take from its first byte to the end of
	// its header, BodyReadTimeout from there to its last byte.
	HeaderReadTimeout time.Duration `yaml:"header_read_timeout" koanf:"header_read_timeout"`
	BodyReadTimeout   time.Duration `yaml:"body_read_timeout" koanf:"body_read_timeout"`
	// IdleTimeout closes a connection that asks for nothing. WebSockets have heartbeats instead.
	IdleTimeout time.Duration `yaml:"idle_timeout" koanf:"idle_timeout"`
	// RequestTimeout is how long a Logic may take to answer a request of the HTTP API.
	RequestTimeout time.Duration `yaml:"request_timeout" koanf:"request_timeout"`
	// StopTimeout is how long requests under way may take when the server stops.
	StopTimeout time.Duration `yaml:"stop_timeout" koanf:"stop_timeout"`

	// Origins whose pages may use this server from a browser (CORS and WebSocket), such as
	// https://shop.example; "*" = any. Empty: only pages that this server's host served.
	Origins []string `yaml:"origins" koanf:"origins"`
	// TrustedProxies are networks whose X-Forwarded-For is believed, such as 10.0.0.0/8.
	TrustedProxies []string `yaml:"trusted_proxies" koanf:"trusted_proxies"`

	// Apps are server-side callers of the HTTP API.
	Apps []App `yaml:"apps" koanf:"apps"`
	// PlainAppKeys accepts "Authorization: App name:key" beside signed requests. For networks
	// where nobody else listens. Demo implies it for callers on this machine.
	PlainAppKeys bool `yaml:"plain_app_keys" koanf:"plain_app_keys"`
	// SignatureWindow is how far the timestamp of a signed request may be off, either way.
	// Nonces are remembered for twice as long.
	SignatureWindow time.Duration `yaml:"signature_window" koanf:"signature_window"`

	// MetricsFrom are the networks that may read /metrics directly; empty = nobody.
	MetricsFrom []string `yaml:"metrics_from" koanf:"metrics_from"`
	// Docs serves /docs and /v1/openapi.json.
	Docs bool `yaml:"docs" koanf:"docs"`
	// Demo serves /demo, which logs in whom it is asked to. Never in production.
	Demo bool `yaml:"demo" koanf:"demo"`

	Poll PollConfig  `yaml:"poll" koanf:"poll"`
	Gate gate.Config `yaml:"gate" koanf:"gate"`
}

// App is a server-side caller: a system of the platform, acting for users.
type App struct {
	Name string `yaml:"name" koanf:"name"`
	// Key signs its requests; at least 16 bytes.
	Key string `yaml:"key" koanf:"key" secret:"true"`
	// Tenants the app may act in. With more than one, a request names its tenant.
	Tenants []string `yaml:"tenants" koanf:"tenants"`
}

// PollConfig is the long poll's part.
type PollConfig struct {
	// Hold is how long a poll is held when the client asks for nothing else; it may ask for
	// MinHold to MaxHold. Every hold is stretched or cut at random by up to Jitter (0.2 = 20 %),
	// but is never longer than Ceiling: proxies and mini-programs cut at 60 s.
	Hold    time.Duration `yaml:"hold" koanf:"hold"`
	MinHold time.Duration `yaml:"min_hold" koanf:"min_hold"`
	MaxHold time.Duration `yaml:"max_hold" koanf:"max_hold"`
	Ceiling time.Duration `yaml:"ceiling" koanf:"ceiling"`
	Jitter  float64       `yaml:"jitter" koanf:"jitter"`
	// Gather is how long a held poll waits for more once something came for it.
	Gather time.Duration `yaml:"gather" koanf:"gather"`
	// Linger is how long beyond the hold a user counts as online between two polls.
	Linger time.Duration `yaml:"linger" koanf:"linger"`
	// MaxBuffered is how many bytes of pushes wait for the next poll. Beyond, they are dropped
	// and the client is told to SYNC.
	MaxBuffered int `yaml:"max_buffered" koanf:"max_buffered"`
	// Secret signs sids: 32 bytes or more, the same on every instance, or one instance cannot
	// take over another's sessions. Empty = random at each start.
	Secret string `yaml:"secret" koanf:"secret" secret:"true"`
}

// DefaultConfig is right for one instance behind nothing, or behind a proxy on another host.
func DefaultConfig() Config {
	return Config{
		Listen:            "127.0.0.1:8000",
		MaxHeaderBytes:    16 << 10,
		MaxBodyBytes:      1 << 20,
		HeaderReadTimeout: 5 * time.Second,
		BodyReadTimeout:   30 * time.Second,
		IdleTimeout:       75 * time.Second,
		RequestTimeout:    8 * time.Second,
		StopTimeout:       10 * time.Second,
		SignatureWindow:   5 * time.Minute,
		MetricsFrom:       []string{"127.0.0.0/8", "::1/128"},
		Docs:              true,
		Poll: PollConfig{
			Hold:        15 * time.Second,
			MinHold:     5 * time.Second,
			MaxHold:     50 * time.Second,
			Ceiling:     55 * time.Second,
			Jitter:      0.2,
			Gather:      30 * time.Millisecond,
			Linger:      10 * time.Second,
			MaxBuffered: 256 << 10,
		},
		Gate: gate.DefaultConfig(),
	}
}

const (
	minAppKey    = 16 // bytes
	minSIDSecret = 32
)

// Validate names every field that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	check(c.Listen != "", "listen must be host:port")
	check(c.MaxHeaderBytes >= 1<<10, "max_header_bytes must be at least 1024")
	check(c.MaxBodyBytes >= 4<<10, "max_body_bytes must be at least 4096")
	check(c.MaxConnections >= 0, "max_connections must not be negative")
	check(c.HeaderReadTimeout > 0, "header_read_timeout must be more than 0")
	check(c.BodyReadTimeout > 0, "body_read_timeout must be more than 0")
	check(c.IdleTimeout > 0, "idle_timeout must be more than 0")
	check(c.RequestTimeout > 0, "request_timeout must be more than 0")
	check(c.StopTimeout > 0, "stop_timeout must be more than 0")
	check(c.SignatureWindow > 0, "signature_window must be more than 0")
	for _, o := range c.Origins {
		check(o == "*" || validOrigin(o), "origins: %q is not scheme://host[:port]", o)
	}
	_, err := parseNetworks(c.TrustedProxies)
	check(err == nil, "trusted_proxies: %v", err)
	_, err = parseNetworks(c.MetricsFrom)
	check(err == nil, "metrics_from: %v", err)
	errs = append(errs, validateApps(c.Apps), c.Poll.validate(), c.Gate.Validate())
	return errors.Join(errs...)
}

func validateApps(apps []App) error {
	seen := map[string]bool{}
	for _, a := range apps {
		switch {
		case a.Name == "" || strings.ContainsAny(a.Name, ": \t\r\n"):
			return fmt.Errorf("apps: a name must not be empty or hold a colon or space: %q", a.Name)
		case seen[a.Name]:
			return fmt.Errorf("apps: %q stands twice", a.Name)
		case len(a.Key) < minAppKey:
			return fmt.Errorf("apps: the key of %q must have %d bytes at least", a.Name, minAppKey)
		case len(a.Tenants) == 0 || slices.Contains(a.Tenants, ""):
			return fmt.Errorf("apps: %q may act in no tenant", a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

func (c *PollConfig) validate() error {
	switch {
	case c.MinHold <= 0 || c.Hold < c.MinHold || c.MaxHold < c.Hold:
		return errors.New("poll: 0 < min_hold <= hold <= max_hold must hold")
	case c.Ceiling < c.MaxHold:
		return errors.New("poll: ceiling must not be less than max_hold")
	case c.Jitter < 0 || c.Jitter > 0.5:
		return errors.New("poll: jitter must be between 0 and 0.5")
	case c.Gather < 0 || c.Linger < 0:
		return errors.New("poll: gather and linger must not be negative")
	case c.MaxBuffered < 4<<10:
		return errors.New("poll: max_buffered must be at least 4096")
	case c.Secret != "" && len(c.Secret) < minSIDSecret:
		return fmt.Errorf("poll: secret must have %d bytes at least", minSIDSecret)
	}
	return nil
}

func validOrigin(o string) bool {
	u, err := url.Parse(o)
	return err == nil && u.Scheme != "" && u.Host != "" && u.Path == "" && u.RawQuery == "" && u.User == nil
}

// networks is a list of IP ranges.
type networks []netip.Prefix

func parseNetworks(list []string) (networks, error) {
	var out networks
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (n networks) contain(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
