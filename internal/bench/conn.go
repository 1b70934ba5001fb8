package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// A conforming client acknowledges at most so often.
const (
	ackEvery = 200 * time.Millisecond
	ackItems = 50
)

// Signer makes tokens for the users of the run.
type Signer interface {
	Sign(token.Claims) (string, error)
}

// conn is one authenticated connection. Its mutex guards everything but the reading side of
// the link, which belongs to the goroutine in serve.
type conn struct {
	link link
	uid  string

	mu      sync.Mutex
	out     []byte // frames to be written by the next flush
	failed  error
	wroteAt time.Time
	follow
}

// loginFor is how long a login that is refused as retryable is tried again.
const loginFor = time.Minute

// login is open, tried again as clients do: a server that dies answers logins as unknown, and
// another one takes them.
func login(ctx context.Context, d dialer, cfg *Config, uid string, readBuffer int) (*conn, *im.SyncRsp, error) {
	begun := time.Now()
	for try := 0; ; try++ {
		c, sync, err := open(ctx, d, cfg, uid, readBuffer)
		refused, ok := errors.AsType[*code.Error](err)
		if err == nil || !ok || !refused.Code.Retryable() || time.Since(begun) > loginFor {
			return c, sync, err
		}
		jitter := rand.N(min(500*time.Millisecond<<min(try, 6), 20*time.Second))
		if pause(ctx, refused.RetryAfter+jitter) {
			return nil, nil, err
		}
	}
}

// open connects and logs in. sync is what AUTH answered.
func open(ctx context.Context, d dialer, cfg *Config, uid string, readBuffer int) (*conn, *im.SyncRsp, error) {
	signed, err := cfg.Keys.Sign(token.Claims{Tenant: cfg.Tenant, UID: uid, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return nil, nil, fmt.Errorf("token of %s: %w", uid, err)
	}
	l, err := d.dial(ctx, readBuffer)
	if err != nil {
		return nil, nil, fmt.Errorf("connect %s: %w", uid, err)
	}
	c := &conn{link: l, uid: uid}
	if p, ok := l.(*pollLink); ok {
		p.position = c.position
	}
	sync, err := c.auth(signed)
	if err != nil {
		_ = l.close()
		return nil, nil, fmt.Errorf("log in %s: %w", uid, err)
	}
	return c, sync, nil
}

// abort closes so that the port can be used again at once: a storm of logins would run out
// of them while they linger.
func (c *conn) abort() {
	if l, ok := c.link.(interface{ socket() net.Conn }); ok {
		nc := l.socket()
		if secure, ok := nc.(*tls.Conn); ok {
			nc = secure.NetConn()
		}
		if tcp, ok := nc.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	_ = c.link.close()
}

// position is what has been applied.
func (c *conn) position() (epoch, cursor uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch, c.cursor
}

func (c *conn) auth(signed string) (*im.SyncRsp, error) {
	counter := uint64(time.Now().UnixNano()) // rises with every connection of the device
	if err := c.queue(im.Cmd_AUTH, 1, 0, &im.Auth{Token: signed, Device: "bench-" + c.uid, Platform: "cli", ConnectionCounter: counter, SyncLimit: 500}); err != nil {
		return nil, err
	}
	if err := c.flush(); err != nil {
		return nil, err
	}
	for {
		f, err := c.link.read()
		if err != nil {
			return nil, err
		}
		if f.Flags&wire.FlagResponse == 0 && f.Cmd != im.Cmd_ERROR {
			continue
		}
		if f.Status != code.OK || f.Cmd == im.Cmd_ERROR {
			return nil, errorOf(f)
		}
		var ack im.AuthAck
		if err := ack.Unmarshal(f.Body); err != nil {
			return nil, err
		}
		if ack.Sync == nil {
			return nil, fmt.Errorf("the answer to AUTH carries no sync")
		}
		c.epoch, c.cursor, c.told = ack.Sync.Epoch, ack.Sync.NextCursor, ack.Sync.NextCursor
		return ack.Sync, nil
	}
}

func errorOf(f wire.Frame) *code.Error {
	var e im.Error
	if err := e.Unmarshal(f.Body); err != nil {
		return code.Errorf(f.Status, "unreadable error body")
	}
	out := code.Errorf(code.Code(e.Code), "%s", e.Message)
	out.RetryAfter = time.Duration(e.RetryAfterMs) * time.Millisecond
	return out
}

type body interface {
	Marshal(in []byte) ([]byte, error)
}

// queue adds a frame to the next flush.
func (c *conn) queue(cmd im.Cmd, seq uint32, flags wire.Flags, b body) error {
	encoded, err := b.Marshal(nil)
	if err != nil {
		return err
	}
	c.out = wire.Append(c.out, &wire.Frame{Cmd: cmd, Seq: seq, Flags: flags, Body: encoded})
	return nil
}

// flush writes what was queued, with one write.
func (c *conn) flush() error {
	if len(c.out) == 0 || c.failed != nil {
		return c.failed
	}
	err := c.link.write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.failed = err
		return err
	}
	c.wroteAt = time.Now()
	return nil
}

// alive queues a PING where nothing has been written for a heartbeat: a server that stands still
// must not find its clients gone.
func (c *conn) alive(now time.Time) error {
	if len(c.out) > 0 || now.Sub(c.wroteAt) < heartbeat {
		return nil
	}
	return c.queue(im.Cmd_PING, 1, 0, &im.Ping{})
}

// acknowledge queues a PUSH_ACK if one is due.
func (c *conn) acknowledge(now time.Time) {
	if c.cursor == c.told || (c.items < ackItems && now.Sub(c.toldAt) < ackEvery) {
		return
	}
	var b [24]byte
	body := protowire.AppendTag(b[:0], 1, protowire.VarintType)
	body = protowire.AppendVarint(body, c.epoch)
	body = protowire.AppendTag(body, 2, protowire.VarintType)
	body = protowire.AppendVarint(body, c.cursor)
	c.out = wire.Append(c.out, &wire.Frame{Cmd: im.Cmd_PUSH_ACK, Flags: wire.FlagOneWay, Body: body})
	c.told, c.items, c.toldAt = c.cursor, 0, now
}

// serve reads frames until the connection ends, and hands each to handle under the lock.
// What handling queued is written when the socket has nothing more to read.
func (c *conn) serve(handle func(f wire.Frame, now time.Time) error) error {
	for {
		f, err := c.link.read()
		if err != nil {
			return err
		}
		now := time.Now()
		c.mu.Lock()
		err = handle(f, now)
		if err == nil && !c.link.buffered() {
			c.acknowledge(now)
			err = c.flush()
		}
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// appendID writes a version 7 UUID for a pair's message, in its text form.
func appendID(dst []byte, run uint64, pair uint32, number uint64) []byte {
	var u [16]byte
	binary.BigEndian.PutUint64(u[0:], run<<16|uint64(pair&0xffff))
	binary.BigEndian.PutUint64(u[8:], number)
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	const hex = "0123456789abcdef"
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hex[b>>4], hex[b&15])
	}
	return dst
}
