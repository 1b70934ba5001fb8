package httpentry_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"hongyan/httpentry"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/notice"
)

// TestJT13AppsMayTellEverybodyOnline: an app's notice goes to the queue; users may not, and
// what cannot be told is refused.
func TestJT13AppsMayTellEverybodyOnline(t *testing.T) {
	queue, err := memory.Open(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = queue.Close() })
	heard := make(chan mq.Message, 10)
	if err := queue.SubscribeAll(t.Context(), mq.TopicOnline, func(_ context.Context, m mq.Message) error { heard <- m; return nil }); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *httpentry.Config, d *httpentry.Deps) { c.PlainAppKeys, d.Gate.Queue = true, queue })
	app := []string{"Authorization", "App shop:0123456789abcdef"}
	got := w.do("POST", "/v1/notices", `{"id":"n1","text":"sale","data":"e30=","platforms":["ios"],"classes":["mobile"],"ttl_ms":5000}`, app...)
	if got.status != 200 || !strings.Contains(string(got.body), `"n1"`) {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	select {
	case m := <-heard:
		n, err := notice.Online(m.Payload)
		if err != nil || n.Tenant != "demo" || n.Id != "n1" || n.Text != "sale" || string(n.Data) != "{}" || n.Platforms[0] != "ios" || n.Classes[0] != "mobile" || n.TtlMs != 5000 || n.AtMs == 0 {
			t.Errorf("heard %+v, %v", n, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was published")
	}
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
	}{
		"a user":        {`{"text":"x"}`, nil, 403},
		"another key":   {`{"text":"x"}`, []string{"Authorization", "App shop:fedcba9876543210"}, 401},
		"nothing":       {`{}`, app, 400},
		"too long":      {`{"text":"` + strings.Repeat("x", notice.MaxText+1) + `"}`, app, 400},
		"unknown field": {`{"text":"x","uids":["a"]}`, app, 400},
	} {
		if got := w.do("POST", "/v1/notices", c.body, c.headers...); got.status != c.status {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	none := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.PlainAppKeys = true })
	if got := none.do("POST", "/v1/notices", `{"text":"x"}`, app...); !strings.Contains(string(got.body), "unsupported") {
		t.Errorf("without a queue: %d %s", got.status, got.body)
	}
	if len(heard) != 0 {
		t.Errorf("%d more were published", len(heard))
	}
}
