package httpentry_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"hongyan/httpentry"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// MF-02: plain HTTP access. Every route reaches Logic as its command, for the token's user.
func TestMF02RoutesReachLogicAsCommands(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		method, path, body string
		cmd                im.Cmd
		want               string // of the command's body, in JSON
	}{
		{"POST", "/v1/messages", `{"to":"bob","text":"hi","clientMsgId":"m1"}`, im.Cmd_SEND, `{"clientMsgId":"m1","to":"bob","text":"hi"}`},
		{"POST", "/v1/messages", `{"conv":"p:alice:bob","client_msg_id":"m1","data":"aGk="}`, im.Cmd_SEND, `{"clientMsgId":"m1","conv":"p:alice:bob","data":"aGk="}`},
		{"POST", "/v1/messages/p:alice:bob/7/recall", `{"clientMsgId":"m2"}`, im.Cmd_RECALL, `{"clientMsgId":"m2","conv":"p:alice:bob","seq":"7"}`},
		{"POST", "/v1/messages/p%3Aalice%3Abob/7/edit", `{"clientMsgId":"m3","text":"new"}`, im.Cmd_EDIT, `{"clientMsgId":"m3","conv":"p:alice:bob","seq":"7","text":"new"}`},
		{"GET", "/v1/conversations?limit=5&before_version=9&hidden=true", "", im.Cmd_CONVERSATIONS, `{"beforeVersion":"9","limit":5,"hidden":true}`},
		{"GET", "/v1/conversations/p:alice:bob/messages?before_seq=18446744073709551615&limit=200", "", im.Cmd_HISTORY, `{"conv":"p:alice:bob","beforeSeq":"18446744073709551615","limit":200}`},
		{"GET", "/v1/conversations/p:alice:bob/messages?from_seq=2&to_seq=4", "", im.Cmd_HISTORY, `{"conv":"p:alice:bob","fromSeq":"2","toSeq":"4"}`},
		{"POST", "/v1/conversations/p:alice:bob/read", `{"seq":"12"}`, im.Cmd_READ, `{"conv":"p:alice:bob","seq":"12"}`},
		{"PUT", "/v1/conversations/p:alice:bob/settings", `{"pinned":true,"remark":""}`, im.Cmd_SETTINGS, `{"conv":"p:alice:bob","pinned":true,"fields":["pinned","remark"]}`},
		{"GET", "/v1/unread", "", im.Cmd_UNREAD, `{}`},
		{"GET", "/v1/unread?conv=p:alice:bob", "", im.Cmd_UNREAD, `{"conv":"p:alice:bob"}`},
		{"GET", "/v1/contacts?limit=3", "", im.Cmd_CONTACTS, `{"limit":3}`},
		{"PUT", "/v1/contacts/bob/block", "", im.Cmd_BLOCK, `{"uid":"bob","on":true,"clientMsgId":"key-1"}`},
		{"DELETE", "/v1/contacts/bob/block", "", im.Cmd_BLOCK, `{"uid":"bob","clientMsgId":"key-1"}`},
		{"GET", "/v1/presence?uids=bob,carol&uids=dave", "", im.Cmd_PRESENCE, `{"uids":["bob","carol","dave"]}`},
		{"POST", "/v1/sync", `{"epoch":"1","cursor":"5"}`, im.Cmd_SYNC, `{"epoch":"1","cursor":"5"}`},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			key := ""
			if c.cmd == im.Cmd_BLOCK {
				key = "key-1"
			}
			got := w.do(c.method, c.path, c.body, "Idempotency-Key", key)
			if got.status != 200 {
				t.Fatalf("status %d: %s", got.status, got.body)
			}
			req := w.logic.last()
			if im.Cmd(req.Cmd) != c.cmd || req.Uid != "alice" || req.Tenant != "demo" || req.System || req.RequestId == "" || req.TimeoutMs <= 0 {
				t.Fatalf("executed %+v", req)
			}
			if body := jsonOf(t, c.cmd, req.Body); body != c.want {
				t.Fatalf("body %s, want %s", body, c.want)
			}
		})
	}
}

