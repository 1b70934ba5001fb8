package httpentry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hongyan/idl/code"
)

func TestConfigNamesWhatMakesNoSense(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	app := App{Name: "shop", Key: "0123456789abcdef", Tenants: []string{"demo"}}
	for want, change := range map[string]func(*Config){
		"listen":           func(c *Config) { c.Listen = "" },
		"max_header_bytes": func(c *Config) { c.MaxHeaderBytes = 10 },
		"max_body_bytes":   func(c *Config) { c.MaxBodyBytes = 10 },
		"idle_timeout":     func(c *Config) { c.IdleTimeout = 0 },
		"origins":          func(c *Config) { c.Origins = []string{"shop.example"} },
		"trusted_proxies":  func(c *Config) { c.TrustedProxies = []string{"10.0.0.1"} },
		"metrics_from":     func(c *Config) { c.MetricsFrom = []string{"everywhere"} },
		"colon":            func(c *Config) { a := app; a.Name = "a:b"; c.Apps = []App{a} },
		"twice":            func(c *Config) { c.Apps = []App{app, app} },
		"16 bytes":         func(c *Config) { a := app; a.Key = "short"; c.Apps = []App{a} },
		"tenant":           func(c *Config) { a := app; a.Tenants = nil; c.Apps = []App{a} },
		"min_hold":         func(c *Config) { c.Poll.MinHold = time.Hour },
		"ceiling":          func(c *Config) { c.Poll.Ceiling = time.Second },
		"jitter":           func(c *Config) { c.Poll.Jitter = 2 },
		"max_buffered":     func(c *Config) { c.Poll.MaxBuffered = 1 },
		"secret":           func(c *Config) { c.Poll.Secret = "short" },
		"max_body":         func(c *Config) { c.Gate.MaxBody = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// X-Forwarded-For is believed as far as the proxies that wrote it are trusted, from the right.
func TestClientIP(t *testing.T) {
	trusted, err := parseNetworks([]string{"10.0.0.0/8", "::1/128"})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{proxies: trusted}
	for _, c := range []struct{ remote, forwarded, want string }{
		{"1.2.3.4", "", "1.2.3.4"},
		{"1.2.3.4", "9.9.9.9", "1.2.3.4"},
		{"10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.1", "9.9.9.9", "9.9.9.9"},
		{"10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9"},
		{"10.0.0.1", "6.6.6.6,9.9.9.9, 10.0.0.7", "9.9.9.9"},
		{"10.0.0.1", "6.6.6.6, nonsense", "10.0.0.1"},
		{"10.0.0.1", ",", "10.0.0.1"},
		{"::1", "2001:db8::1", "2001:db8::1"},
		{"::ffff:10.0.0.1", "9.9.9.9", "9.9.9.9"},
	} {
		if got := s.clientIP(c.remote, c.forwarded); got != c.want {
			t.Errorf("%q through %q: %q, want %q", c.remote, c.forwarded, got, c.want)
		}
	}
}

// A nonce is remembered for as long as its timestamp can be good, and not for ever.
func TestNonces(t *testing.T) {
	const window = time.Minute
	n := newNonces(window)
	n.max = 3
	start := time.Unix(1_000_000, 0)
	use := func(nonce string, stamp, at time.Duration) code.Code {
		return code.Of(n.use("shop", fmt.Sprint(start.Add(stamp).Unix()), nonce, start.Add(at)))
	}
	for i, c := range []struct {
		nonce     string
		stamp, at time.Duration
		want      code.Code
	}{
		{"nonce-one", window, 0, code.OK},
		{"nonce-one", window, 2 * window, code.BadToken}, // the timestamp is good to the end
		{"nonce-one", window, 2*window + time.Second, code.BadToken},
		{"nonce-two", 2 * window, 2*window + 2*time.Second, code.OK},
		{"nonce-two", 2 * window, 3 * window, code.BadToken},
		{"nonce-3ree", 2 * window, 2 * window, code.OK},
		{"nonce-four", 2 * window, 2 * window, code.OK},
		{"nonce-five", 2 * window, 2 * window, code.RateLimited},
		{"nonce-one", 9 * window, 9 * window, code.OK},
		{"nonce-one", 0, 9 * window, code.BadToken},
	} {
		if got := use(c.nonce, c.stamp, c.at); got != c.want {
			t.Errorf("%d: %s: %s, want %s", i, c.nonce, got, c.want)
		}
	}
	if got := code.Of(n.use("other", fmt.Sprint(start.Unix()), "nonce-one", start)); got == code.BadToken {
		t.Error("another app's nonce counts")
	}
}
