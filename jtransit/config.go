package jtransit

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"hongyan/internal/config"
	"hongyan/internal/control"
)

// Config of a Jtransit.
type Config struct {
	// Calls by name, as clients give it in CALL: order.get.
	Calls map[string]CallConfig `koanf:"calls"`
	// CallsFile is a YAML file with more calls, under the same key calls; they stand over those
	// here. It is read again when it changes. Empty = none.
	CallsFile string `koanf:"calls_file"`
	// Poll is how often CallsFile and the files of IDLs are looked at for changes. 0 = never.
	Poll time.Duration `koanf:"poll"`
	// MaxBody bounds the JSON of one request and of one answer, in bytes.
	MaxBody int `koanf:"max_body"`
}

// CallConfig says what a name calls.
type CallConfig struct {
	// IDL is the path of the service's .proto or .thrift file; what it imports lies beside it.
	// A text that the control centre has under jtransit/idl/<path> stands over the file.
	IDL string `koanf:"idl"`
	// Service is its name in that file, with or without a protobuf package.
	Service string `koanf:"service"`
	// Method of the service; a stream cannot be called.
	Method string `koanf:"method"`
	// Addresses are where the service is, host:port each; they are used in turn.
	Addresses []string `koanf:"addresses"`
	// Discover is the name under which its instances are registered, instead of Addresses.
	Discover string `koanf:"discover"`
	// Timeout of one call, retries included. 0 = 3 s.
	Timeout time.Duration `koanf:"timeout"`
	// Idempotent says that the method may run twice for one call.
	Idempotent bool `koanf:"idempotent"`
	// Retries after a failure that may have been the instance's; only where idempotent.
	Retries int `koanf:"retries"`
	// Concurrency is how many calls run at once; one more is overloaded. 0 = 64.
	Concurrency int `koanf:"concurrency"`
	// Breaker refuses calls for a while when too many fail.
	Breaker BreakerConfig `koanf:"breaker"`
}

// BreakerConfig bounds failures: timeouts, lost connections, crashes. What the service
// refuses is not one.
type BreakerConfig struct {
	// Ratio of failures within 10 s that opens it, above 0 and up to 1. 0 = 0.5.
	Ratio float64 `koanf:"ratio"`
	// MinCalls within 10 s below which it stays closed. 0 = 20.
	MinCalls int `koanf:"min_calls"`
	// OpenFor is how long it then refuses; after that one call tries. 0 = 5 s.
	OpenFor time.Duration `koanf:"open_for"`
}

// DefaultConfig has no calls.
func DefaultConfig() Config { return Config{MaxBody: 128 << 10, Poll: 2 * time.Second} }

// callsFile is what CallsFile holds.
type callsFile struct {
	Calls map[string]CallConfig `koanf:"calls"`
}

func (c CallConfig) withDefaults() CallConfig {
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	c.Concurrency = cmp.Or(c.Concurrency, 64)
	c.Breaker.Ratio = cmp.Or(c.Breaker.Ratio, 0.5)
	c.Breaker.MinCalls = cmp.Or(c.Breaker.MinCalls, 20)
	c.Breaker.OpenFor = cmp.Or(c.Breaker.OpenFor, 5*time.Second)
	return c
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Validate names every call that cannot be made. Files are read by New.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxBody < 1 || c.MaxBody > 16<<20 {
		errs = append(errs, fmt.Errorf("max_body must be 1 to %d", 16<<20))
	}
	if c.Poll != 0 && c.Poll < 10*time.Millisecond {
		errs = append(errs, errors.New("poll must be at least 10ms, or 0"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Calls)) {
		if _, err := c.Calls[name].complete(name); err != nil {
			errs = append(errs, fmt.Errorf("call %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// ParseCall reads one call, in YAML or JSON, and fills in its defaults. The error is what can
// be told without its IDL.
func ParseCall(name string, data []byte) (CallConfig, error) {
	var c CallConfig
	if err := config.Parse(data, &c, "value"); err != nil {
		return c, err
	}
	return c.complete(name)
}

// complete fills in the defaults and tells what is wrong.
func (c CallConfig) complete(name string) (CallConfig, error) {
	if !nameForm.MatchString(name) {
		return c, errors.New("a name has 1 to 64 of A-Z a-z 0-9 _ . -")
	}
	c = c.withDefaults()
	return c, c.validate()
}

func (c *CallConfig) validate() error {
	switch {
	case c.IDL == "":
		return errors.New("no idl")
	case !strings.HasSuffix(c.IDL, ".proto") && !strings.HasSuffix(c.IDL, ".thrift"):
		return fmt.Errorf("idl %s is neither a .proto nor a .thrift file", c.IDL)
	case c.Service == "":
		return errors.New("no service")
	case c.Method == "":
		return errors.New("no method")
	case len(c.Addresses) == 0 && c.Discover == "":
		return errors.New("no address, and no name to discover")
	case len(c.Addresses) > 0 && c.Discover != "":
		return errors.New("addresses and discover are both given")
	case c.Discover != "" && control.ValidService(c.Discover) != nil:
		return control.ValidService(c.Discover)
	case slices.ContainsFunc(c.Addresses, notHostPort):
		return fmt.Errorf("address %q is not host:port", c.Addresses[slices.IndexFunc(c.Addresses, notHostPort)])
	case c.Timeout < time.Millisecond:
		return errors.New("timeout must be at least 1ms")
	case c.Retries < 0 || c.Retries > 10:
		return errors.New("retries must be 0 to 10")
	case c.Retries > 0 && !c.Idempotent:
		return errors.New("retries need idempotent: true")
	case c.Concurrency < 0:
		return errors.New("concurrency must not be negative")
	case c.Breaker.Ratio < 0 || c.Breaker.Ratio > 1:
		return errors.New("breaker.ratio must be above 0 and up to 1")
	case c.Breaker.MinCalls < 0 || c.Breaker.OpenFor < 0:
		return errors.New("breaker: min_calls and open_for must not be negative")
	}
	return nil
}

func notHostPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	return err != nil || port == ""
}