// ZZ-11 over HTTP: JSON goes to the service as it is, and back; what may have run is not
// tried at another Logic.
func TestZZ11CallOverHTTP(t *testing.T) {
	w := newWorld(t, nil)
	w.logic.answers(nil, func(req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		var c im.Call
		if err := c.Unmarshal(req.Body); err != nil || im.Cmd(req.Cmd) != im.Cmd_CALL || req.Uid != "alice" {
			t.Errorf("executed %+v, %v", req, err)
		}
		switch c.Name {
		case "order.lost":
			return nil, code.Errorf(code.UnknownOutcome, "lost under way")
		case "order.refused":
			return &tier.ExecuteReply{Code: uint32(code.CallRefused), Message: "not your order"}, nil
		}
		body, err := (&im.CallRsp{Data: fmt.Appendf(nil, `{"name":%q,"asked":%q}`, c.Name, c.Data)}).Marshal(nil)
		return &tier.ExecuteReply{Body: body}, err
	})
	ask := func(name, body string, status int, want string, headers ...string) {
		t.Helper()
		got := w.do("POST", "/v1/calls/"+name, body, headers...)
		if got.status != status || !strings.Contains(string(got.body), want) {
			t.Errorf("%s %s: %d %s, want %d %s", name, body, got.status, got.body, status, want)
		}
	}
	ask("order.get", `{"id": 12345678901234567890}`, 200, `{"name":"order.get","asked":"{\"id\": 12345678901234567890}"}`)
	ask("order.get", "", 200, `"asked":""`)
	ask("order%2Eget", `{}`, 200, `"name":"order.get"`)
	ask("order.refused", `{}`, 422, `"name":"call_refused","message":"not your order"`)
	ask("order.get", `{}`, 415, `"unsupported"`, "Content-Type", "text/plain")
	ask("order.get", `{}`, 401, `"bad_token"`, "Authorization", "")
	ask("order.get?x=1", `{}`, 400, `unknown query parameter`)
	before := w.logic.count()
	ask("order.lost", `{}`, 503, `"unknown_outcome"`)
	if n := w.logic.count() - before; n != 1 {
		t.Errorf("a call that may have run was made %d times", n)
	}
}

func TestAnswersNameDefaults(t *testing.T) {
	w := newWorld(t, nil)
	if got := w.do("GET", "/v1/unread", ""); string(got.body) != `{"total":"0","conversations":[]}` {
		t.Fatalf("got %s", got.body)
	}
}

