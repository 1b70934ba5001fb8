package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"hongyan/idl/platform"
	"hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

// ear is a client that keeps the online notices it hears.
type ear struct {
	*hongyan.Client
	mu    sync.Mutex
	heard []string
}

func newEar(t *testing.T, s *cluster.System, uid, kind, transport string) *ear {
	t.Helper()
	e := &ear{}
	client, err := hongyan.New(hongyan.Options{
		Endpoints: s.Endpoints(transport, 0), Token: func(context.Context) (string, error) { return s.Token(t, uid), nil },
		Device: uid + "-" + kind, Platform: kind,
		On: hongyan.Handlers{Announced: func(a hongyan.Announced) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard = append(e.heard, fmt.Sprintf("%s %s %s", a.ID, a.Text, a.Data))
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Client = client
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		t.Fatalf("%s over %s: %v", uid, transport, err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return e
}

func (e *ear) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// TestJT13EverybodyOnlineHearsANotice: by HTTP and by IMUI, through the queue, to every
// gateway and over every transport; once, to those it is for; who comes later hears nothing.
func TestJT13EverybodyOnlineHearsANotice(t *testing.T) {
	cluster.ForEach(t, func(t *testing.T, s *cluster.System) {
		tcp := newEar(t, s, "alice", "ios", "tcp")
		ws := newEar(t, s, "bob", "web", "ws")
		poll := newEar(t, s, "carol", "mini", "http")
		app := "App " + cluster.App + ":" + s.AppKey()
		// Gateways listen from a moment after their start on: the first notice may be repeated.
		for n := 0; len(tcp.list()) == 0 || len(ws.list()) == 0 || len(poll.list()) == 0; n++ {
			if n == 40 {
				t.Fatalf("heard %v, %v, %v", tcp.list(), ws.list(), poll.list())
			}
			if status, got := request(t, s, "POST", "/v1/notices", app, map[string]any{"text": "warm"}); status != 200 {
				t.Fatalf("got %d %v", status, got)
			}
			time.Sleep(250 * time.Millisecond)
		}
		for range 2 { // one id is told once
			if status, got := request(t, s, "POST", "/v1/notices", app, map[string]any{"id": "n1", "text": "sale", "data": "e30="}); status != 200 || got["id"] != "n1" {
				t.Fatalf("got %d %v", status, got)
			}
		}
		client, caller := s.IMUI(t)
		reply, err := client.Notify(t.Context(), &platform.NotifyRequest{Caller: caller, Id: "n2", Text: "apps only", Platforms: []string{"ios"}, Classes: []string{"mobile"}})
		if err != nil || reply.Status.Code != 0 || reply.Id != "n2" {
			t.Fatalf("got %+v, %v", reply, err)
		}
		if status, got := request(t, s, "POST", "/v1/notices", app, map[string]any{"id": "n3", "text": "last"}); status != 200 {
			t.Fatalf("got %d %v", status, got)
		}
		later := newEar(t, s, "dave", "ios", "tcp")
		// Several queues of a broker keep no order among them.
		want := map[*ear][]string{tcp: {"n1 sale {}", "n2 apps only ", "n3 last "}, ws: {"n1 sale {}", "n3 last "}, poll: {"n1 sale {}", "n3 last "}}
		for e, want := range want {
			cluster.Eventually(t, patience, fmt.Sprintf("%v is heard", want), func() bool {
				return slices.Equal(want, named(e.list()))
			})
		}
		time.Sleep(500 * time.Millisecond)
		for e, want := range want {
			if got := named(e.list()); !slices.Equal(got, want) {
				t.Errorf("heard %v, want %v", got, want)
			}
		}
		if got := named(later.list()); len(got) > 0 && got[0] != "n3 last " {
			t.Errorf("who came later heard %v", got)
		}
	})
}

// named are the notices whose id the test has chosen, sorted.
func named(heard []string) (out []string) {
	for _, h := range heard {
		if h[0] == 'n' {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}
