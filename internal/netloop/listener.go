package netloop

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/cloudwego/netpoll"
)

// Listener can stop taking connections while those it took live on. Netpoll's own closes
// both together.
type Listener struct {
	netpoll.Listener
	tcp     *net.TCPListener
	stopped atomic.Bool
}

// Listen takes a TCP address.
func Listen(addr string) (*Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	converted, err := netpoll.ConvertListener(l)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &Listener{Listener: converted, tcp: l.(*net.TCPListener)}, nil
}

// Accept is called by the event loop when somebody has connected, or for a last time when
// there will be nobody any more.
func (l *Listener) Accept() (net.Conn, error) {
	if l.stopped.Load() {
		return nil, nil // as if it would block
	}
	return l.Listener.Accept()
}

// Stop refuses connections from now on: a balancer sees the port closed, and asks another
// server. The event loop's Serve then ends with an error; what it serves is not touched.
func (l *Listener) Stop() error {
	l.stopped.Store(true)
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("stop listening: %w", err)
	}
	var failed error
	// It works on the socket, which netpoll shares, where a close is of one descriptor only.
	if err := raw.Control(func(fd uintptr) { failed = syscall.Shutdown(int(fd), syscall.SHUT_RD) }); err != nil {
		return fmt.Errorf("stop listening: %w", err)
	}
	if failed != nil {
		return fmt.Errorf("stop listening: %w", failed)
	}
	return nil
}
