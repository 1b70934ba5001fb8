package cluster

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/server"
)

// started has a token for each service that Kitex has started in this process.
var started = make(chan struct{}, 16)

func init() { server.RegisterStartHook(func() { started <- struct{}{} }) }

// ServeExample runs a service of the platform at addr until the test ends, or until stop; port 0
// is a free one.
func ServeExample(t testing.TB, addr string, service func(net.Listener) server.Server) (at string, stop func()) {
	t.Helper()
	var ln net.Listener
	Eventually(t, time.Minute, "the port of a service", func() bool {
		var err error
		ln, err = net.Listen("tcp", addr)
		return err == nil
	})
	svc := service(ln)
	done := make(chan error, 1)
	go func() { done <- svc.Run() }()
	select {
	case <-started: // a Stop before that is lost, and Run does not return
	case err := <-done:
		t.Fatalf("service at %s: %v", addr, err)
	}
	stop = sync.OnceFunc(func() {
		_ = svc.Stop()
		<-done
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}
