package httpentry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"hongyan/httpentry"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

func (w *world) openPoll(user string) string {
	w.t.Helper()
	got := w.do("POST", "/v1/lp/open", fmt.Sprintf(`{"token":%q,"cursor":"0"}`, user), "Authorization", "")
	sid, _ := got.field("sid").(string)
	if got.status != 200 || sid == "" || got.header.Get("Cache-Control") != "no-store" {
		w.t.Fatalf("open: %d %s", got.status, got.body)
	}
	return sid
}

func (w *world) poll(sid string, n, cursor int) answer {
	w.t.Helper()
	return w.do("POST", "/v1/lp/poll", fmt.Sprintf(`{"sid":%q,"n":"%d","epoch":"1","cursor":"%d"}`, sid, n, cursor), "Authorization", "")
}

// ZZ-06, DD-01: the long poll over HTTP.
func TestZZ06DD01LongPollOverHTTP(t *testing.T) {
	w := newWorld(t, nil)
	sid := w.openPoll("alice/phone")
	go func() {
		time.Sleep(100 * time.Millisecond)
		w.logic.push("alice", 1, "hello")
	}()
	began := time.Now()
	got := w.poll(sid, 1, 0)
	if got.status != 200 || !strings.Contains(string(got.body), `"text":"hello"`) || got.field("nextCursor") != "1" || time.Since(began) > time.Second {
		t.Fatalf("after %s: %d %s", time.Since(began), got.status, got.body)
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Request-ID") == "" || got.header.Get("X-Content-Type-Options") == "" {
		t.Errorf("headers %v", got.header)
	}
	began = time.Now()
	got = w.poll(sid, 2, 1) // over the same connection
	if took := time.Since(began); got.status != 200 || got.field("changes") != nil || took < 1500*time.Millisecond || took > 10*time.Second {
		t.Fatalf("after %s: %d %s", took, got.status, got.body)
	}
	w.logic.answers(func(*tier.Uplink) *tier.Down {
		body, _ := (&im.SendAck{Conv: "p:alice:bob", Seq: 2}).Marshal(nil)
		return &tier.Down{Body: body}
	}, nil)
	got = w.do("POST", "/v1/lp/send", fmt.Sprintf(`{"sid":%q,"command":{"cmd":"SEND","seq":77,"body":{"to":"bob","text":"x"}}}`, sid))
	if string(got.body) != `{"cmd":"SEND","seq":77,"response":true,"body":{"conv":"p:alice:bob","seq":"2"}}` {
		t.Fatalf("send: %d %s", got.status, got.body)
	}
	if got = w.do("POST", "/v1/lp/send", fmt.Sprintf(`{"sid":%q,"command":{"cmd":"TYPING","body":{"conv":"p:alice:bob"}}}`, sid)); string(got.body) != `{}` {
		t.Fatalf("one-way: %d %s", got.status, got.body)
	}
	w.logic.answers(func(*tier.Uplink) *tier.Down {
		body, _ := (&im.Error{Code: uint32(code.Blocked), Message: "no"}).Marshal(nil)
		return &tier.Down{Status: uint32(code.Blocked), Body: body}
	}, nil)
	got = w.do("POST", "/v1/lp/send", fmt.Sprintf(`{"sid":%q,"command":{"cmd":"SEND","seq":78,"body":{"to":"bob"}}}`, sid))
	if got.status != 403 || got.field("name") != "blocked" {
		t.Fatalf("refused: %d %s", got.status, got.body)
	}
	if got = w.do("POST", "/v1/lp/close", fmt.Sprintf(`{"sid":%q}`, sid)); got.status != 200 {
		t.Fatalf("close: %d %s", got.status, got.body)
	}
	eventually(t, "logic hears of the end", func() bool { return w.closed() == 1 })
}

func (w *world) closed() (n int) {
	w.logic.mu.Lock()
	defer w.logic.mu.Unlock()
	for _, u := range w.logic.uplinks {
		if u.Event == tier.Uplink_CLOSED {
			n++
		}
	}
	return n
}

// A command with a sid of a session that lives on another instance is executed all the same.
func TestZZ06SendNeedsNoSession(t *testing.T) {
	secret := func(c *httpentry.Config, _ *httpentry.Deps) { c.Poll.Secret = strings.Repeat("s", 32) }
	here, there := newWorld(t, secret), newWorld(t, secret)
	sid := here.openPoll("alice/phone")
	there.logic.answers(nil, func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		body, _ := (&im.ReadAck{ReadSeq: 5}).Marshal(nil)
		return &tier.ExecuteReply{Body: body}, nil
	})
	got := there.do("POST", "/v1/lp/send", fmt.Sprintf(`{"sid":%q,"command":{"cmd":"READ","seq":3,"body":{"conv":"p:alice:bob","seq":"5"}}}`, sid))
	if string(got.body) != `{"cmd":"READ","seq":3,"response":true,"body":{"readSeq":"5"}}` || there.logic.last().Uid != "alice" {
		t.Fatalf("%d %s", got.status, got.body)
	}
}

