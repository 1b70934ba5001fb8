package e2e

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"hongyan/examples/orders/service"
	"hongyan/idl/code"
	"hongyan/tests/e2e/cluster"
)

// TestZZ11CallReachesAPlatformService: a client's CALL reaches a service that knows nothing
// of IM, in the user's name, and the answer comes back as JSON.
func TestZZ11CallReachesAPlatformService(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shop := service.New(ln, &service.Shop{})
	done := make(chan error, 1)
	go func() { done <- shop.Run() }()
	t.Cleanup(func() {
		_ = shop.Stop()
		<-done
	})
	idl, err := filepath.Abs("../../examples/orders/orders.proto")
	if err != nil {
		t.Fatal(err)
	}
	calls := `jtransit: {calls: {order.get: {idl: ` + idl + `, service: Orders, method: Get, addresses: ["` + ln.Addr().String() + `"]}}}` + "\n"
	if _, err := os.Stat(idl); err != nil {
		t.Fatal(err)
	}
	cluster.ForEachWith(t, calls, func(t *testing.T, s *cluster.System) {
		for _, transport := range []string{"tcp", "ws", "http"} {
			alice := newDevice(t, s, "alice", transport, transport)
			answer, err := alice.Call(t.Context(), "order.get", []byte(`{"id":"o-alice"}`))
			want := `{"id":"o-alice","buyer":"alice","status":"PAID","cents":"12900","items":[{"title":"茶壶","count":1}]}`
			if err != nil || string(answer) != want {
				t.Fatalf("%s: %s, %v", transport, answer, err)
			}
			for name, c := range map[string]struct {
				name, data string
				want       code.Code
			}{
				"another's order": {"order.get", `{"id":"o-bob"}`, code.CallRefused},
				"unknown name":    {"order.list", `{}`, code.Unsupported},
				"bad JSON":        {"order.get", `{"id":`, code.BadRequest},
			} {
				if _, err := alice.Call(t.Context(), c.name, []byte(c.data)); code.Of(err) != c.want {
					t.Errorf("%s over %s: %v", name, transport, err)
				}
			}
			_ = alice.Close()
		}
	})
}
