package jtransit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	orders "hongyan/examples/orders/gen/orders"
	stock "hongyan/examples/stock/service"
	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/jtransit"
)

// center is a control centre of this process, with what was reported to it.
type center struct {
	*local.Values
	*local.Services
	mu      sync.Mutex
	reports map[string]control.Report
}

func newCenter(t testing.TB) *center {
	c := &center{Values: local.NewValues(), Services: local.NewServices(), reports: map[string]control.Report{}}
	t.Cleanup(func() { _ = c.Values.Close(); _ = c.Services.Close() })
	return c
}

func (c *center) Report(r control.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports[r.Key] = r
}

func (c *center) Reports(context.Context, string) ([]control.Report, error) {
	return nil, errors.New("not asked for")
}

func (c *center) reported(key string) control.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reports[key]
}

// put sets a value; nil removes it.
func (c *center) put(t testing.TB, key string, value any) control.Value {
	t.Helper()
	data, isText := value.([]byte)
	if !isText && value != nil {
		var err error
		if data, err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	v, err := c.PutValue(t.Context(), key, data, control.AnyRevision)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// run starts a Jtransit that follows the centre, until the test ends.
func run(t testing.TB, c *center, cfg jtransit.Config) *jtransit.Jtransit {
	t.Helper()
	cfg.Poll = 20 * time.Millisecond
	deps := jtransit.Deps{Addr: "here"}
	if c != nil {
		deps.Values, deps.Services, deps.Reports = c.Values, c.Services, c
	}
	j, err := jtransit.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return j
}

// until asks until the answer has the code and the text.
func until(t testing.TB, j *jtransit.Jtransit, name, data string, c code.Code, text string) *tier.CallReply {
	t.Helper()
	var reply *tier.CallReply
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		reply = ask(t, j, name, data)
		if code.Code(reply.Code) == c && strings.Contains(reply.Message+string(reply.Data), text) {
			return reply
		}
	}
	t.Fatalf("%s: still %s %q %s, want %s with %q", name, code.Code(reply.Code).Name(), reply.Message, reply.Data, c.Name(), text)
	return nil
}

func statusOf(j *jtransit.Jtransit, name string) jtransit.CallStatus {
	for _, s := range j.Status() {
		if s.Name == name {
			return s
		}
	}
	return jtransit.CallStatus{}
}

// openStock serves the example's warehouse until the test ends, or until stop.
func openStock(t testing.TB, addr string) (at string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	kit := stock.New(ln, &stock.Warehouse{})
	done := make(chan error, 1)
	go func() { done <- kit.Run() }()
	stop = sync.OnceFunc(func() {
		_ = kit.Stop()
		<-done
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func textOf(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func look(addrs ...string) map[string]any {
	return map[string]any{"idl": "../examples/stock/stock.thrift", "service": "Inventory", "method": "Look", "addresses": addrs}
}

// A thrift service that another team wrote: structs, defaults, exceptions, statuses,
// several arguments, nothing at all.
func TestZZ11JT05AThriftServiceIsCalledByConfiguration(t *testing.T) {
	at, _ := openStock(t, "127.0.0.1:0")
	calls := map[string]jtransit.CallConfig{}
	for _, m := range []string{"Look", "Reserve", "Total", "Ping"} {
		calls[m] = jtransit.CallConfig{IDL: "../examples/stock/stock.thrift", Service: "Inventory", Method: m, Addresses: []string{at}}
	}
	j := start(t, nil, calls)
	for _, c := range []struct {
		name, data string
		code       code.Code
		text       string
	}{
		{"Look", `{"sku":"teapot"}`, code.OK, `{"sku":"teapot","count":"3","unit":"PIECE"}`},
		{"Look", `{"sku":"teapot","places":true}`, code.OK, `"places":[{"warehouse":"north","shelf":"A3"},{"warehouse":"south"}]`},
		{"Look", `{"sku":"cup"}`, code.CallRefused, `status 20404: no item "cup"`},
		{"Look", `{}`, code.BadRequest, `data: field "sku" is missing`},
		{"Look", `{"sku":"x","color":1}`, code.BadRequest, `data: unknown field "color"`},
		{"Reserve", `{"sku":"teapot"}`, code.OK, `"count":"2","unit":"PIECE","reserved":{"alice":1}`},
		{"Reserve", `{"sku":"teapot","count":9}`, code.CallRefused, "OutOfStock: only 3 are left"},
		{"Total", `{"sku":"teapot","unit":"PIECE"}`, code.OK, `"3"`},
		{"Ping", ``, code.OK, `{}`},
	} {
		wants(t, c.name+c.data, ask(t, j, c.name, c.data), c.code, c.text)
	}
}

// A call comes, changes and goes while the process runs; what is wrong with it is refused
// and shown, and what was good stays.
func TestZZ11ACallChangesWhileItRuns(t *testing.T) {
	at, _ := openStock(t, "127.0.0.1:0")
	c := newCenter(t)
	j := run(t, c, jtransit.DefaultConfig())
	until(t, j, "stock", `{"sku":"teapot"}`, code.Unsupported, "not configured")
	const key = "jtransit/calls/stock"
	first := c.put(t, key, look(at))
	until(t, j, "stock", `{"sku":"teapot"}`, code.OK, `"count":"3"`)
	if s := statusOf(j, "stock"); s.InForce != first.Revision || s.Source != "live" {
		t.Errorf("%+v", s)
	}

	change := func(k string, v any) map[string]any {
		m := look(at)
		m[k] = v
		return m
	}
	for _, bad := range []struct {
		value any
		want  string
	}{
		{change("method", "Find"), "no method Find"},
		{change("service", "Shop"), "no service Shop"},
		{change("timeout", "-1s"), "timeout must be"},
		{change("timeout", 5), "needs a unit"},
		{change("idl", "none.thrift"), "none.thrift"},
		{change("tiemout", "1s"), "unknown key tiemout"},
		{change("addresses", []string{"nowhere"}), "not host:port"},
		{change("retries", 3), "retries need idempotent"},
		{[]byte("{"), "YAML"},
	} {
		put := c.put(t, key, bad.value)
		waitFor(t, bad.want, func() bool { s := statusOf(j, "stock"); return s.Err != nil && s.Revision == put.Revision })
		s := statusOf(j, "stock")
		if !strings.Contains(s.Err.Error(), bad.want) || s.InForce != first.Revision || s.Missing {
			t.Errorf("%s: %+v", bad.want, s)
		}
		r := c.reported(key)
		if r.Err == "" || r.Revision != put.Revision || r.InForce != first.Revision || r.Tier != "jtransit" {
			t.Errorf("%s: reported %+v", bad.want, r)
		}
		wants(t, bad.want, ask(t, j, "stock", `{"sku":"teapot"}`), code.OK, `"count":"3"`)
	}
	next := c.put(t, key, change("method", "Reserve"))
	until(t, j, "stock", `{"sku":"teapot"}`, code.OK, `"reserved":{"alice":1}`)
	if s := statusOf(j, "stock"); s.Err != nil || s.InForce != next.Revision {
		t.Errorf("%+v", s)
	}
	c.put(t, key, nil)
	until(t, j, "stock", `{"sku":"teapot"}`, code.Unsupported, "not configured")
	if s := j.Status(); len(s) != 0 {
		t.Errorf("still there: %+v", s)
	}

	// What was never good is not answered, and says so.
	c.put(t, key, change("method", "Find"))
	until(t, j, "stock", "{}", code.Unavailable, "configured wrongly")
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// The text of an IDL is a value too; one that does not compile changes nothing.
func TestZZ11AnIDLChangesWhileItRuns(t *testing.T) {
	at, _ := openStock(t, "127.0.0.1:0")
	c := newCenter(t)
	good := textOf(t, "../examples/stock/stock.thrift")
	c.put(t, "jtransit/idl/shop/stock.thrift", good)
	c.put(t, "jtransit/idl/shop/places.thrift", textOf(t, "../examples/stock/places.thrift"))
	value := look(at)
	value["idl"] = "shop/stock.thrift" // no such file: only a value
	c.put(t, "jtransit/calls/stock", value)
	j := run(t, c, jtransit.DefaultConfig())
	until(t, j, "stock", `{"sku":"teapot"}`, code.OK, `"unit":"PIECE"`)

	c.put(t, "jtransit/idl/shop/stock.thrift", []byte("struct {"))
	waitFor(t, "the mistake", func() bool { return statusOf(j, "stock").Err != nil })
	wants(t, "bad IDL", ask(t, j, "stock", `{"sku":"teapot"}`), code.OK, `"unit":"PIECE"`)
	if r := c.reported("jtransit/idl/shop/stock.thrift"); !strings.Contains(r.Err, "parse error") || r.InForce == r.Revision {
		t.Errorf("reported %+v", r)
	}
	// The same field under another name: the old one is unknown now.
	c.put(t, "jtransit/idl/shop/stock.thrift", []byte(strings.Replace(string(good), "required string sku\n  2: i64 count\n", "required string sku\n  2: i64 pieces\n", 1)))
	until(t, j, "stock", `{"sku":"teapot"}`, code.OK, `"pieces":"3"`)
	if r := c.reported("jtransit/idl/shop/stock.thrift"); r.Err != "" || r.InForce != r.Revision {
		t.Errorf("reported %+v", r)
	}
	// What it includes counts as well.
	c.put(t, "jtransit/idl/shop/places.thrift", []byte(strings.Replace(string(textOf(t, "../examples/stock/places.thrift")), "PIECE", "STUECK", 1)))
	waitFor(t, "a default that is gone", func() bool { return statusOf(j, "stock").Err != nil })
	wants(t, "bad include", ask(t, j, "stock", `{"sku":"teapot"}`), code.OK, `"unit":"PIECE"`)
}

// Without a control centre, files that change are noticed: IDLs, and those with calls.
func TestZZ11FilesThatChangeAreNoticed(t *testing.T) {
	at := open(t, "127.0.0.1:0", &shop{})
	dir := t.TempDir()
	idl, more := filepath.Join(dir, "orders.proto"), filepath.Join(dir, "calls.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := string(textOf(t, proto))
	write(idl, text)
	write(more, "calls: {}")
	cfg := jtransit.DefaultConfig()
	cfg.CallsFile = more
	cfg.Calls = map[string]jtransit.CallConfig{"get": {IDL: idl, Service: "Orders", Method: "Get", Addresses: []string{at}}}
	j := run(t, nil, cfg)
	wants(t, "first", ask(t, j, "get", `{"id":"o-alice"}`), code.OK, `"cents":"12900"`)
	write(idl, strings.Replace(text, "int64 cents = 4", "int64 fen = 4", 1))
	until(t, j, "get", `{"id":"o-alice"}`, code.OK, `"fen":"12900"`)
	write(idl, "syntax")
	waitFor(t, "the mistake", func() bool { return statusOf(j, "get").Err != nil })
	wants(t, "bad file", ask(t, j, "get", `{"id":"o-alice"}`), code.OK, `"fen":"12900"`)
	write(idl, text)
	until(t, j, "get", `{"id":"o-alice"}`, code.OK, `"cents":"12900"`)

	call := fmt.Sprintf("calls:\n  more: {idl: %q, service: Orders, method: Get, addresses: [%q]}\n", idl, at)
	write(more, call)
	until(t, j, "more", `{"id":"o-alice"}`, code.OK, `"cents"`)
	write(more, "calls: [")
	waitFor(t, "the mistake", func() bool { return statusOf(j, "calls_file").Err != nil })
	wants(t, "bad file of calls", ask(t, j, "more", `{"id":"o-alice"}`), code.OK, `"cents"`)
	write(more, "calls: {}")
	until(t, j, "more", `{}`, code.Unsupported, "")
}

// A service is found by its name, wherever it is registered, and left when it is not.
func TestZZ11AServiceIsDiscovered(t *testing.T) {
	c := newCenter(t)
	cfg := jtransit.DefaultConfig()
	cfg.Calls = map[string]jtransit.CallConfig{
		"look": {IDL: "../examples/stock/stock.thrift", Service: "Inventory", Method: "Look", Discover: "warehouse.stock"},
	}
	j := run(t, c, cfg)
	until(t, j, "look", `{"sku":"teapot"}`, code.Unavailable, "cannot be reached")
	first, stopFirst := openStock(t, "127.0.0.1:0")
	second, _ := openStock(t, "127.0.0.1:0")
	announce := func(addr string) context.CancelFunc {
		ctx, cancel := context.WithCancel(t.Context())
		if err := c.Announce(ctx, "warehouse.stock", control.Endpoint{Addr: addr, Weight: 3}); err != nil {
			t.Fatal(err)
		}
		return cancel
	}
	leave := announce(first)
	until(t, j, "look", `{"sku":"teapot"}`, code.OK, "teapot")
	defer announce(second)()
	leave()
	stopFirst()
	until(t, j, "look", `{"sku":"teapot"}`, code.OK, "teapot")
	for range 20 {
		wants(t, "moved", ask(t, j, "look", `{"sku":"teapot"}`), code.OK, "teapot")
	}

	if _, err := jtransit.New(cfg, jtransit.Deps{}); err == nil || !strings.Contains(err.Error(), "needs a control centre") {
		t.Errorf("discover without a control centre: %v", err)
	}
}

// What was seen of a service holds when only the way of calling it changes, and not when
// another is called.
func TestZZ11JT06TheBreakerOutlivesASwap(t *testing.T) {
	dead := closed(t)
	c := newCenter(t)
	j := run(t, c, jtransit.DefaultConfig())
	value := look(dead)
	value["breaker"] = map[string]any{"min_calls": 3, "open_for": "1m"}
	c.put(t, "jtransit/calls/stock", value)
	until(t, j, "stock", `{"sku":"teapot"}`, code.Unavailable, "cannot be reached")
	until(t, j, "stock", `{"sku":"teapot"}`, code.Unavailable, "left alone")
	value["timeout"] = "1s"
	put := c.put(t, "jtransit/calls/stock", value)
	waitFor(t, "the swap", func() bool { return statusOf(j, "stock").InForce == put.Revision })
	wants(t, "after a new timeout", ask(t, j, "stock", `{"sku":"teapot"}`), code.Unavailable, "left alone")
	at, _ := openStock(t, "127.0.0.1:0")
	value["addresses"] = []string{at}
	c.put(t, "jtransit/calls/stock", value)
	until(t, j, "stock", `{"sku":"teapot"}`, code.OK, "teapot")
}

// Under load, new configurations, IDLs and addresses fail no call; a call that is under way
// finishes with what it began with; and nothing is left of 200 swaps.
func TestZZ11SwapsUnderLoadFailNoCallAndLeaveNothing(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	at := open(t, "127.0.0.1:0", &shop{cancel: func(_ context.Context, req *orders.CancelRequest) (*orders.Order, error) {
		if req.Reason == "hold" {
			close(held)
			<-hold
		}
		return &orders.Order{Id: "done", Cents: 5}, nil
	}})
	second := open(t, "127.0.0.1:0", &shop{})
	c := newCenter(t)
	j := run(t, c, jtransit.DefaultConfig())
	text := string(textOf(t, proto))
	swap := func(n int) int64 {
		c.put(t, "jtransit/idl/shop/orders.proto", []byte(strings.Replace(text, "int64 cents", fmt.Sprintf("int64 cents%d", n), 1)))
		return c.put(t, "jtransit/calls/cancel", map[string]any{
			"idl": "shop/orders.proto", "service": "Orders", "method": "Cancel", "timeout": "1m",
			"addresses": [][]string{{at}, {second}, {at, second}}[n%3],
		}).Revision
	}
	swap(0)
	until(t, j, "cancel", `{"id":"o-alice"}`, code.OK, `"cents0"`)
	first := make(chan *tier.CallReply, 1)
	go func() { first <- ask(t, j, "cancel", `{"id":"o-alice","reason":"hold"}`) }()
	<-held

	load := func(stop *atomic.Bool, wg *sync.WaitGroup, calls *atomic.Int64) {
		for range 2 {
			wg.Go(func() {
				for !stop.Load() {
					reply, err := j.Call(context.Background(), &tier.CallRequest{Tenant: "demo", Uid: "alice", Name: "cancel", Data: []byte(`{"id":"o-alice"}`)})
					if err != nil || reply.Code != 0 {
						t.Errorf("%v %+v", err, reply)
						return
					}
					calls.Add(1)
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var calls atomic.Int64
	load(&stop, &wg, &calls)
	round := func(from, to int) {
		for n := from; n < to; n++ {
			revision := swap(n)
			waitFor(t, "the swap", func() bool { return statusOf(j, "cancel").InForce == revision })
		}
	}
	round(1, 30)
	runtime.GC()
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	round(30, 231)
	close(hold)
	wants(t, "begun before all swaps", <-first, code.OK, `"cents0":"5"`)
	waitFor(t, "flat goroutines and connections", func() bool {
		return runtime.NumGoroutine() <= goroutines+8 && openFiles(t) <= files+8
	})
	stop.Store(true)
	wg.Wait()
	t.Logf("%d calls; %d goroutines, %d files after 30 swaps, %d and %d after 231", calls.Load(), goroutines, files, runtime.NumGoroutine(), openFiles(t))
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc to count connections by")
	}
	return len(all)
}
