package httpentry_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hongyan/httpentry"
	"hongyan/idl/im"
)

// peer is a raw TCP connection to the server.
type peer struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (w *world) dial() *peer {
	w.t.Helper()
	c, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{w.t, c, bufio.NewReader(c)}
}

func (p *peer) write(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, s); err != nil {
		p.t.Fatal(err)
	}
}

// read one response.
func (p *peer) read() (int, string) {
	p.t.Helper()
	rsp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.t.Fatalf("no response: %v", err)
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return rsp.StatusCode, string(body)
}

func (p *peer) wantEnd() {
	p.t.Helper()
	if b, err := io.ReadAll(p.r); err != nil || len(b) > 0 {
		p.t.Fatalf("want the end of the connection, got %q, %v", b, err)
	}
}

const send = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\n"

func lengthened(body string) string {
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", send, len(body), body)
}

func textOf(t *testing.T, w *world) string {
	t.Helper()
	m := new(im.Send)
	if err := m.Unmarshal(w.logic.last().Body); err != nil {
		t.Fatal(err)
	}
	return m.Text
}

func TestOneConnectionServesManyRequests(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	for i := range 3 {
		p.write(lengthened(fmt.Sprintf(`{"to":"bob","text":"%d"}`, i)))
		if status, body := p.read(); status != 200 || textOf(t, w) != fmt.Sprint(i) {
			t.Fatalf("%d %s", status, body)
		}
	}
	p.write("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if status, _ := p.read(); status != 200 {
		t.Fatal(status)
	}
	p.wantEnd()
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	p.write(strings.Repeat("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 20) + "GET /v1/nothing HT")
	for range 20 {
		if status, body := p.read(); status != 200 || body != `{"status":"ok"}` {
			t.Fatalf("%d %s", status, body)
		}
		if status, body := p.read(); status != 200 || !strings.Contains(body, "ready") {
			t.Fatalf("%d %s", status, body)
		}
	}
	p.write("TP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := p.read(); status != 404 {
		t.Fatal(status)
	}
}

func TestABodyInManyPieces(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	text := strings.Repeat("0123456789", 20_000)
	whole := lengthened(`{"to":"bob","text":"` + text + `"}`)
	for len(whole) > 0 {
		n := min(len(whole), 7001)
		p.write(whole[:n])
		whole = whole[n:]
		time.Sleep(time.Millisecond)
	}
	if status, body := p.read(); status != 200 || textOf(t, w) != text {
		t.Fatalf("%d %s", status, body)
	}
}

func TestChunkedBody(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	p.write(send + "Transfer-Encoding: chunked\r\n\r\n")
	for _, part := range []string{`{"to":"bob",`, `"text":"hello`, ` there"}`} {
		p.write(fmt.Sprintf("%x\r\n%s\r\n", len(part), part))
	}
	p.write("0\r\n\r\n")
	if status, body := p.read(); status != 200 || textOf(t, w) != "hello there" {
		t.Fatalf("%d %s", status, body)
	}
	p.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := p.read(); status != 200 {
		t.Fatal("the connection did not go on")
	}
}

func TestExpectContinue(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	p.write(send + "Expect: 100-continue\r\nContent-Length: 24\r\n\r\n")
	if line, err := p.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = p.r.ReadString('\n')
	p.write(`{"to":"bob","text":"hi"}`)
	if status, body := p.read(); status != 200 || textOf(t, w) != "hi" {
		t.Fatalf("%d %s", status, body)
	}
	p.write(send + "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
	if status, _ := p.read(); status != 413 {
		t.Fatalf("too large: %d", status)
	}
}

// The answer to a body that is far over the limit must arrive although we read no more of it.
func TestTheRefusalOfAHugeBodyArrives(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	p.write(send + "Content-Length: 50000000\r\n\r\n")
	go func() { _, _ = io.WriteString(p.Conn, strings.Repeat("x", 1<<20)) }()
	if status, body := p.read(); status != 413 || !strings.Contains(body, "too_large") {
		t.Fatalf("%d %s", status, body)
	}
}

func TestMalformedRequests(t *testing.T) {
	w := newWorld(t, nil)
	for _, bytes := range []string{
		"hello\r\n\r\n", "GET / HTTP/1.1\n\n", "GET  / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
		send + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /healthz HTTP/1.1\r\n\r\n", // no Host
	} {
		p := w.dial()
		p.write(bytes)
		if status, body := p.read(); status != 400 {
			t.Errorf("%q: %d %s", bytes, status, body)
		}
	}
}

// P20: a request that drips in holds no goroutine, and not for long.
func TestSlowRequestsAreCut(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) {
		c.HeaderReadTimeout, c.BodyReadTimeout, c.IdleTimeout = 100*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
	})
	dripping := w.dial()
	go func() {
		for range 500 {
			if _, err := io.WriteString(dripping.Conn, "G"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	began := time.Now()
	if status, body := dripping.read(); status != 408 || !strings.Contains(body, "in time") {
		t.Fatalf("%d %s", status, body)
	}
	if took := time.Since(began); took > 4*time.Second { // 5 s by default
		t.Errorf("a dripping header was cut after %s", took)
	}
	body := w.dial()
	body.write(send + "Content-Length: 100\r\n\r\n{")
	if status, _ := body.read(); status != 408 {
		t.Errorf("half a body: %d", status)
	}
	silent := w.dial()
	silent.wantEnd()
	after := w.dial()
	after.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	after.read()
	after.wantEnd()
}

func TestConnectionsOverTheLimitAreToldSo(t *testing.T) {
	w := newWorld(t, func(c *httpentry.Config, _ *httpentry.Deps) { c.MaxConnections = 2 })
	for range 2 {
		p := w.dial()
		p.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		p.read()
	}
	p := w.dial()
	if status, _ := p.read(); status != 503 {
		t.Fatal(status)
	}
}
