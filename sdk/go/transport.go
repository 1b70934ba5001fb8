package hongyan

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/wire"
)

// Frame is one unit of the protocol; docs/protocol.md tells what is in it.
type Frame = wire.Frame

// Conn is one open connection that carries frames with protobuf bodies, in order. Read is
// called by one goroutine, Write by another, Close by any.
type Conn interface {
	// Read waits for at least one frame and appends what there is. Bodies belong to the
	// caller. An error is the end; a *code.Error tells the code the server closed with.
	Read(into []Frame) ([]Frame, error)
	// Write writes the frames, in one piece where the transport can.
	Write(frames []Frame) error
	// Close ends the connection; Read then returns.
	Close(c code.Code, reason string) error
}

// prompt is a Conn whose next request acknowledges: PUSH_ACK must not be gathered.
type prompt interface{ AckAtOnce() bool }

// Dialer opens a connection to an endpoint. It must heed ctx.
type Dialer func(ctx context.Context, endpoint *url.URL) (Conn, error)

const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	// maxBody is the largest body taken from a server, in bytes: the protocol's highest limit.
	maxBody = 1 << 20
)

// dialers are the transports by scheme; secure is for those with TLS, nil = defaults.
func dialers(secure *tls.Config) map[string]Dialer {
	if secure == nil {
		secure = &tls.Config{}
	}
	secure = secure.Clone()
	with := func(dial func(context.Context, *url.URL, *tls.Config) (Conn, error)) Dialer {
		return func(ctx context.Context, endpoint *url.URL) (Conn, error) {
			c, err := dial(ctx, endpoint, secure)
			return c, explained(err)
		}
	}
	return map[string]Dialer{
		"tcp": dialTCP, "tls": with(dialTLS),
		"ws": with(dialWebSocket), "wss": with(dialWebSocket),
		"http": with(dialPoll), "https": with(dialPoll),
	}
}

// explained says what to do about a certificate that is not trusted.
func explained(err error) error {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return fmt.Errorf("%w (an authority of your own belongs into RootCAs of Options.TLS)", err)
	}
	return err
}

// parseEndpoints checks the addresses of a server, best first.
func parseEndpoints(list []string, known map[string]Dialer) ([]*url.URL, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("no endpoint: give at least one, such as tcp://127.0.0.1:7000")
	}
	var parsed []*url.URL
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("endpoint: %w", err)
		}
		if known[u.Scheme] == nil || u.Host == "" {
			schemes := strings.Join(slices.Sorted(maps.Keys(known)), ", ")
			return nil, fmt.Errorf("endpoint %q is not SCHEME://HOST:PORT with a scheme of %s", s, schemes)
		}
		parsed = append(parsed, u)
	}
	return parsed, nil
}
