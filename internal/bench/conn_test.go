package bench

import (
	"testing"
	"time"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// A server that stands still for long answers nothing, and nothing is to be written. Seen red:
// the gateway closed the connections as idle, and the run ended.
func TestConnectionsOfARunStayAlive(t *testing.T) {
	now := time.Now()
	c := &conn{wroteAt: now.Add(-heartbeat)}
	if err := c.alive(now); err != nil {
		t.Fatal(err)
	}
	f, _, err := wire.Decode(c.out, 100)
	if err != nil || f.Cmd != im.Cmd_PING {
		t.Fatalf("%v, %v", f.Cmd, err)
	}
	written := len(c.out)
	if err := c.alive(now); err != nil || len(c.out) != written {
		t.Errorf("with something to write: %v, %d bytes more", err, len(c.out)-written)
	}
	c = &conn{wroteAt: now.Add(-time.Second)}
	if err := c.alive(now); err != nil || len(c.out) > 0 {
		t.Errorf("just written: %v, %d bytes", err, len(c.out))
	}
}