func TestIdempotencyKeyIsTheClientMsgID(t *testing.T) {
	w := newWorld(t, nil)
	send := func(body, key string) (answer, *im.Send) {
		got := w.do("POST", "/v1/messages", body, "Idempotency-Key", key)
		m := new(im.Send)
		if got.status == 200 {
			if err := m.Unmarshal(w.logic.last().Body); err != nil {
				t.Fatal(err)
			}
		}
		return got, m
	}
	if _, m := send(`{"to":"bob","text":"x"}`, "k1"); m.ClientMsgId != "k1" {
		t.Errorf("from the header: %q", m.ClientMsgId)
	}
	if _, m := send(`{"to":"bob","text":"x"}`, ""); len(m.ClientMsgId) != 36 {
		t.Errorf("made: %q", m.ClientMsgId)
	}
	if got, _ := send(`{"to":"bob","clientMsgId":"k2"}`, "k1"); got.status != 400 {
		t.Errorf("two that differ: %d", got.status)
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.MaxBodyBytes = 8 << 10 })
	const conv = "/v1/conversations/p:alice:bob"
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		message            string // part of it
	}{
		"no such route":         {"GET", "/v1/nothing", "", nil, 404, "no route"},
		"trailing slash":        {"GET", "/v1/unread/", "", nil, 404, "no route"},
		"method":                {"DELETE", "/v1/messages", "", nil, 405, "POST"},
		"empty body":            {"POST", "/v1/messages", "", nil, 400, "body is empty"},
		"blank body":            {"POST", "/v1/messages", "  ", nil, 400, "body is empty"},
		"not JSON":              {"POST", "/v1/messages", "hello", nil, 400, "not a JSON object"},
		"an array":              {"POST", "/v1/messages", "[]", nil, 400, "not a JSON object"},
		"unknown field":         {"POST", "/v1/messages", `{"to":"bob","txt":"x"}`, nil, 400, "txt"},
		"field of the path":     {"POST", conv + "/read", `{"conv":"p:x:y","seq":"1"}`, nil, 400, "conv is not part"},
		"field not for callers": {"POST", "/v1/messages", `{"to":"bob","attempt":3}`, nil, 400, "attempt"},
		"negative seq":          {"POST", conv + "/read", `{"seq":-1}`, nil, 400, "seq"},
		"wrong type":            {"POST", "/v1/messages", `{"to":7}`, nil, 400, "to"},
		"two recipients":        {"POST", "/v1/messages", `{"to":"bob","conv":"p:alice:bob"}`, nil, 400, "exactly one"},
		"no recipient":          {"POST", "/v1/messages", `{"text":"x"}`, nil, 400, "exactly one"},
		"deep":                  {"POST", "/v1/messages", `{"to":` + strings.Repeat("[", 4000) + `}`, nil, 400, ""},
		"content type":          {"POST", "/v1/messages", `{"to":"bob"}`, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		"no content type":       {"POST", "/v1/messages", `{"to":"bob"}`, []string{"Content-Type", ""}, 415, "application/json"},
		"charset":               {"POST", "/v1/messages", `{"to":"bob"}`, []string{"Content-Type", "application/json; charset=gbk"}, 415, "UTF-8"},
		"huge body":             {"POST", "/v1/messages", strings.Repeat(" ", 9<<10), nil, 413, "8192"},
		"unknown parameter":     {"GET", "/v1/unread?converse=1", "", nil, 400, "converse"},
		"parameter twice":       {"GET", "/v1/contacts?limit=1&limit=2", "", nil, 400, "twice"},
		"negative limit":        {"GET", "/v1/contacts?limit=-1", "", nil, 400, "limit"},
		"limit over the top":    {"GET", "/v1/contacts?limit=201", "", nil, 400, "200"},
		"number too large":      {"GET", conv + "/messages?before_seq=18446744073709551616", "", nil, 400, "before_seq"},
		"half a range":          {"GET", conv + "/messages?from_seq=3", "", nil, 400, "range"},
		"range and page":        {"GET", conv + "/messages?from_seq=3&to_seq=4&before_seq=9", "", nil, 400, "before_seq"},
		"flag":                  {"GET", "/v1/conversations?hidden=maybe", "", nil, 400, "hidden"},
		"seq in the path":       {"POST", "/v1/messages/p:alice:bob/-7/recall", "", nil, 400, "seq"},
		"percent":               {"GET", "/v1/unread?conv=%zz", "", nil, 400, "percent"},
		"not UTF-8":             {"GET", "/v1/unread?conv=%ff", "", nil, 400, "percent"},
		"nobody":                {"GET", "/v1/presence", "", nil, 400, "uids"},
		"too many":              {"GET", "/v1/presence?uids=" + strings.Repeat("a,", 101), "", nil, 400, "100"},
		"nothing to set":        {"PUT", conv + "/settings", "{}", nil, 400, "nothing"},
		"no token":              {"GET", "/v1/unread", "", []string{"Authorization", ""}, 401, "Authorization"},
		"bad token":             {"GET", "/v1/unread", "", []string{"Authorization", "Bearer bad"}, 401, "no good"},
		"another scheme":        {"GET", "/v1/unread", "", []string{"Authorization", "Basic YTpi"}, 401, "Authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			got := w.do(c.method, c.path, c.body, c.header...)
			if got.status != c.status {
				t.Fatalf("status %d, want %d: %s", got.status, c.status, got.body)
			}
			message, _ := got.field("message").(string)
			if !strings.Contains(message, c.message) {
				t.Errorf("message %q, want something about %q", message, c.message)
			}
			for _, field := range []string{"code", "name", "request_id", "retryable", "retry_after_ms"} {
				if got.field(field) == nil {
					t.Errorf("no %s in %s", field, got.body)
				}
			}
		})
	}
	if w.logic.last() != nil {
		t.Errorf("reached logic: %+v", w.logic.last())
	}
}

func TestErrorsOfLogic(t *testing.T) {
	w := newWorld(t, nil)
	w.logic.answers(nil, func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		return &tier.ExecuteReply{Code: uint32(code.Overloaded), Message: "the queue is full", RetryAfterMs: 1500}, nil
	})
	got := w.do("GET", "/v1/unread", "", "X-Request-ID", "req.1")
	want := `{"code":503,"name":"overloaded","message":"the queue is full","request_id":"req.1","retryable":true,"retry_after_ms":1500}`
	if got.status != 503 || string(got.body) != want {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if h := got.header; h.Get("Retry-After") != "2" || h.Get("X-Request-ID") != "req.1" || h.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("headers %v", h)
	}
	w.logic.answers(nil, func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) { panic("a bug") })
	if got := w.do("GET", "/v1/unread", "", "X-Request-ID", "bad id\u00e9"); got.status != 500 || len(got.header.Get("X-Request-ID")) != 32 {
		t.Errorf("a panic: %d, request id %q", got.status, got.header.Get("X-Request-ID"))
	}
}

