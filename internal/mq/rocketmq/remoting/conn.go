package remoting

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Keys sign requests where the servers have ACLs. Zero: requests are not signed.
type Keys struct{ Access, Secret string }

// Request is what a server is asked. Fields and Body are not kept.
type Request struct {
	Code   int
	Fields map[string]string
	Body   []byte
}

// Answer to a request.
type Answer struct {
	Code   int
	Fields map[string]string
	Body   []byte
}

// Error is an answer of another code than was wanted.
type Error struct {
	Code   int
	Remark string // of the server, with a stack trace at times
}

func (e *Error) Error() string {
	first, _, _ := strings.Cut(e.Remark, "\n")
	return fmt.Sprintf("answer %d: %s", e.Code, first)
}

// Conn is a connection to a name server or a broker. It asks one thing at a time: it is not for
// use by several goroutines.
type Conn struct {
	conn   net.Conn
	keys   Keys
	opaque int
}

// Dial connects to host:port.
func Dial(ctx context.Context, addr string, keys Keys) (*Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, keys: keys}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Call sends a request and waits for its answer until the deadline of ctx. An answer other than
// OK and the codes of ok is an *Error; after any other error the connection is of no use.
func (c *Conn) Call(ctx context.Context, r *Request, ok ...int) (*Answer, error) {
	deadline, has := ctx.Deadline()
	if !has {
		deadline = time.Time{}
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	c.opaque++
	frame, err := encode(r, c.opaque, c.keys)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(frame); err != nil {
		return nil, err
	}
	for {
		h, body, err := read(c.conn)
		switch {
		case err != nil:
			return nil, fmt.Errorf("answer of %s: %w", c.conn.RemoteAddr(), err)
		case h.Opaque != c.opaque || h.Flag&isAnswer == 0:
			continue // brokers ask things of their own
		case h.Code != OK && !slices.Contains(ok, h.Code):
			return nil, &Error{h.Code, h.Remark}
		}
		return &Answer{h.Code, h.Fields, body}, nil
	}
}

// Call makes one request on a connection of its own.
func Call(ctx context.Context, addr string, keys Keys, r *Request, ok ...int) (*Answer, error) {
	c, err := Dial(ctx, addr, keys)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Call(ctx, r, ok...)
}