func TestLongPollRefuses(t *testing.T) {
	w := newWorld(t, nil)
	sid := w.openPoll("alice/phone")
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"no token":         {"open", `{}`, 401},
		"bad token":        {"open", `{"token":"bad"}`, 401},
		"no device":        {"open", `{"token":"alice"}`, 400},
		"unknown field":    {"open", `{"token":"alice/phone","hold":5}`, 400},
		"no sid":           {"poll", `{"n":"1"}`, 401},
		"wrong sid":        {"poll", `{"sid":"lp1.AAAA","n":"1"}`, 401},
		"negative n":       {"poll", `{"sid":"x","n":-1}`, 400},
		"negative cursor":  {"poll", `{"sid":"x","cursor":"-1"}`, 400},
		"empty":            {"poll", ``, 400},
		"send nothing":     {"send", `{"sid":"` + sid + `"}`, 400},
		"send nonsense":    {"send", `{"sid":"` + sid + `","command":{"cmd":"DANCE"}}`, 415},
		"send AUTH":        {"send", `{"sid":"` + sid + `","command":{"cmd":"AUTH"}}`, 415},
		"send more":        {"send", `{"sid":"` + sid + `","command":{"cmd":"PING"}} {}`, 400},
		"send with no sid": {"send", `{"command":{"cmd":"PING"}}`, 401},
		"close with more":  {"close", `{"sid":"` + sid + `","command":{}}`, 400},
	} {
		got := w.do("POST", "/v1/lp/"+c.path, c.body, "Authorization", "")
		if got.status != c.status || got.field("request_id") == nil {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

// A client that hangs up is noticed, and the slot of its poll freed.
func TestZZ06AClientThatHangsUpIsNoticed(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Poll.Hold, c.Poll.Linger = 20*time.Second, 0 })
	sid := w.openPoll("alice/phone")
	p := w.dial()
	p.write(pollRequest(sid, 1))
	eventually(t, "the poll is held", func() bool { return w.gauge("hongyan_httpentry_held_polls") == "1" })
	_ = p.Close()
	eventually(t, "the slot is free", func() bool { return w.gauge("hongyan_httpentry_held_polls") == "0" })
}

func (w *world) gauge(name string) string {
	for line := range strings.Lines(string(w.do("GET", "/metrics", "").body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func pollRequest(sid string, n int) string {
	body, _ := json.Marshal(map[string]any{"sid": sid, "n": fmt.Sprint(n), "epoch": "1"})
	return fmt.Sprintf("POST /v1/lp/poll HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// A request behind a held poll would wait for it; it is refused.
func TestNothingIsPipelinedBehindAPoll(t *testing.T) {
	w := newWorld(t, nil)
	sid := w.openPoll("alice/phone")
	p := w.dial()
	p.write(pollRequest(sid, 1) + "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	p.wantEnd()
	p = w.dial()
	p.write(pollRequest(sid, 2))
	eventually(t, "the poll is held", func() bool { return w.gauge("hongyan_httpentry_held_polls") == "1" })
	p.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, _ := io.ReadAll(p.r); len(b) > 0 {
		t.Fatalf("answered %q", b)
	}
}

// A held poll holds no goroutine.
func TestHeldPollsHoldNoGoroutine(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Poll.Hold = 20 * time.Second })
	before := runtime.NumGoroutine()
	for i := range 200 {
		w.dial().write(pollRequest(w.openPoll(fmt.Sprintf("user%d/phone", i)), 1))
	}
	eventually(t, "all are held", func() bool { return w.gauge("hongyan_httpentry_held_polls") == "200" })
	if now := runtime.NumGoroutine(); now > before+20 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

func TestAServerThatStopsAnswersHeldPolls(t *testing.T) {
	w := newWorld(t, nil)
	sid := w.openPoll("alice/phone")
	p := w.dial()
	p.write(pollRequest(sid, 1))
	eventually(t, "the poll is held", func() bool { return w.gauge("hongyan_httpentry_held_polls") == "1" })
	w.stop()
	if status, body := p.read(); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	p.wantEnd()
}