func TestAnInstanceThatFailsIsNotAskedAgain(t *testing.T) {
	w := newWorld(t, nil)
	var repeated []bool
	w.logic.answers(nil, func(r *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		repeated = append(repeated, r.Repeated)
		return nil, code.Errorf(code.Unavailable, "not running")
	})
	if got := w.do("GET", "/v1/unread", ""); got.status != 503 || got.field("name") != "unavailable" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if len(repeated) != 1 { // the pool has no second instance
		t.Fatalf("tries %v", repeated)
	}
	if got := w.do("GET", "/readyz", ""); got.status != 503 || !strings.Contains(string(got.body), "logic") {
		t.Errorf("readyz %d %s", got.status, got.body)
	}
}

// signed makes the headers of a signed request.
func signed(key, method, target, body, uid, nonce string, at time.Time, idempotency string) []string {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	digest := sha256.Sum256([]byte(body))
	const tenant = ""
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(strings.Join([]string{timestamp, nonce, method, target, tenant, uid, idempotency, hex.EncodeToString(digest[:])}, "\n")))
	return []string{
		"Authorization", "", "X-Hongyan-App", "shop", "X-Hongyan-Timestamp", timestamp, "X-Hongyan-Nonce", nonce,
		"X-Hongyan-On-Behalf-Of", uid, "X-Hongyan-Signature", hex.EncodeToString(mac.Sum(nil)), "Idempotency-Key", idempotency,
	}
}

func TestAppsSignRequests(t *testing.T) {
	w := newWorld(t, nil)
	const key, path, body = "0123456789abcdef", "/v1/messages?", `{"to":"bob","text":"your order is on its way"}`
	sign := func(nonce string) []string {
		return signed(key, "POST", path, body, "seller", nonce, time.Now(), "order-1")
	}
	got := w.do("POST", path, body, sign("nonce-01")...)
	if req := w.logic.last(); got.status != 200 || req.Uid != "seller" || req.Tenant != "demo" || !req.System {
		t.Fatalf("got %d %s, executed %+v", got.status, got.body, w.logic.last())
	}
	w.logic.executed = nil
	for name, headers := range map[string][]string{
		"replayed":        sign("nonce-01"),
		"another user":    append(sign("nonce-02"), "X-Hongyan-On-Behalf-Of", "bob"),
		"another key":     append(sign("nonce-03"), "Idempotency-Key", "order-2"),
		"another app":     append(sign("nonce-04"), "X-Hongyan-App", "else"),
		"no signature":    append(sign("nonce-05"), "X-Hongyan-Signature", ""),
		"not hex":         append(sign("nonce-06"), "X-Hongyan-Signature", "zz"),
		"old":             signed(key, "POST", path, body, "seller", "nonce-07", time.Now().Add(-6*time.Minute), ""),
		"from the future": signed(key, "POST", path, body, "seller", "nonce-08", time.Now().Add(6*time.Minute), ""),
		"short nonce":     signed(key, "POST", path, body, "seller", "n", time.Now(), ""),
		"another method":  signed(key, "PUT", path, body, "seller", "nonce-09", time.Now(), ""),
		"another body":    signed(key, "POST", path, body+" ", "seller", "nonce-10", time.Now(), ""),
		"another target":  signed(key, "POST", "/v1/sync", body, "seller", "nonce-11", time.Now(), ""),
		"wrong key":       signed("fedcba9876543210", "POST", path, body, "seller", "nonce-12", time.Now(), ""),
		"plain key":       {"Authorization", "App shop:" + key, "X-Hongyan-On-Behalf-Of", "seller"},
	} {
		if got := w.do("POST", path, body, headers...); got.status != 401 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := w.do("POST", path, body, signed(key, "POST", path, body, "", "nonce-13", time.Now(), "")...); got.status != 400 {
		t.Errorf("nobody's behalf: %d", got.status)
	}
	if got := w.do("POST", path, body, signed(key, "POST", path, body, "no spaces", "nonce-14", time.Now(), "")...); got.status != 400 {
		t.Errorf("not a uid: %d", got.status)
	}
	if w.logic.last() != nil {
		t.Errorf("reached logic: %+v", w.logic.last())
	}
}

func TestPlainAppKeysOnlyWhereTheyAreAllowed(t *testing.T) {
	plain := func(more ...string) []string {
		return append([]string{"Authorization", "App shop:0123456789abcdef", "X-Hongyan-On-Behalf-Of", "seller"}, more...)
	}
	demo := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Demo = true })
	if got := demo.do("GET", "/v1/unread", "", plain()...); got.status != 200 {
		t.Errorf("demo, from this machine: %d", got.status)
	}
	if got := demo.do("GET", "/v1/unread", "", plain("X-Forwarded-For", "8.8.8.8")...); got.status != 401 {
		t.Errorf("demo, through a proxy: %d", got.status)
	}
	if got := demo.do("GET", "/v1/unread", "", plain("Authorization", "App shop:0123456789abcdeF")...); got.status != 401 {
		t.Errorf("demo, wrong key: %d", got.status)
	}
	on := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.PlainAppKeys = true })
	if got := on.do("GET", "/v1/unread", "", plain("X-Forwarded-For", "8.8.8.8")...); got.status != 200 {
		t.Errorf("plain_app_keys: %d", got.status)
	}
	for tenant, status := range map[string]int{"": 403, "third": 403, "other": 200} {
		got := on.do("GET", "/v1/unread", "", plain("Authorization", "App both:0123456789abcdef", "X-Hongyan-Tenant", tenant)...)
		if got.status != status || (status == 200 && on.logic.last().Tenant != tenant) {
			t.Errorf("tenant %q: %d", tenant, got.status)
		}
	}
}

