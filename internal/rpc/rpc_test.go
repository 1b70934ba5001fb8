package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/platform"
	"hongyan/idl/tier"
	"hongyan/internal/rpc"
)

// fakeLogic answers through its function fields; the rest of the interface is not served.
type fakeLogic struct {
	tier.Logic
	execute func(context.Context, *tier.ExecuteRequest) (*tier.ExecuteReply, error)
	uplink  func(context.Context, *tier.UplinkBatch) (*tier.Accepted, error)
}

func (f *fakeLogic) Execute(ctx context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	return f.execute(ctx, req)
}

func (f *fakeLogic) Uplink(ctx context.Context, req *tier.UplinkBatch) (*tier.Accepted, error) {
	return f.uplink(ctx, req)
}

type fakeDas struct {
	tier.Das
	history func(context.Context, *tier.HistoryRequest) (*im.HistoryRsp, error)
}

func (f *fakeDas) History(ctx context.Context, req *tier.HistoryRequest) (*im.HistoryRsp, error) {
	return f.history(ctx, req)
}

type fakeIMUI struct {
	platform.IMUI
	history func(context.Context, *platform.HistoryRequest) (*platform.HistoryReply, error)
}

func (f *fakeIMUI) History(ctx context.Context, req *platform.HistoryRequest) (*platform.HistoryReply, error) {
	return f.history(ctx, req)
}

func echo(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	return &tier.ExecuteReply{Code: 200, Body: req.Body, Message: req.Uid}, nil
}

// journal keeps log lines.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.buf.Reset()
	return j.buf.String()
}

// serve runs a server for the test and returns its address and a function that stops it.
func serve(t testing.TB, addr string, opt rpc.ServerOptions, services ...rpc.Service) (string, func()) {
	t.Helper()
	s, err := rpc.NewServer(addr, opt, services...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return s.Addr(), stop
}

func dialLogic(t testing.TB, addr string, opt rpc.Options) tier.Logic {
	t.Helper()
	l, err := rpc.DialLogic(addr, opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMain(m *testing.M) {
	rpc.LogKitex(slog.New(slog.DiscardHandler))
	m.Run()
}

func TestRoundTrip(t *testing.T) {
	for name, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "logic.sock")} {
		t.Run(name, func(t *testing.T) {
			at, _ := serve(t, addr, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
			l := dialLogic(t, at, rpc.Options{})
			for _, body := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0, 255}, 1<<20)} {
				rsp, err := l.Execute(t.Context(), &tier.ExecuteRequest{Uid: "alice", Body: body})
				if err != nil || rsp.Message != "alice" || rsp.Code != 200 || !bytes.Equal(rsp.Body, body) {
					t.Fatalf("%d bytes: %d bytes back, %v", len(body), len(rsp.GetBody()), err)
				}
			}
		})
	}
}

func TestSeveralServicesShareAPort(t *testing.T) {
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{},
		rpc.Das(&fakeDas{history: func(context.Context, *tier.HistoryRequest) (*im.HistoryRsp, error) {
			return &im.HistoryRsp{ReadAtSeq: 7}, nil
		}}),
		rpc.IMUI(&fakeIMUI{history: func(context.Context, *platform.HistoryRequest) (*platform.HistoryReply, error) {
			return &platform.HistoryReply{More: true}, nil
		}}),
		rpc.Logic(&fakeLogic{execute: echo}))
	d, err := rpc.DialDas(at, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := rpc.DialIMUI(at, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rsp, err := d.History(t.Context(), &tier.HistoryRequest{}); err != nil || rsp.ReadAtSeq != 7 {
		t.Errorf("das: %v, %v", rsp, err)
	}
	if rsp, err := i.History(t.Context(), &platform.HistoryRequest{}); err != nil || !rsp.More {
		t.Errorf("imui: %v, %v", rsp, err)
	}
	if _, err := dialLogic(t, at, rpc.Options{}).Execute(t.Context(), &tier.ExecuteRequest{}); err != nil {
		t.Errorf("logic: %v", err)
	}
}

func TestErrorsTravel(t *testing.T) {
	var logged journal
	var answer atomic.Value // of func() error: one concrete type
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{Log: logged.logger()}, rpc.Logic(&fakeLogic{
		execute: func(context.Context, *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
			return nil, answer.Load().(func() error)()
		},
	}))
	l := dialLogic(t, at, rpc.Options{})
	overloaded := code.Errorf(code.Overloaded, "queue of messages is full")
	overloaded.RetryAfter = 250 * time.Millisecond
	for name, c := range map[string]struct {
		err  error
		want code.Error
		log  string
	}{
		"code":        {code.Errorf(code.Denied, "no 权限"), code.Error{Code: code.Denied, Message: "no 权限"}, ""},
		"retry after": {overloaded, code.Error{Code: code.Overloaded, Message: overloaded.Message, RetryAfter: 250 * time.Millisecond}, ""},
		"wrapped":     {fmt.Errorf("deep: %w", code.Errorf(code.NotFound, "x")), code.Error{Code: code.NotFound, Message: "x"}, ""},
		"context":     {context.DeadlineExceeded, code.Error{Code: code.Expired, Message: "the request outlived its deadline"}, ""},
		"foreign":     {errors.New("secret of the inside"), code.Error{Code: code.Internal, Message: "internal error"}, "secret of the inside"},
		"ok is none":  {&code.Error{}, code.Error{Code: code.Internal, Message: "internal error"}, ""},
		"long":        {code.Errorf(code.BadRequest, "%s", strings.Repeat("é", 1<<19)), code.Error{Code: code.BadRequest, Message: strings.Repeat("é", 512)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			logged.take()
			answer.Store(func() error { return c.err })
			rsp, err := l.Execute(t.Context(), &tier.ExecuteRequest{})
			e := code.From(err)
			if rsp != nil || e == nil || e.Code != c.want.Code || e.Message != c.want.Message || e.RetryAfter != c.want.RetryAfter {
				t.Errorf("got %v, %+v, want %+v", rsp, e, c.want)
			}
			if rpc.Down(err) {
				t.Error("an answer counts as down")
			}
			if got := logged.take(); !strings.Contains(got, c.log) || c.log == "" && got != "" {
				t.Errorf("logged %q, want %q", got, c.log)
			}
		})
	}
}

