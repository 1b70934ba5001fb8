package bench

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"hongyan/idl/im"
	"hongyan/internal/token"
	"hongyan/internal/wire"
)

// TestPollLinkConfirmsWhatItApplied: the first poll brings a change, the second confirms it,
// and a command is answered meanwhile.
func TestPollLinkConfirmsWhatItApplied(t *testing.T) {
	confirmed := make(chan string, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req struct{ N, Cursor string }
		_ = json.Unmarshal(body, &req)
		switch {
		case strings.HasSuffix(r.URL.Path, "open"):
			_, _ = io.WriteString(w, `{"sid":"s1","holdS":15,"auth":{"uid":"u","sync":{"epoch":"1","nextCursor":"4"}},"newField":1}`)
		case strings.HasSuffix(r.URL.Path, "send"):
			w.WriteHeader(503)
			_, _ = io.WriteString(w, `{"code":503,"message":"full","retry_after_ms":70}`)
		case req.N == "1":
			confirmed <- req.Cursor
			_, _ = io.WriteString(w, `{"epoch":"1","nextCursor":"5","changes":[{"conv":"p:a:b","version":"5","lastSeq":"1","messages":[{"seq":"1"}]}]}`)
		default:
			confirmed <- req.Cursor
			<-r.Context().Done()
		}
	}))
	defer s.Close()
	keys, err := token.RandomKeys("demo")
	if err != nil {
		t.Fatal(err)
	}
	target, _ := url.Parse(s.URL)
	d, err := newDialer(&Config{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	c, sync, err := open(t.Context(), d, &Config{Keys: keys, Tenant: "demo"}, "u", 512)
	if err != nil || sync.NextCursor != 4 {
		t.Fatalf("open: %+v, %v", sync, err)
	}
	refused := make(chan error, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = c.serve(func(f wire.Frame, _ time.Time) error {
			switch {
			case f.Cmd == im.Cmd_PUSH:
				return parsePush(f.Body, new(change), func(epoch uint64, ch *change) { c.applied(epoch, ch.version) })
			case f.Cmd == im.Cmd_SYNC:
				refused <- errorOf(f)
			}
			return nil
		})
	}()
	c.mu.Lock()
	_ = c.queue(im.Cmd_SYNC, 1, 0, &im.Sync{})
	err = c.flush()
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-refused; !strings.Contains(err.Error(), "full") {
		t.Errorf("the command was answered %v", err)
	}
	if first, second := <-confirmed, <-confirmed; first != "4" || second != "5" {
		t.Errorf("polls confirmed %s, %s", first, second)
	}
	_ = c.link.close()
	<-served
}

func TestLoginCountsLogins(t *testing.T) {
	s := startFake(t)
	keys, err := token.RandomKeys("demo")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Login(t.Context(), Config{
		Target: &url.URL{Scheme: "tcp", Host: s.addr}, Keys: keys, Tenant: "demo",
		Conns: 2, Duration: 200 * time.Millisecond,
	})
	if err != nil || *r.LoginsPerS == 0 || *r.Errors != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
}
