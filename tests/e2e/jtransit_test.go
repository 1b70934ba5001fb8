package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/server"

	orders "hongyan/examples/orders/service"
	stock "hongyan/examples/stock/service"
	"hongyan/idl/code"
	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

func shop(ln net.Listener) server.Server      { return orders.New(ln, &orders.Shop{}) }
func warehouse(ln net.Listener) server.Server { return stock.New(ln, &stock.Warehouse{}) }

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../examples", path))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const anOrder = `{"id":"o-alice","buyer":"alice","status":"PAID","cents":"12900","items":[{"title":"茶壶","count":1}]}`

// TestZZ11CallReachesAPlatformService: a client's CALL reaches services that know nothing
// of IM, of protobuf and of thrift, in the user's name, and the answer comes back as JSON.
func TestZZ11CallReachesAPlatformService(t *testing.T) {
	shopAt, _ := cluster.ServeExample(t, "127.0.0.1:0", shop)
	stockAt, _ := cluster.ServeExample(t, "127.0.0.1:0", warehouse)
	calls := fmt.Sprintf(`jtransit: {calls: {
  order.get: {idl: %q, service: Orders, method: Get, addresses: [%q]},
  stock.reserve: {idl: %q, service: Inventory, method: Reserve, addresses: [%q]}}}
`, absolute(t, "orders/orders.proto"), shopAt, absolute(t, "stock/stock.thrift"), stockAt)
	cluster.ForEachWith(t, calls, func(t *testing.T, s *cluster.System) {
		for _, transport := range []string{"tcp", "ws", "http"} {
			alice := newDevice(t, s, "alice", transport, transport)
			for call, want := range map[string]string{
				`order.get {"id":"o-alice"}`:     anOrder,
				`stock.reserve {"sku":"teapot"}`: `{"sku":"teapot","count":"2","unit":"PIECE","reserved":{"alice":1}}`,
			} {
				name, data, _ := strings.Cut(call, " ")
				if answer, err := alice.Call(t.Context(), name, []byte(data)); err != nil || string(answer) != want {
					t.Fatalf("%s over %s: %s, %v", call, transport, answer, err)
				}
			}
			for what, c := range map[string]struct {
				name, data string
				want       code.Code
				text       string
			}{
				"another's order": {"order.get", `{"id":"o-bob"}`, code.CallRefused, "not your order"},
				"an exception":    {"stock.reserve", `{"sku":"teapot","count":4}`, code.CallRefused, "only 3 are left"},
				"unknown name":    {"order.list", `{}`, code.Unsupported, ""},
				"bad JSON":        {"order.get", `{"id":`, code.BadRequest, ""},
				"bad thrift":      {"stock.reserve", `{"count":"x"}`, code.BadRequest, ""},
			} {
				if _, err := alice.Call(t.Context(), c.name, []byte(c.data)); code.Of(err) != c.want || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s over %s: %v", what, transport, err)
				}
			}
			_ = alice.Close()
		}
		callsOverHTTP(t, s)
	})
}

// callsOverHTTP asks the same services by POST, with the user's token.
func callsOverHTTP(t *testing.T, s *cluster.System) {
	for _, c := range []struct {
		name, data string
		status     int
		want       string
	}{
		{"order.get", `{"id":"o-alice"}`, 200, anOrder},
		{"stock.look", `{}`, 415, `"name":"unsupported"`},
		{"order.get", `{"id":"o-bob"}`, 422, "not your order"},
		{"order.get", `{"id":`, 400, `"name":"bad_request"`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.HTTP[0]+"/v1/calls/"+c.name, strings.NewReader(c.data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.Token(t, "alice"))
		req.Header.Set("Content-Type", "application/json")
		rsp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rsp.Body)
		_ = rsp.Body.Close()
		if err != nil || rsp.StatusCode != c.status || !strings.Contains(string(got), c.want) {
			t.Errorf("POST %s %s: %s %s, %v; want %d %s", c.name, c.data, rsp.Status, got, err, c.status, c.want)
		}
	}
}

// live writes the file of live values that every process of a system follows.
type live struct {
	path   string
	values map[string]string
}

func (l *live) put(t *testing.T, key, text string) {
	t.Helper()
	l.values[key] = text
	var out strings.Builder
	for k, v := range l.values {
		if v != "" {
			fmt.Fprintf(&out, "%s: %q\n", k, v)
		}
	}
	if err := os.WriteFile(l.path+".new", []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.path+".new", l.path); err != nil {
		t.Fatal(err)
	}
}

// answers waits until a call is answered so: with the text, or with the code.
func answers(t *testing.T, d *device, name, data, text string, want code.Code) {
	t.Helper()
	var answer []byte
	var err error
	cluster.Eventually(t, patience, fmt.Sprintf("%s answers %q, %s", name, text, want.Name()), func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		answer, err = d.Call(ctx, name, []byte(data))
		return code.Of(err) == want && (err != nil || strings.Contains(string(answer), text))
	})
}

