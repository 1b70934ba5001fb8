package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"hongyan/internal/presence"
	"hongyan/internal/secure"
)

// Modes of a Redis.
const (
	Standalone = "standalone"
	Sentinel   = "sentinel"
	Cluster    = "cluster"
)

// Config says which Redis, and how long it is waited for.
type Config struct {
	// Mode is standalone, sentinel or cluster.
	Mode string `koanf:"mode"`
	// Addrs are host:port: of the server; of the sentinels; of some nodes of the cluster. Empty:
	// no Redis.
	Addrs []string `koanf:"addrs"`
	// Master is the name of the primary that sentinels watch.
	Master string `koanf:"master"`
	// User and Password log in to Redis; empty = none.
	User     string `koanf:"user"`
	Password string `koanf:"password" secret:"true"`
	// SentinelUser and SentinelPassword log in to the sentinels; empty = none.
	SentinelUser     string `koanf:"sentinel_user"`
	SentinelPassword string `koanf:"sentinel_password" secret:"true"`
	// DB is the number of the database; a cluster has only 0.
	DB int `koanf:"db"`
	// TLS encrypts connections to Redis and to the sentinels.
	TLS TLSConfig `koanf:"tls"`
	// Prefix starts every key, so that several installations can share a Redis.
	Prefix string `koanf:"prefix"`

	// Timeout bounds one call: what Redis does not answer in it counts as not known.
	Timeout time.Duration `koanf:"timeout"`
	// Pause is how long Redis is not asked after it failed; then one call tries.
	Pause time.Duration `koanf:"pause"`
	// TTL is how long a route is believed without being renewed.
	TTL time.Duration `koanf:"ttl"`
	// Remember is how long a user's last word is kept.
	Remember time.Duration `koanf:"remember"`
}

// TLSConfig of the connections to Redis.
type TLSConfig struct {
	Enabled bool `koanf:"enabled"`
	// CA is a PEM file of authorities; empty = those of the system.
	CA string `koanf:"ca"`
	// Cert and Key are PEM files of a client certificate, if Redis asks for one.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// ServerName is the name in the server's certificate; empty = the host of the address.
	ServerName string `koanf:"server_name"`
}

// DefaultConfig is a single server, yet to be named.
func DefaultConfig() Config {
	return Config{
		Mode:     Standalone,
		Prefix:   "hongyan:presence:",
		Timeout:  500 * time.Millisecond,
		Pause:    time.Second,
		TTL:      presence.TTL,
		Remember: presence.Remember,
	}
}

// Validate names every field that cannot work.
func (c *Config) Validate() error {
	var errs []error
	if !slices.Contains([]string{Standalone, Sentinel, Cluster}, c.Mode) {
		errs = append(errs, fmt.Errorf("mode: %q is none of standalone, sentinel, cluster", c.Mode))
	}
	if len(c.Addrs) == 0 || c.Mode == Standalone && len(c.Addrs) > 1 {
		errs = append(errs, errors.New("addrs: one for standalone, at least one for sentinel and cluster"))
	}
	for _, addr := range c.Addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("addrs: %q is not host:port", addr))
		}
	}
	if (c.Mode == Sentinel) != (c.Master != "") {
		errs = append(errs, errors.New("master: the name of the primary, for sentinel only"))
	}
	if c.DB < 0 || c.Mode == Cluster && c.DB != 0 {
		errs = append(errs, errors.New("db: must not be negative, and 0 in a cluster"))
	}
	if c.User != "" && c.Password == "" || c.SentinelUser != "" && c.SentinelPassword == "" {
		errs = append(errs, errors.New("password: a user needs one"))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		errs = append(errs, errors.New("tls: cert and key go together"))
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, errors.New("timeout: must be 1ms to 1m"))
	}
	if c.Pause < 0 || c.Pause > time.Minute {
		errs = append(errs, errors.New("pause: must be 0s to 1m"))
	}
	if c.TTL < time.Millisecond || c.Remember < c.TTL {
		errs = append(errs, errors.New("ttl, remember: must be positive, and remember at least ttl"))
	}
	return errors.Join(errs...)
}

// tls is nil where connections are plain.
func (c *TLSConfig) tls() (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil
	}
	return secure.Client{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName}.Load()
}

// options are the client's. It neither retries, which is for the next renewal to do, nor
// caches, which would take the expiry out of our hands.
func (c *Config) options() (rueidis.ClientOption, error) {
	encrypted, err := c.TLS.tls()
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	return rueidis.ClientOption{
		TLSConfig: encrypted,
		Dialer:    net.Dialer{Timeout: c.Timeout, KeepAlive: time.Second},
		Sentinel: rueidis.SentinelOption{
			MasterSet: c.Master, TLSConfig: encrypted, Dialer: net.Dialer{Timeout: c.Timeout, KeepAlive: time.Second},
			Username: c.SentinelUser, Password: c.SentinelPassword, ClientName: clientName,
		},
		Username: c.User, Password: c.Password, ClientName: clientName,
		InitAddress: slices.Clone(c.Addrs), SelectDB: c.DB,
		ForceSingleClient: c.Mode == Standalone, ShuffleInit: c.Mode != Standalone,
		DisableRetry: true, DisableCache: true,
		// One connection a server carries everything, in order.
		PipelineMultiplex: -1, BlockingPipeline: -1,
		ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize,
		// A server that answers no ping for so long is connected to anew.
		ConnWriteTimeout: max(time.Second, 2*c.Timeout),
	}, nil
}

const (
	clientName = "hongyan"
	bufferSize = 64 << 10 // bytes
)
