package netloop

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
)

func TestStoppedListenerKeepsItsConnections(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		b, err := c.Reader().Next(c.Reader().Len())
		if err != nil {
			return err
		}
		_, err = c.Write(append([]byte(nil), b...))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- loop.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo := func() {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	if again, err := net.Dial("tcp", l.Addr().String()); err == nil {
		again.Close()
		t.Error("a stopped listener took a connection")
	}
	echo()
	<-served
	echo()
	end, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := loop.Shutdown(end); err != nil {
		t.Error(err)
	}
}
