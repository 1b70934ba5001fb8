package jtransit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/prometheus/client_golang/prometheus"

	orders "hongyan/examples/orders/gen/orders"
	"hongyan/examples/orders/service"
	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/jtransit"
)

const proto = "../examples/orders/orders.proto"

// shop answers through its function; nil = the example's own.
type shop struct {
	service.Shop
	cancel func(context.Context, *orders.CancelRequest) (*orders.Order, error)
}

func (s *shop) Cancel(ctx context.Context, req *orders.CancelRequest) (*orders.Order, error) {
	if s.cancel != nil {
		return s.cancel(ctx, req)
	}
	return s.Shop.Cancel(ctx, req)
}

// open serves a shop over a real socket until the test ends.
func open(t testing.TB, addr string, s *shop) (at string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	kit := service.New(ln, s)
	done := make(chan error, 1)
	go func() { done <- kit.Run() }()
	t.Cleanup(func() {
		_ = kit.Stop()
		<-done
	})
	return ln.Addr().String()
}

// closed is an address where nobody listens.
func closed(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func get(addrs ...string) jtransit.CallConfig {
	return jtransit.CallConfig{IDL: proto, Service: "shop.orders.Orders", Method: "Get", Addresses: addrs}
}

func cancel(addrs ...string) jtransit.CallConfig {
	c := get(addrs...)
	c.Method = "Cancel"
	return c
}

func start(t testing.TB, reg prometheus.Registerer, calls map[string]jtransit.CallConfig) *jtransit.Jtransit {
	t.Helper()
	cfg := jtransit.DefaultConfig()
	cfg.Calls = calls
	j, err := jtransit.New(cfg, jtransit.Deps{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func ask(t testing.TB, j *jtransit.Jtransit, name, data string) *tier.CallReply {
	t.Helper()
	reply, err := j.Call(t.Context(), &tier.CallRequest{Tenant: "demo", Uid: "alice", Name: name, Data: []byte(data), RequestId: "r-1"})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func wants(t testing.TB, what string, reply *tier.CallReply, c code.Code, text string) {
	t.Helper()
	if got := code.Code(reply.Code); got != c || !strings.Contains(reply.Message+string(reply.Data), text) {
		t.Errorf("%s: %s %q %s, want %s with %q", what, got.Name(), reply.Message, reply.Data, c.Name(), text)
	}
}

// What a client sends as JSON reaches a service that another team wrote from its own
// .proto, with the name of the user, and the answer comes back as JSON (ZZ-11, JT-05).
func TestZZ11JT05AServiceIsCalledByConfiguration(t *testing.T) {
	at := open(t, "127.0.0.1:0", &shop{cancel: func(ctx context.Context, req *orders.CancelRequest) (*orders.Order, error) {
		tenant, _ := metainfo.GetValue(ctx, "HONGYAN_TENANT")
		uid, _ := metainfo.GetValue(ctx, "HONGYAN_UID")
		id, _ := metainfo.GetValue(ctx, "HONGYAN_REQUEST_ID")
		return &orders.Order{Id: strings.Join([]string{tenant, uid, id, req.Reason}, " ")}, nil
	}})
	reg := prometheus.NewRegistry()
	short := get(at)
	short.Service = "Orders"
	j := start(t, reg, map[string]jtransit.CallConfig{"order.get": get(at), "order.cancel": cancel(at), "short": short})
	want := `{"id":"o-alice","buyer":"alice","status":"PAID","cents":"12900","items":[{"title":"茶壶","count":1}]}`
	for _, name := range []string{"order.get", "short"} {
		if reply := ask(t, j, name, `{"id":"o-alice"}`); reply.Code != 0 || string(reply.Data) != want {
			t.Errorf("%s: %+v %s", name, reply, reply.Data)
		}
	}
	wants(t, "caller", ask(t, j, "order.cancel", `{"reason":"too late"}`), code.OK, `"demo alice r-1 too late"`)
	wants(t, "empty body", ask(t, j, "order.cancel", ""), code.OK, `"demo alice r-1 "`)
	wants(t, "refused by the service", ask(t, j, "order.get", `{"id":"o-bob"}`), code.CallRefused, "status 20403: not your order")
	wants(t, "unknown name", ask(t, j, "order.list", `{}`), code.Unsupported, `"order.list" is not configured`)
	want = ":unsupported=1 order.cancel:ok=2 order.get:call_refused=1 order.get:ok=1 short:ok=1"
	if got := counted(t, reg); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// counted are the values of calls_total, as call:code=n.
func counted(t testing.TB, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != "hongyan_jtransit_calls_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			out = append(out, fmt.Sprintf("%s:%s=%v", m.GetLabel()[0].GetValue(), m.GetLabel()[1].GetValue(), m.GetCounter().GetValue()))
		}
	}
	return strings.Join(out, " ")
}

func TestZZ11BadJSONIsRefusedBeforeTheCall(t *testing.T) {
	var ran atomic.Int32
	at := open(t, "127.0.0.1:0", &shop{cancel: func(context.Context, *orders.CancelRequest) (*orders.Order, error) {
		ran.Add(1)
		return &orders.Order{Id: strings.Repeat("x", 200<<10)}, nil
	}})
	j := start(t, nil, map[string]jtransit.CallConfig{"cancel": cancel(at)})
	for data, text := range map[string]string{
		`{"id":`:                         "data: ",
		`[]`:                             "data: ",
		`{"id":5}`:                       "data: ",
		`{"idd":""}`:                     "idd",
		strings.Repeat(`{"id":`, 10_000): "data: ",
	} {
		wants(t, data[:min(len(data), 20)], ask(t, j, "cancel", data), code.BadRequest, text)
	}
	wants(t, "huge", ask(t, j, "cancel", `{"id":"`+strings.Repeat("x", 128<<10)+`"}`), code.TooLarge, "are allowed")
	if ran.Load() != 0 {
		t.Errorf("the service was called %d times", ran.Load())
	}
	wants(t, "huge answer", ask(t, j, "cancel", `{}`), code.TooLarge, "")
}

func TestZZ11JT06TimeoutLimitAndBreaker(t *testing.T) {
	hold := make(chan struct{})
	var healthy atomic.Bool
	at := open(t, "127.0.0.1:0", &shop{cancel: func(ctx context.Context, _ *orders.CancelRequest) (*orders.Order, error) {
		if !healthy.Load() {
			<-hold
		}
		return &orders.Order{Id: "done"}, nil
	}})
	defer close(hold)
	c := cancel(at)
	c.Timeout, c.Concurrency = 150*time.Millisecond, 1
	c.Breaker = jtransit.BreakerConfig{MinCalls: 3, Ratio: 0.6, OpenFor: 300 * time.Millisecond}
	j := start(t, nil, map[string]jtransit.CallConfig{"cancel": c})

	first := make(chan *tier.CallReply, 1)
	begun := time.Now()
	go func() { first <- ask(t, j, "cancel", "") }()
	time.Sleep(50 * time.Millisecond)
	busy := ask(t, j, "cancel", "")
	wants(t, "one too many", busy, code.Overloaded, "too many")
	if busy.RetryAfterMs == 0 {
		t.Error("overloaded does not say when to come back")
	}
	wants(t, "slow", <-first, code.Expired, "in time")
	if took := time.Since(begun); took > 2*time.Second { // 3 s without one of its own
		t.Errorf("the timeout took %v", took)
	}
	// A caller in a hurry says nothing of the service.
	for range 4 {
		reply, err := j.Call(t.Context(), &tier.CallRequest{Tenant: "demo", Uid: "alice", Name: "cancel", TimeoutMs: 5})
		if err != nil {
			t.Fatal(err)
		}
		wants(t, "in a hurry", reply, code.Expired, "")
	}
	wants(t, "slow", ask(t, j, "cancel", ""), code.Expired, "")
	wants(t, "slow", ask(t, j, "cancel", ""), code.Expired, "")
	open := ask(t, j, "cancel", "")
	wants(t, "after three of three", open, code.Unavailable, "left alone")
	if open.RetryAfterMs == 0 || open.RetryAfterMs > 300 {
		t.Errorf("come back after %d ms", open.RetryAfterMs)
	}
	healthy.Store(true)
	time.Sleep(310 * time.Millisecond)
	wants(t, "the probe", ask(t, j, "cancel", ""), code.OK, "done")
	wants(t, "closed again", ask(t, j, "cancel", ""), code.OK, "done")
}

func TestZZ11ServiceDownAndBack(t *testing.T) {
	dead, gone := closed(t), closed(t)
	j := start(t, nil, map[string]jtransit.CallConfig{"get": get(dead)})
	down := ask(t, j, "get", `{"id":"o-alice"}`)
	wants(t, "down", down, code.Unavailable, "cannot be reached")
	if strings.Contains(down.Message, dead) || down.RetryAfterMs == 0 {
		t.Errorf("tells an address, or not when to come back: %+v", down)
	}
	open(t, dead, &shop{})
	wants(t, "back", ask(t, j, "get", `{"id":"o-alice"}`), code.OK, "o-alice")

	// One dead instance of two costs nothing: it has not run the call.
	alive := open(t, "127.0.0.1:0", &shop{})
	two := start(t, nil, map[string]jtransit.CallConfig{"get": get(gone, alive)})
	for range 6 {
		wants(t, "one of two", ask(t, two, "get", `{"id":"o-alice"}`), code.OK, "o-alice")
	}
}

// A crash of the service is told without its text, and counts for the breaker.
func TestZZ11ACrashOfTheService(t *testing.T) {
	at := open(t, "127.0.0.1:0", &shop{cancel: func(_ context.Context, req *orders.CancelRequest) (*orders.Order, error) {
		if req.Reason == "panic" {
			panic("secret")
		}
		return nil, errors.New("secret")
	}})
	j := start(t, nil, map[string]jtransit.CallConfig{"cancel": cancel(at)})
	for _, reason := range []string{"panic", "error"} {
		reply := ask(t, j, "cancel", fmt.Sprintf(`{"reason":%q}`, reason))
		wants(t, reason, reply, code.Internal, "the service failed")
		if strings.Contains(reply.Message, "secret") {
			t.Errorf("%s: %s", reason, reply.Message)
		}
	}
}

func TestZZ11MistakesAreRefusedAtStart(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.proto")
	if err := os.WriteFile(broken, []byte("syntax = \"proto3\";\nmessage {"), 0o600); err != nil {
		t.Fatal(err)
	}
	streams := filepath.Join(dir, "streams.proto")
	text := "syntax = \"proto3\"; package p; message M {} service S { rpc Watch(M) returns (stream M); }"
	if err := os.WriteFile(streams, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*jtransit.CallConfig)) jtransit.CallConfig {
		c := get("127.0.0.1:1")
		change(&c)
		return c
	}
	for want, c := range map[string]jtransit.CallConfig{
		"no address":                with(func(c *jtransit.CallConfig) { c.Addresses = nil }),
		"is not host:port":          with(func(c *jtransit.CallConfig) { c.Addresses = []string{"shop"} }),
		"no such file":              with(func(c *jtransit.CallConfig) { c.IDL = filepath.Join(dir, "none.proto") }),
		"neither a .proto nor":      with(func(c *jtransit.CallConfig) { c.IDL = "orders.json" }),
		"broken.proto":              with(func(c *jtransit.CallConfig) { c.IDL = broken }),
		"no service Order in":       with(func(c *jtransit.CallConfig) { c.Service = "Order" }),
		"no method List":            with(func(c *jtransit.CallConfig) { c.Method = "List" }),
		"is a stream":               with(func(c *jtransit.CallConfig) { c.IDL, c.Service, c.Method = streams, "S", "Watch" }),
		"retries need idempotent":   with(func(c *jtransit.CallConfig) { c.Retries = 1 }),
		"breaker.ratio must be":     with(func(c *jtransit.CallConfig) { c.Breaker.Ratio = 1.5 }),
		"timeout must be at least ": with(func(c *jtransit.CallConfig) { c.Timeout = -1 }),
	} {
		cfg := jtransit.DefaultConfig()
		cfg.Calls = map[string]jtransit.CallConfig{"fine": get("127.0.0.1:1"), "order.get": c}
		_, err := jtransit.New(cfg, jtransit.Deps{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `call "order.get"`) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", want, err)
		}
	}
	names := map[string]jtransit.CallConfig{"with space": get("127.0.0.1:1")}
	if _, err := jtransit.New(jtransit.Config{Calls: names, MaxBody: 1}, jtransit.Deps{}); err == nil {
		t.Error("a name with a space was taken")
	}
}
