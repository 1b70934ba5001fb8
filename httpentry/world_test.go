package httpentry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/httpentry"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
	"hongyan/internal/control/local"
	"hongyan/internal/gate"
	"hongyan/internal/netloop"
	"hongyan/internal/route"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

func TestMain(m *testing.M) {
	if err := netloop.Setup(nil); err != nil {
		panic(err)
	}
	m.Run()
}

// world is a Server on a real port, in front of a fake Logic.
type world struct {
	t      *testing.T
	server *httpentry.Server
	logic  *logic
	url    string
	http   *http.Client
	stop   func() // ends Run and waits for it
}

func newWorld(t *testing.T, change func(*httpentry.Config, *httpentry.Deps)) *world {
	t.Helper()
	w := &world{t: t, logic: &logic{}, http: &http.Client{Timeout: 30 * time.Second}}
	center, err := local.New(map[string]control.Members{"logic": {
		Slots: 1, Instances: []control.Instance{{Tier: "logic", Addr: "logic-0", Boot: "b1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	pool := route.NewPool(center, "logic", func(string) (tier.Logic, error) { return w.logic, nil }, route.PoolOptions{})
	codec, err := wire.NewJSON()
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	cfg := httpentry.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.StopTimeout = time.Second
	cfg.Gate.DrainDelay = 0
	cfg.Poll.MinHold, cfg.Poll.Hold, cfg.Poll.Linger = time.Second, 2*time.Second, 2*time.Second
	cfg.Apps = []httpentry.App{{Name: "shop", Key: "0123456789abcdef", Tenants: []string{"demo"}}, {Name: "both", Key: "0123456789abcdef", Tenants: []string{"demo", "other"}}}
	deps := httpentry.Deps{
		Gate: gate.Deps{
			Logics: pool, Keys: verifier{}, Self: control.Instance{Tier: "httpentry", Addr: "gate-1", Boot: "boot-1"},
			Version: "test", Metrics: registry, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		JSON: codec, Gatherer: registry,
		Demo: func(uid string) (string, error) { return uid, nil },
	}
	if change != nil {
		change(&cfg, &deps)
	}
	w.server, err = httpentry.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	w.logic.gateway = w.server
	w.url = "http://" + w.server.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = pool.Run(ctx) })
	running.Go(func() {
		if err := w.server.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		w.http.CloseIdleConnections()
		cancel()
		running.Wait()
		_ = center.Close()
	})
	t.Cleanup(w.stop)
	for pool.Slots() == 0 {
		time.Sleep(time.Millisecond)
	}
	return w
}

// verifier takes tokens of the form "uid" or "uid/device".
type verifier struct{}

func (verifier) Verify(text string) (token.Claims, error) {
	if text == "" || text == "bad" {
		return token.Claims{}, code.Errorf(code.BadToken, "no good")
	}
	uid, device, _ := strings.Cut(text, "/")
	return token.Claims{Tenant: "demo", UID: uid, Device: device, ID: "jti", Expires: time.Now().Add(time.Hour)}, nil
}

// logic answers AUTH, and whatever else a test tells it to.
type logic struct {
	tier.Logic
	gateway tier.Gateway

	mu       sync.Mutex
	executed []*tier.ExecuteRequest
	uplinks  []*tier.Uplink
	// execute answers a request of the API; default: an empty body.
	execute func(*tier.ExecuteRequest) (*tier.ExecuteReply, error)
	// packet answers a packet of a session; default: an empty body for all but one-way ones.
	packet func(*tier.Uplink) *tier.Down
	login  *im.AuthAck // answered to AUTH, with the user's names filled in
}

func (l *logic) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.executed)
}

func (l *logic) Execute(_ context.Context, req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	l.mu.Lock()
	l.executed = append(l.executed, req)
	execute := l.execute
	l.mu.Unlock()
	if execute == nil {
		return &tier.ExecuteReply{}, nil
	}
	return execute(req)
}

// answers sets how packets and requests are answered; nil = as before.
func (l *logic) answers(packet func(*tier.Uplink) *tier.Down, execute func(*tier.ExecuteRequest) (*tier.ExecuteReply, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if packet != nil {
		l.packet = packet
	}
	if execute != nil {
		l.execute = execute
	}
}

func (l *logic) last() *tier.ExecuteRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.executed) == 0 {
		return nil
	}
	return l.executed[len(l.executed)-1]
}

func (l *logic) Renew(context.Context, *tier.RenewBatch) (*tier.RenewReply, error) {
	return &tier.RenewReply{}, nil
}

func (l *logic) Uplink(ctx context.Context, b *tier.UplinkBatch) (*tier.Accepted, error) {
	for _, u := range b.Items {
		l.mu.Lock()
		l.uplinks = append(l.uplinks, u)
		packet, login := l.packet, l.login
		l.mu.Unlock()
		if u.Event != tier.Uplink_PACKET || im.Cmd(u.Cmd) == im.Cmd_PUSH_ACK || im.Cmd(u.Cmd) == im.Cmd_TYPING {
			continue
		}
		down := &tier.Down{}
		switch {
		case im.Cmd(u.Cmd) == im.Cmd_AUTH:
			down = loggedIn(login, u)
		case packet != nil:
			down = packet(u)
		}
		down.Conn, down.Cmd, down.Seq, down.Response = u.Conn, u.Cmd, u.Seq, true
		l.down(ctx, down)
	}
	return &tier.Accepted{}, nil
}

func loggedIn(login *im.AuthAck, u *tier.Uplink) *tier.Down {
	ack := im.AuthAck{}
	if login != nil {
		ack = *login
	}
	ack.Tenant, ack.Uid, ack.Device, ack.HeartbeatS = u.Tenant, u.Uid, u.Device, 25
	if ack.Sync == nil {
		ack.Sync = &im.SyncRsp{}
	}
	body, _ := ack.Marshal(nil)
	return &tier.Down{SessionEpoch: 1, Body: body}
}

func (l *logic) down(ctx context.Context, items ...*tier.Down) {
	_, _ = l.gateway.Downlink(ctx, &tier.DownlinkBatch{Logic: "logic-0", Boot: "boot-1", Items: items})
}

// took lists the packets of a command that have arrived.
func (l *logic) took(cmd im.Cmd) []*tier.Uplink {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*tier.Uplink
	for _, u := range l.uplinks {
		if u.Event == tier.Uplink_PACKET && im.Cmd(u.Cmd) == cmd {
			out = append(out, u)
		}
	}
	return out
}

// conn of a user's newest login.
func (l *logic) conn(uid string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var id uint64
	for _, u := range l.uplinks {
		if u.Uid == uid && im.Cmd(u.Cmd) == im.Cmd_AUTH {
			id = u.Conn
		}
	}
	return id
}

// push brings a change to the user's newest connection.
func (l *logic) push(uid string, version uint64, text string) {
	body, _ := (&im.Conversation{
		Conv: "p:alice:bob", Version: version, LastSeq: version,
		Messages: []*im.Message{{Conv: "p:alice:bob", Seq: version, Sender: "bob", Text: text}},
	}).Marshal(nil)
	l.down(context.Background(), &tier.Down{
		Conn: l.conn(uid), Cmd: uint32(im.Cmd_PUSH), Body: body, Epoch: 1, Version: version, SessionEpoch: 1,
	})
}

// answer of an HTTP request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) field(name string) any {
	var fields map[string]any
	_ = json.Unmarshal(a.body, &fields)
	return fields[name]
}

// do sends a request as alice, unless the headers say otherwise.
func (w *world) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer alice")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	rsp, err := w.http.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer rsp.Body.Close()
	content, err := io.ReadAll(rsp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{rsp.StatusCode, rsp.Header, bytes.TrimSpace(content)}
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}