func TestPanicIsInternalAndLogged(t *testing.T) {
	var logged journal
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{Log: logged.logger()}, rpc.Logic(&fakeLogic{
		execute: func(context.Context, *tier.ExecuteRequest) (*tier.ExecuteReply, error) { panic("boom") },
	}))
	l := dialLogic(t, at, rpc.Options{})
	for range 2 { // the connection and the server live on
		_, err := l.Execute(t.Context(), &tier.ExecuteRequest{})
		if code.Of(err) != code.Internal || strings.Contains(err.Error(), "boom") {
			t.Fatalf("error %v", err)
		}
	}
	got := logged.take()
	if strings.Count(got, "handler panicked") != 2 || !strings.Contains(got, "boom") || !strings.Contains(got, "rpc_test.go") {
		t.Errorf("logged %q", got)
	}
}

func TestDeadlineTravelsAndEndsTheCall(t *testing.T) {
	left := make(chan time.Duration, 1)
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{
		execute: func(ctx context.Context, _ *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				left <- 0
				return nil, errors.New("no deadline")
			}
			left <- time.Until(deadline)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}))
	l := dialLogic(t, at, rpc.Options{Timeout: 150 * time.Millisecond})
	for name, ctx := range map[string]context.Context{
		"of the context": nil, "default": context.Background(), "default, cancellable": t.Context(),
	} {
		if ctx == nil {
			deadline, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			ctx = deadline
		}
		start := time.Now()
		_, err := l.Execute(ctx, &tier.ExecuteRequest{})
		if code.Of(err) != code.Expired || rpc.Down(err) {
			t.Errorf("%s: error %v", name, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if d := <-left; d <= 0 || d > 150*time.Millisecond {
			t.Errorf("%s: the handler was given %s", name, d)
		}
	}
}

func TestCancelEndsTheCall(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{DrainFor: 10 * time.Millisecond}, rpc.Logic(&fakeLogic{
		execute: func(context.Context, *tier.ExecuteRequest) (*tier.ExecuteReply, error) { <-hold; return nil, nil },
	}))
	l := dialLogic(t, at, rpc.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := l.Execute(ctx, &tier.ExecuteRequest{}); code.Of(err) != code.Expired {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := l.Execute(ctx, &tier.ExecuteRequest{}); code.Of(err) != code.Expired {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestDeadServerFailsFast(t *testing.T) {
	at, stop := serve(t, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
	l := dialLogic(t, at, rpc.Options{})
	if _, err := l.Execute(t.Context(), &tier.ExecuteRequest{}); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := l.Execute(t.Context(), &tier.ExecuteRequest{}); !rpc.Down(err) { // perhaps on a connection whose end is not noticed yet
		t.Fatalf("just stopped: %v", err)
	}
	start := time.Now()
	const n = 20
	for range n {
		_, err := l.Execute(t.Context(), &tier.ExecuteRequest{})
		if code.Of(err) != code.Unavailable || !rpc.Down(err) {
			t.Fatalf("dead server: %v", err)
		}
	}
	if took := time.Since(start); took > 3*time.Second { // 4 s if each one waited for a connection
		t.Errorf("%d calls to a dead server took %s", n, took)
	}
	serve(t, at, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
	if _, err := l.Execute(t.Context(), &tier.ExecuteRequest{}); err != nil {
		t.Errorf("back up: %v", err)
	}
}

// A connection that breaks while the handler works leaves the outcome unknown.
func TestConnectionLostInFlight(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, part := range map[string]string{"no answer": "", "half an answer": "\x00\x00\x00\x40\x10\x00", "not our protocol": "HTTP/1.1 400 Bad Request\r\n\r\n"} {
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(part))
			_ = conn.Close()
		}()
		_, err := dialLogic(t, ln.Addr().String(), rpc.Options{}).Execute(t.Context(), &tier.ExecuteRequest{Uid: "a"})
		if code.Of(err) != code.UnknownOutcome || !rpc.Down(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownServiceIsNotDown(t *testing.T) {
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
	d, err := rpc.DialDas(at, rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Submit(t.Context(), &tier.SubmitBatch{}); code.Of(err) != code.Internal || rpc.Down(err) {
		t.Errorf("a service that is not hosted here: %v", err)
	}
}

func TestBodyOverTheLimit(t *testing.T) {
	const limit = 1 << 16
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{MaxBody: limit}, rpc.Logic(&fakeLogic{execute: func(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return &tier.ExecuteReply{Body: make([]byte, req.TimeoutMs)}, nil
	}}))
	l := dialLogic(t, at, rpc.Options{MaxBody: limit})
	for name, req := range map[string]*tier.ExecuteRequest{
		"request": {Body: make([]byte, 2*limit)},
		"reply":   {TimeoutMs: 2 * limit},
	} {
		if _, err := l.Execute(t.Context(), req); code.Of(err) != code.TooLarge || rpc.Down(err) {
			t.Errorf("%s over the limit: %v", name, err)
		}
	}
	if _, err := l.Execute(t.Context(), &tier.ExecuteRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// A server guards itself against callers without a limit of their own.
	if _, err := dialLogic(t, at, rpc.Options{}).Execute(t.Context(), &tier.ExecuteRequest{Body: make([]byte, 2*limit)}); err == nil {
		t.Error("the server took a body over its limit")
	}
}

func TestCallsUnderWayFinishWhenStopping(t *testing.T) {
	entered := make(chan struct{})
	at, stop := serve(t, "127.0.0.1:0", rpc.ServerOptions{}, rpc.Logic(&fakeLogic{
		execute: func(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
			close(entered)
			time.Sleep(100 * time.Millisecond)
			return &tier.ExecuteReply{Message: "done"}, nil
		},
	}))
	l := dialLogic(t, at, rpc.Options{})
	got := make(chan error, 1)
	go func() {
		rsp, err := l.Execute(context.Background(), &tier.ExecuteRequest{})
		if err == nil && rsp.Message != "done" {
			err = fmt.Errorf("reply %+v", rsp)
		}
		got <- err
	}()
	<-entered
	stop()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestConcurrentCallers(t *testing.T) {
	reg := prometheus.NewRegistry()
	var served atomic.Int64
	at, _ := serve(t, "127.0.0.1:0", rpc.ServerOptions{Metrics: reg}, rpc.Logic(&fakeLogic{
		execute: func(ctx context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
			served.Add(1)
			return echo(ctx, req)
		},
	}))
	l := dialLogic(t, at, rpc.Options{})
	const callers, calls = 64, 50
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range calls {
				uid := fmt.Sprint(i, "/", n)
				if rsp, err := l.Execute(context.Background(), &tier.ExecuteRequest{Uid: uid}); err != nil || rsp.Message != uid {
					t.Errorf("%s: %v, %v", uid, rsp, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if served.Load() != callers*calls {
		t.Errorf("%d calls reached the handler, want %d: nothing is repeated", served.Load(), callers*calls)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].Metric[0].Histogram.GetSampleCount() != callers*calls {
		t.Errorf("metrics %v, %v", families, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"", "localhost", "127.0.0.1", "a:b:c"} {
		if _, err := rpc.DialLogic(addr, rpc.Options{}); err == nil {
			t.Errorf("dialled %q", addr)
		}
		if _, err := rpc.NewServer(addr, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{})); err == nil {
			t.Errorf("listened at %q", addr)
		}
	}
	sock := filepath.Join(t.TempDir(), "s")
	at, _ := serve(t, sock, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{execute: echo}))
	if _, err := rpc.NewServer(at, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{})); err == nil {
		t.Error("took over the socket of a living server")
	}
	stale := filepath.Join(t.TempDir(), "stale")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	s, err := rpc.NewServer(stale, rpc.ServerOptions{}, rpc.Logic(&fakeLogic{}))
	if err != nil {
		t.Errorf("the socket that a dead process left: %v", err)
	} else {
		s.Close()
	}
	if _, err := rpc.NewServer("127.0.0.1:0", rpc.ServerOptions{}); err == nil {
		t.Error("a server without services")
	}
}
