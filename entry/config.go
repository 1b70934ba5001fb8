package entry

import (
	"errors"
	"fmt"
	"net"

	"hongyan/internal/gate"
)

// Config of a Server.
type Config struct {
	// Listen is the address for clients, host:port; port 0 takes a free one.
	Listen string `yaml:"listen" koanf:"listen"`
	// Plaintext allows unencrypted connections on an address that is not loopback: only
	// behind a balancer that terminates TLS.
	Plaintext bool `yaml:"plaintext" koanf:"plaintext"`
	// ProxyProtocol are the balancers that start each connection with a PROXY header, version 1
	// or 2, which names the client: addresses or networks, such as 10.0.0.0/8. What they send
	// without one is refused; from elsewhere connections come as they are.
	ProxyProtocol []string `yaml:"proxy_protocol" koanf:"proxy_protocol"`
	// MaxConnections at once; more are told to come back later.
	MaxConnections int `yaml:"max_connections" koanf:"max_connections"`
	// Gate is what all gateways have in common.
	Gate gate.Config `yaml:"gate" koanf:"gate"`
}

// DefaultConfig listens on loopback.
func DefaultConfig() Config {
	return Config{
		Listen:         "127.0.0.1:7000",
		MaxConnections: 1_000_000,
		Gate:           gate.DefaultConfig(),
	}
}

// Validate names every field that makes no sense.
func (c *Config) Validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("listen must be host:port: %w", err))
	case !c.Plaintext && !loopback(host):
		errs = append(errs, fmt.Errorf("listen on %s: connections are not encrypted; set plaintext if a balancer in front terminates TLS", c.Listen))
	}
	if _, err := parseNetworks(c.ProxyProtocol); err != nil {
		errs = append(errs, fmt.Errorf("proxy_protocol: %w", err))
	}
	if c.MaxConnections <= 0 {
		errs = append(errs, errors.New("max_connections must be more than 0"))
	}
	if err := c.Gate.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
