package jtransit

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Config of a Jtransit.
type Config struct {
	// Calls by name, as clients give it in CALL: order.get.
	Calls map[string]CallConfig `koanf:"calls"`
	// MaxBody bounds the JSON of one request and of one answer, in bytes.
	MaxBody int `koanf:"max_body"`
}

// CallConfig says what a name calls.
type CallConfig struct {
	// IDL is the path of the service's .proto file; what it imports lies beside it.
	IDL string `koanf:"idl"`
	// Service is its name in that file, with or without the package.
	Service string `koanf:"service"`
	// Method of the service; a stream cannot be called.
	Method string `koanf:"method"`
	// Addresses are where the service is, host:port each; they are used in turn.
	Addresses []string `koanf:"addresses"`
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
func DefaultConfig() Config { return Config{MaxBody: 128 << 10} }

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
	for _, name := range slices.Sorted(maps.Keys(c.Calls)) {
		if !nameForm.MatchString(name) {
			errs = append(errs, fmt.Errorf("call %q: a name has 1 to 64 of A-Z a-z 0-9 _ . -", name))
		}
		call := c.Calls[name].withDefaults()
		if err := call.validate(); err != nil {
			errs = append(errs, fmt.Errorf("call %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (c *CallConfig) validate() error {
	switch {
	case c.IDL == "":
		return errors.New("no idl")
	case strings.HasSuffix(c.IDL, ".thrift"):
		return fmt.Errorf("idl %s: thrift services cannot be called, only protobuf ones", c.IDL)
	case !strings.HasSuffix(c.IDL, ".proto"):
		return fmt.Errorf("idl %s is no .proto file", c.IDL)
	case c.Service == "":
		return errors.New("no service")
	case c.Method == "":
		return errors.New("no method")
	case len(c.Addresses) == 0:
		return errors.New("no address")
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