func TestOperationRoutes(t *testing.T) {
	w := newWorld(t, nil)
	for path, want := range map[string]string{
		"/healthz": `{"status":"ok"}`, "/readyz": `{"ready":true,"reasons":[]}`,
		"/docs": "<!doctype html>", "/docs/docs.js": "openapi.json", "/docs/docs.css": "color-scheme",
		"/metrics": "hongyan_httpentry_tcp_connections",
	} {
		got := w.do("GET", path, "")
		if got.status != 200 || !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %d %.80s", path, got.status, got.body)
		}
	}
	for path, status := range map[string]int{"/docs/..%2fweb.go": 404, "/docs/x": 404, "/demo": 404, "/demo/session": 404} {
		if got := w.do("GET", path, ""); got.status != status {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := w.do("GET", "/metrics", "", "X-Forwarded-For", "1.2.3.4"); got.status != 403 {
		t.Errorf("metrics through a proxy: %d", got.status)
	}
	if got := w.do("HEAD", "/healthz", ""); got.status != 200 || len(got.body) != 0 || got.header.Get("Content-Length") != "15" {
		t.Errorf("HEAD: %d %s %v", got.status, got.body, got.header)
	}
}

func TestCrossOrigin(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Origins = []string{"https://shop.example"} })
	got := w.do("OPTIONS", "/v1/messages", "", "Origin", "https://shop.example")
	if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "https://shop.example" || !strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: %d %v", got.status, got.header)
	}
	got = w.do("GET", "/v1/unread", "", "Origin", "https://shop.example")
	if got.header.Get("Access-Control-Allow-Origin") != "https://shop.example" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("listed: %v", got.header)
	}
	for _, path := range []string{"/v1/unread", "/v1/messages"} {
		got = w.do("OPTIONS", path, "", "Origin", "https://evil.example")
		if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("not listed: %d %v", got.status, got.header)
		}
	}
}

func TestDemoSessions(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.Demo = true })
	if got := w.do("POST", "/demo/session", `{"uid":"bob"}`); got.status != 200 || got.field("token") != "bob" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := w.do("POST", "/demo/session", `{"uid":"bob"}`, "Origin", "https://evil.example"); got.status != 403 {
		t.Errorf("another origin: %d", got.status)
	}
	if got := w.do("POST", "/demo/session", `{"uid":"bob"}`, "Content-Type", "text/plain"); got.status != 415 {
		t.Errorf("a form: %d", got.status)
	}
	if got := w.do("GET", "/demo?left=carol", ""); got.status != 200 || !strings.Contains(got.header.Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("page: %d %v", got.status, got.header)
	}
}

func jsonOf(t *testing.T, cmd im.Cmd, body []byte) string {
	t.Helper()
	text, err := codec(t).FromProto("hongyan.im."+bodyName(cmd), body)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatalf("not JSON: %s", text)
	}
	return string(text)
}