// TestZZ11CallsChangeWhileTheSystemRuns: calls and IDLs are put, changed, broken and taken
// away under load, and no call fails; a service that dies is left alone and found again.
func TestZZ11CallsChangeWhileTheSystemRuns(t *testing.T) {
	cluster.ForEmbedded(t, "values: {interval: 50ms}\n", func(t *testing.T, s *cluster.System) { // a cluster has its values in etcd
		shopAt, stopShop := cluster.ServeExample(t, "127.0.0.1:0", shop)
		stockAt, _ := cluster.ServeExample(t, "127.0.0.1:0", warehouse)
		l := &live{filepath.Join(s.Data, "values.yaml"), map[string]string{}}
		alice := newDevice(t, s, "alice", "a1", "tcp")
		answers(t, alice, "order.get", `{}`, "", code.Unsupported)
		idl, thrift := readText(t, absolute(t, "orders/orders.proto")), readText(t, absolute(t, "stock/stock.thrift"))
		l.put(t, "jtransit/idl/shop/orders.proto", idl)
		l.put(t, "jtransit/idl/shop/stock.thrift", thrift)
		l.put(t, "jtransit/idl/shop/places.thrift", readText(t, absolute(t, "stock/places.thrift")))
		l.put(t, "jtransit/calls/stock.look", fmt.Sprintf(`{"idl": "shop/stock.thrift", "service": "Inventory", "method": "Look", "addresses": [%q]}`, stockAt))
		order := `{"idl": "shop/orders.proto", "service": "Orders", "method": "Get", "addresses": [%q], "timeout": "%ds", "breaker": {"min_calls": 5, "open_for": "500ms"}}`
		l.put(t, "jtransit/calls/order.get", fmt.Sprintf(order, shopAt, 2))
		answers(t, alice, "order.get", `{"id":"o-alice"}`, anOrder, code.OK)
		answers(t, alice, "stock.look", `{"sku":"teapot"}`, `"count":"3"`, code.OK)

		stop := underLoad(t, alice, "order.get", `{"id":"o-alice"}`)
		for n := range 5 {
			l.put(t, "jtransit/idl/shop/orders.proto", strings.Replace(idl, "int64 cents", fmt.Sprintf("int64 fen%d", n), 1))
			l.put(t, "jtransit/calls/order.get", fmt.Sprintf(order, shopAt, 3+n))
			answers(t, alice, "order.get", `{"id":"o-alice"}`, fmt.Sprintf(`"fen%d":"12900"`, n), code.OK)
		}
		l.put(t, "jtransit/idl/shop/orders.proto", "message {")
		l.put(t, "jtransit/idl/shop/stock.thrift", "struct {")
		l.put(t, "jtransit/calls/order.get", `{"timeout": "soon"}`)
		time.Sleep(300 * time.Millisecond)
		answers(t, alice, "order.get", `{"id":"o-alice"}`, `"fen4":"12900"`, code.OK)
		answers(t, alice, "stock.look", `{"sku":"teapot"}`, `"count":"3"`, code.OK)
		l.put(t, "jtransit/idl/shop/orders.proto", idl)
		l.put(t, "jtransit/calls/order.get", fmt.Sprintf(order, shopAt, 2))
		answers(t, alice, "order.get", `{"id":"o-alice"}`, anOrder, code.OK)
		stop()

		stopShop()
		cluster.Eventually(t, patience, "the breaker opens", func() bool {
			_, err := alice.Call(t.Context(), "order.get", []byte(`{"id":"o-alice"}`))
			return code.Of(err) == code.Unavailable && strings.Contains(err.Error(), "left alone")
		})
		cluster.ServeExample(t, shopAt, shop)
		answers(t, alice, "order.get", `{"id":"o-alice"}`, anOrder, code.OK)

		l.put(t, "jtransit/calls/order.get", "")
		answers(t, alice, "order.get", `{}`, "", code.Unsupported)
	})
}

// underLoad makes a call all the time; stop ends it and tells what failed.
func underLoad(t *testing.T, d *device, name, data string) (stop func()) {
	var wg sync.WaitGroup
	var done atomic.Bool
	var calls atomic.Int64
	for range 3 {
		wg.Go(func() {
			for ; !done.Load(); calls.Add(1) {
				if answer, err := d.Call(context.Background(), name, []byte(data)); err != nil {
					t.Errorf("under load: %s, %v", answer, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() {
		done.Store(true)
		wg.Wait()
		t.Logf("%d calls under load", calls.Load())
	}
}

// TestZZ11ThePlatformIsAskedBeforeAMessageIsStored: who may talk to whom is the platform's
// word; while it gives none, messages are sent.
func TestZZ11ThePlatformIsAskedBeforeAMessageIsStored(t *testing.T) {
	at, stop := cluster.ServeExample(t, "127.0.0.1:0", shop)
	config := fmt.Sprintf(`logic: {hooks: {before_send: {call: may.talk}}}
jtransit: {calls: {may.talk: {idl: %q, service: Orders, method: MayTalk, addresses: [%q]}}}
`, absolute(t, "orders/orders.proto"), at)
	cluster.ForEmbedded(t, config, func(t *testing.T, s *cluster.System) { // the shop is one for all shapes, and stops in the last
		alice := newDevice(t, s, "alice", "a1", "ws")
		say := func(to string) error {
			_, err := alice.Send(t.Context(), hongyan.Outgoing{To: to, Text: "hello"})
			return err
		}
		if err := say("bob"); err != nil {
			t.Fatalf("to bob: %v", err)
		}
		if err := say("mallory"); code.Of(err) != code.Denied || !strings.Contains(err.Error(), "closed out") {
			t.Fatalf("to mallory: %v", err)
		}
		if s.Shape != "processes" {
			return
		}
		stop()
		if err := say("mallory"); err != nil {
			t.Fatalf("to mallory, while nobody says no: %v", err)
		}
	})
}
