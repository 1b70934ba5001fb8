package imui

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config of an IMUI.
type Config struct {
	// Apps are the systems that may call.
	Apps []App `koanf:"apps"`
	// Timeout of one call, at most; the caller's own deadline counts too.
	Timeout time.Duration `koanf:"timeout"`
	// Concurrency is how many users of one SendSystem are served at once.
	Concurrency int `koanf:"concurrency"`
}

// App is one calling system.
type App struct {
	Name string `koanf:"name"`
	// Key proves that a caller is the app; at least 16 bytes.
	Key string `koanf:"key" secret:"true"`
	// Tenants the app may act in.
	Tenants []string `koanf:"tenants"`
	// Rate bounds its calls, in calls a second at each instance; a SendSystem counts one for
	// each user. What is over is refused as overloaded. 0 = no bound.
	Rate float64 `koanf:"rate"`
	// Burst is how many calls may come at once. 0 = a second's worth, at least one full SendSystem.
	Burst int `koanf:"burst"`
}

// DefaultConfig admits nobody until apps are configured.
func DefaultConfig() Config {
	return Config{Timeout: 8 * time.Second, Concurrency: 32}
}

const minKey = 16

// Validate names every field that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout must be more than 0"))
	}
	if c.Concurrency < 1 || c.Concurrency > 1024 {
		errs = append(errs, errors.New("concurrency must be 1 to 1024"))
	}
	var names []string
	for i, a := range c.Apps {
		switch {
		case a.Name == "":
			errs = append(errs, fmt.Errorf("apps[%d] has no name", i))
		case slices.Contains(names, a.Name):
			errs = append(errs, fmt.Errorf("apps: %s is there twice", a.Name))
		case len(a.Key) < minKey:
			errs = append(errs, fmt.Errorf("apps: the key of %s must have at least %d bytes", a.Name, minKey))
		case len(a.Tenants) == 0:
			errs = append(errs, fmt.Errorf("apps: %s may act in no tenant", a.Name))
		case a.Rate < 0 || a.Burst < 0:
			errs = append(errs, fmt.Errorf("apps: rate and burst of %s must not be negative", a.Name))
		}
		names = append(names, a.Name)
	}
	return errors.Join(errs...)
}
