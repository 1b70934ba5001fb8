package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"hongyan/internal/secure"
)

// Config of a Center.
type Config struct {
	// Endpoints of etcd, as URLs; empty = no etcd.
	Endpoints []string `koanf:"endpoints"`
	// Prefix of all keys, with slashes at both ends.
	Prefix string `koanf:"prefix"`
	// ServicesPrefix is where services of the platform are found, and imui is announced: the
	// one that Kitex's stock etcd registry uses.
	ServicesPrefix string `koanf:"services_prefix"`
	// Username and Password, where etcd asks for them.
	Username string `koanf:"username"`
	Password string `koanf:"password" secret:"true"`
	// TLS for https endpoints.
	TLS TLSConfig `koanf:"tls"`
	// Lease is how long an instance that has died stays listed. It is also how long instances
	// are kept after etcd was away, for all to come back.
	Lease time.Duration `koanf:"lease"`
	// Timeout of one request to etcd.
	Timeout time.Duration `koanf:"timeout"`
	// Snapshot is the file that keeps what was last seen in etcd: instances and their slots,
	// live values, the map of buckets, services. One process, one file; empty = TIER.control.json
	// in data. It is written 0.2 s after each change, and read once, at the start: it counts only
	// until etcd answers, which replaces it. Without one, etcd must be there at the start. A
	// stale one is safe: instances that are gone cost a failed call, new ones are not called,
	// old settings apply, and what is written by an old map is refused by the database
	// (unavailable) until etcd is back. It may be deleted while etcd answers.
	Snapshot string `koanf:"snapshot"`
}

// TLSConfig names files in PEM form.
type TLSConfig struct {
	// CA that signed etcd's certificate; empty = those the system trusts.
	CA string `koanf:"ca"`
	// Cert and Key of this client, where etcd asks for them.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// ServerName in etcd's certificate, where it is not the host of the endpoint.
	ServerName string `koanf:"server_name"`
}

// DefaultConfig names no endpoints.
func DefaultConfig() Config {
	return Config{
		Prefix:         "/hongyan/",
		ServicesPrefix: "kitex/registry-etcd",
		Lease:          10 * time.Second,
		Timeout:        3 * time.Second,
	}
}

// Validate tells what is wrong.
func (c *Config) Validate() error {
	var errs []error
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("endpoints: %q is no URL like http://10.0.0.1:2379", e))
		}
	}
	if len(c.Prefix) < 3 || !strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") {
		errs = append(errs, fmt.Errorf("prefix %q: want slashes at both ends, like /hongyan/", c.Prefix))
	}
	if c.ServicesPrefix == "" || strings.HasSuffix(c.ServicesPrefix, "/") {
		errs = append(errs, fmt.Errorf("services_prefix %q is empty or ends with a slash", c.ServicesPrefix))
	}
	if c.Lease < 2*time.Second || c.Lease > 10*time.Minute {
		errs = append(errs, fmt.Errorf("lease %s is not within 2s..10m", c.Lease))
	}
	if c.Timeout <= 0 {
		errs = append(errs, errors.New("timeout must be more than 0"))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		errs = append(errs, errors.New("tls: cert and key go together"))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("username and password go together"))
	}
	return errors.Join(errs...)
}

// Deps of a Center; all may be left out.
type Deps struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// seconds of the lease, as etcd counts them.
func (c *Config) seconds() int64 { return int64((c.Lease + time.Second - 1) / time.Second) }

// beatEvery is the time between two looks at whether etcd is there.
func (c *Config) beatEvery() time.Duration { return min(c.Lease/5, 2*time.Second) }

// dial makes a client. It waits for etcd only where there is a password to present.
func (c *Config) dial() (*clientv3.Client, error) {
	security, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   c.Endpoints,
		DialTimeout: c.Timeout,
		// A server that is stopped but whose host still acknowledges is given up soon.
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Username:             c.Username,
		Password:             c.Password,
		TLS:                  security,
		Logger:               zap.NewNop(), // we tell of outages ourselves, once
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// The default grows to two minutes: after a long outage nobody would be back for that long.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: c.Timeout,
		})},
	})
}

func (c *TLSConfig) load() (*tls.Config, error) {
	if *c == (TLSConfig{}) {
		return nil, nil // plain for http, the system's trust for https
	}
	return secure.Client(*c).Load()
}
