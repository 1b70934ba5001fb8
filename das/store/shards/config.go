package shards

import (
	"errors"
	"fmt"
	"time"

	"hongyan/das/store"
)

// Config of a store over several databases.
type Config struct {
	// Shards are the databases. Their order and names stay as they are: the map names them.
	Shards []ShardConfig `koanf:"shards"`
	// Look is the time between two looks at the roles of all members.
	Look time.Duration `koanf:"look"`
	// LookTimeout bounds one look at one member.
	LookTimeout time.Duration `koanf:"look_timeout"`
	// Avoid is for how long a copy that failed is not read (DD-08).
	Avoid time.Duration `koanf:"avoid"`
}

// ShardConfig is one database: a primary and its copies.
type ShardConfig struct {
	Name string `koanf:"name"`
	// Members are the addresses of its servers, each a DSN user:password@tcp(host:port)/database.
	// Which of them takes writes is found out.
	Members []string `koanf:"members" secret:"true"`
}

// DefaultConfig lacks the shards only.
func DefaultConfig() Config {
	return Config{Look: time.Second, LookTimeout: time.Second, Avoid: 5 * time.Second}
}

// maxShards bounds the databases of one das.
const maxShards = 256

// Validate names every setting that cannot work. It never quotes a DSN: there is a password
// in it.
func (c Config) Validate() error {
	var errs []error
	if len(c.Shards) == 0 || len(c.Shards) > min(maxShards, store.Buckets) {
		errs = append(errs, fmt.Errorf("shards: %d are named, want 1 to %d", len(c.Shards), maxShards))
	}
	names, dsns := make(map[string]bool), make(map[string]bool)
	for i, s := range c.Shards {
		if s.Name == "" || names[s.Name] {
			errs = append(errs, fmt.Errorf("shards: name %q of shard %d is empty or stands twice", s.Name, i))
		}
		names[s.Name] = true
		if len(s.Members) == 0 {
			errs = append(errs, fmt.Errorf("shards: %s has no members", s.Name))
		}
		for n, dsn := range s.Members {
			if dsn == "" || dsns[dsn] {
				errs = append(errs, fmt.Errorf("shards: member %d of %s is empty or stands twice", n, s.Name))
			}
			dsns[dsn] = true
		}
	}
	if c.Look <= 0 || c.LookTimeout <= 0 || c.Avoid <= 0 {
		errs = append(errs, fmt.Errorf("look is %v, look_timeout %v, avoid %v: each must be above 0", c.Look, c.LookTimeout, c.Avoid))
	}
	return errors.Join(errs...)
}

// Names of the shards, in their order.
func (c Config) Names() []string {
	names := make([]string, len(c.Shards))
	for i, s := range c.Shards {
		names[i] = s.Name
	}
	return names
}
