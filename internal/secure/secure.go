// Package secure makes TLS out of the files that a configuration names.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Client is what a client of a server with TLS may be told: PEM files, each may be empty.
type Client struct {
	CA         string // authorities that sign servers; empty = those of the system
	Cert, Key  string // the client's own, where servers ask for one
	ServerName string // in the server's certificate; empty = the host of its address
}

// Load reads the files.
func (c Client) Load() (*tls.Config, error) {
	out := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: no certificate in %s", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
