package entry_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"hongyan/entry"
	"hongyan/idl/code"
	"hongyan/idl/im"
)

// P15: a gateway that is asked to stop takes no more connections, tells its clients, serves
// them meanwhile, and closes them one after the other. Seen to fail with a Run that closes
// everything at once, as it was before.
func TestP15StoppingEntryDrainsItsClients(t *testing.T) {
	const delay, clients = time.Second, 20
	s, _, stop := serve(t, func(cfg *entry.Config) { cfg.Gate.DrainDelay = delay })
	all := make([]*client, clients)
	for i := range all {
		all[i] = dial(t, s)
		all[i].login(fmt.Sprint("user", i))
	}
	began := time.Now()
	var stopping sync.WaitGroup
	stopping.Go(stop)
	for _, c := range all {
		var away im.GoAway
		if err := away.Unmarshal(c.mustRead(im.Cmd_GOAWAY).Body); err != nil || away.MaxDelayMs != uint32(delay.Milliseconds()) {
			t.Fatalf("GOAWAY %+v, %v", away, err)
		}
	}
	if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
		conn.Close()
		t.Error("a stopping entry took a connection")
	}
	last := all[clients-1] // closed last
	last.write(last.frame(im.Cmd_SEND, &im.Send{ClientMsgId: "m", Text: "still here"}))
	last.mustRead(im.Cmd_SEND)

	ends := make([]time.Duration, clients)
	var reading sync.WaitGroup
	for i, c := range all {
		reading.Go(func() {
			c.expectEnd(code.CloseShutdown)
			ends[i] = time.Since(began)
		})
	}
	reading.Wait()
	half := 0
	for _, end := range ends {
		if end < delay*6/10 {
			half++
		}
	}
	if half < clients/4 || half > clients*3/4 {
		t.Errorf("%d of %d were closed in the first 6 tenths: %v", half, clients, ends)
	}
	stopping.Wait()
}

// Clients that leave by themselves are not waited for.
func TestDrainEndsWithItsLastClient(t *testing.T) {
	s, _, stop := serve(t, func(cfg *entry.Config) { cfg.Gate.DrainDelay = time.Minute })
	c := dial(t, s)
	c.login("alice")
	began := time.Now()
	var stopping sync.WaitGroup
	stopping.Go(stop)
	c.mustRead(im.Cmd_GOAWAY)
	_ = c.conn.Close()
	stopping.Wait()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// ZZ-18: behind a balancer the client's address arrives, by the PROXY protocol.
func TestZZ18ClientsAddressThroughABalancer(t *testing.T) {
	s, l, _ := serve(t, func(cfg *entry.Config) { cfg.ProxyProtocol = []string{"127.0.0.1"} })
	ip := func(uid string) string {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.ips[uid]
	}
	header := []byte("PROXY TCP4 192.0.2.7 10.0.0.1 5000 7000\r\n")
	t.Run("in one piece with what follows", func(t *testing.T) {
		c := dial(t, s)
		c.write(append(header, c.frame(im.Cmd_AUTH, &im.Auth{Token: "alice/d1"})...))
		c.mustRead(im.Cmd_AUTH)
		if got := ip("alice"); got != "192.0.2.7" {
			t.Errorf("the address is %q", got)
		}
	})
	t.Run("byte by byte", func(t *testing.T) {
		c := dial(t, s)
		for i := range header {
			c.write(header[i : i+1])
			time.Sleep(time.Millisecond)
		}
		c.login("bob")
		if got := ip("bob"); got != "192.0.2.7" {
			t.Errorf("the address is %q", got)
		}
	})
	t.Run("the balancer's own", func(t *testing.T) {
		c := dial(t, s)
		c.write([]byte("PROXY UNKNOWN\r\n"))
		c.login("carol")
		if got := ip("carol"); got != "127.0.0.1" {
			t.Errorf("the address is %q", got)
		}
	})
	t.Run("without a header", func(t *testing.T) {
		c := dial(t, s)
		c.write(c.frame(im.Cmd_AUTH, &im.Auth{Token: "dave/d1"}))
		if f, err := c.read(); !errors.Is(err, io.EOF) {
			t.Errorf("it was answered %+v, %v", f, err)
		}
	})
	t.Run("from elsewhere there is none", func(t *testing.T) {
		other, l, _ := serve(t, func(cfg *entry.Config) { cfg.ProxyProtocol = []string{"192.0.2.0/24"} })
		c := dial(t, other)
		c.login("eve")
		if l.ips["eve"] != "127.0.0.1" {
			t.Errorf("the address is %q", l.ips["eve"])
		}
		c = dial(t, other)
		c.write(header)
		if f := c.mustRead(im.Cmd_ERROR); f.Body == nil {
			t.Error("a header from a stranger was taken")
		}
	})
}
