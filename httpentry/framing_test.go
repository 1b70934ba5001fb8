package httpentry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloudwego/hertz/pkg/protocol"

	"hongyan/idl/code"
)

func newFramer() *framer { return &framer{maxHead: 1 << 10, maxBody: 4 << 10} }

func TestFramerFindsWhereARequestEnds(t *testing.T) {
	for name, whole := range map[string]string{
		"no body":           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"length":            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"length twice":      "POST / HTTP/1.1\r\nContent-Length: 2\r\ncontent-length:  2\r\n\r\nhi",
		"length 0":          "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"chunks":            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n",
		"trailer":           "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n0\r\nX: 1\r\n\r\n",
		"no headers":        "GET / HTTP/1.0\r\n\r\n",
		"line feeds within": "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n\n\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFramer()
			stream := []byte(whole + "GET /next HTTP/1.1\r\n")
			for n := range len(whole) {
				if size, err := f.scan(stream[:n]); size != 0 || err != nil {
					t.Fatalf("after %d of %d bytes: %d, %v", n, len(whole), size, err)
				}
			}
			if size, err := f.scan(stream); size != len(whole) || err != nil {
				t.Fatalf("in pieces: %d, %v; want %d", size, err, len(whole))
			}
			if size, err := newFramer().scan(stream); size != len(whole) || err != nil {
				t.Fatalf("at once: %d, %v; want %d", size, err, len(whole))
			}
		})
	}
}

// What two parsers could frame differently is refused: otherwise a request could be smuggled
// past a proxy in front.
func TestFramerRefuses(t *testing.T) {
	const post = "POST / HTTP/1.1\r\n"
	for name, c := range map[string]struct {
		bytes string
		code  code.Code
	}{
		"both framings":         {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", code.BadRequest},
		"two lengths":           {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", code.BadRequest},
		"lengths in a list":     {post + "Content-Length: 5, 5\r\n\r\n", code.BadRequest},
		"negative length":       {post + "Content-Length: -1\r\n\r\n", code.BadRequest},
		"plus":                  {post + "Content-Length: +1\r\n\r\n", code.BadRequest},
		"huge length":           {post + "Content-Length: 99999999999999999999\r\n\r\n", code.BadRequest},
		"over the limit":        {post + "Content-Length: 4097\r\n\r\n", code.TooLarge},
		"gzip, chunked":         {post + "Transfer-Encoding: gzip, chunked\r\n\r\n", code.BadRequest},
		"chunked twice":         {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", code.BadRequest},
		"space before colon":    {post + "Content-Length : 5\r\n\r\n", code.BadRequest},
		"folded":                {post + "X: a\r\n b\r\n\r\n", code.BadRequest},
		"bare line feeds":       {"POST / HTTP/1.1\nHost: x\n\n", code.BadRequest},
		"line feed in a header": {post + "X: a\nContent-Length: 5\r\n\r\n", code.BadRequest},
		"carriage return":       {post + "X: a\rb\r\n\r\n", code.BadRequest},
		"no colon":              {post + "hello\r\n\r\n", code.BadRequest},
		"HTTP/2":                {"PRI * HTTP/2.0\r\n\r\n", code.BadRequest},
		"TLS":                   {"\x16\x03\x01\x02\x00\x01\r\n\r\n", code.BadRequest},
		"four words":            {"GET / x HTTP/1.1\r\n\r\n", code.BadRequest},
		"expect":                {post + "Expect: a miracle\r\n\r\n", code.BadRequest},
		"long header":           {post + strings.Repeat("a", 1100), code.TooLarge},
		"long header, complete": {post + "X: " + strings.Repeat("a", 1100) + "\r\n\r\n", code.TooLarge},
		"chunk of nothing":      {post + "Transfer-Encoding: chunked\r\n\r\n\r\n", code.BadRequest},
		"chunk size":            {post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", code.BadRequest},
		"chunk size negative":   {post + "Transfer-Encoding: chunked\r\n\r\n-5\r\n", code.BadRequest},
		"chunk too long":        {post + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", code.BadRequest},
		"chunk, line feed":      {post + "Transfer-Encoding: chunked\r\n\r\n2\nab", code.BadRequest},
		"chunk line":            {post + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", 300), code.BadRequest},
		"chunks over the limit": {post + "Transfer-Encoding: chunked\r\n\r\n1001\r\n", code.TooLarge},
		"long trailer":          {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 200)+"\r\n", 25), code.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if size, err := newFramer().scan([]byte(c.bytes)); size != 0 || code.Of(err) != c.code {
				t.Fatalf("%d, %v; want %s", size, err, c.code)
			}
		})
	}
}

func TestFramerSeesWhatAConnectionMustKnow(t *testing.T) {
	f := newFramer()
	_, err := f.scan([]byte("GET /v1/ws?x=1 HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"))
	if err != nil || !f.head.upgrade || f.head.path != "/v1/ws" || f.head.method != "GET" {
		t.Errorf("upgrade: %+v, %v", f.head, err)
	}
	f = newFramer()
	size, err := f.scan([]byte("POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"))
	if err != nil || size != 0 || !f.head.expect || !f.head.deferred {
		t.Errorf("expect: %+v, %v", f.head, err)
	}
}

// FuzzFramer: however the bytes are cut, the same request is found, and the parser behind
// takes it off whole.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), 7)
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x80"), 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		step = max(1, step%64)
		size, err := newFramer().scan(b)
		if size < 0 || size > len(b) || (err != nil && size != 0) {
			t.Fatalf("size %d of %d, %v", size, len(b), err)
		}
		in := newFramer()
		var got int
		var gotErr error
		for n := step; got == 0 && gotErr == nil; n += step {
			got, gotErr = in.scan(b[:min(n, len(b))])
			if n >= len(b) {
				break
			}
		}
		if got != size || (err == nil) != (gotErr == nil) {
			t.Fatalf("at once %d, %v; in steps of %d: %d, %v", size, err, step, got, gotErr)
		}
		if size == 0 {
			return
		}
		var r protocol.Request
		if err := readRequest(&r, b[:size], 4<<10); err == nil && len(r.Body()) > size {
			t.Fatal(fmt.Errorf("a body of %d in a request of %d", len(r.Body()), size))
		}
	})
}
