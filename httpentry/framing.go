package httpentry

import (
	"bytes"
	"strconv"

	"hongyan/idl/code"
)

// framer finds where one HTTP/1 request ends in the bytes received so far. It decides
// nothing else: a request is handed on whole, so that a client that sends half of one holds
// a buffer of bounded size and no goroutine. It is resumed after each read and looks at no
// byte of a head twice.
//
// It is stricter than the parser behind it: what two parsers could frame differently
// (Content-Length beside Transfer-Encoding, two lengths, bare line feeds, folded headers) is
// refused, because a proxy in front may have framed it the other way.
type framer struct {
	maxHead, maxBody int

	searched int  // bytes of the head already searched for its end
	head     head // valid once head.size > 0
	next     int  // chunked: where the next chunk header starts
	body     int  // chunked: payload bytes so far
}

// head is what a connection must know of a request before the rest of it has arrived.
type head struct {
	size     int // request line, headers and blank line, in bytes
	method   string
	path     string // of the target, undecoded, without the query
	length   int    // of the body; -1 = chunked
	upgrade  bool   // asks for a WebSocket
	expect   bool   // wants 100 Continue before it sends the body
	deferred bool   // the body has not arrived with the head
}

// scan looks at everything received of a request. size > 0: the first size bytes are the
// whole of it. size == 0 and no error: more is needed. An error is final for the connection.
func (f *framer) scan(buf []byte) (size int, err error) {
	if f.head.size == 0 {
		done, err := f.scanHead(buf)
		if err != nil || !done {
			return 0, err
		}
	}
	if f.head.length >= 0 {
		size = f.head.size + f.head.length
		f.head.deferred = len(buf) < size
		if f.head.deferred {
			return 0, nil
		}
		return size, nil
	}
	size, err = f.scanChunks(buf)
	f.head.deferred = size == 0
	return size, err
}

// reset makes the framer ready for the next request of the connection.
func (f *framer) reset() { *f = framer{maxHead: f.maxHead, maxBody: f.maxBody} }

var headEnd = []byte("\r\n\r\n")

func (f *framer) scanHead(buf []byte) (done bool, err error) {
	from := max(0, f.searched-len(headEnd)+1)
	i := bytes.Index(buf[from:], headEnd)
	if i < 0 {
		f.searched = len(buf)
		if len(buf) > f.maxHead {
			return false, code.Errorf(code.TooLarge, "the request's header is over %d bytes", f.maxHead)
		}
		if bytes.Contains(buf[from:], []byte("\n\n")) {
			return false, code.Errorf(code.BadRequest, "lines of a request end with CR LF")
		}
		return false, nil
	}
	end := from + i + len(headEnd)
	if end > f.maxHead {
		return false, code.Errorf(code.TooLarge, "the request's header is over %d bytes", f.maxHead)
	}
	h, err := parseHead(buf[:end-2])
	if err != nil {
		return false, err
	}
	if h.length > f.maxBody {
		return false, tooLargeBody(f.maxBody)
	}
	h.size = end
	f.head, f.next = h, end
	return true, nil
}

func tooLargeBody(limit int) error {
	return code.Errorf(code.TooLarge, "the request's body is over %d bytes", limit)
}

// parseHead reads the request line and the headers that say how the request is framed. b
// ends with the CR LF of the last line.
func parseHead(b []byte) (head, error) {
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	var h head
	if err := parseRequestLine(line, &h); err != nil {
		return head{}, err
	}
	var framing framingHeaders
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.ContainsAny(line, "\r\n\x00"):
			return head{}, code.Errorf(code.BadRequest, "a header line holds a control character")
		case !ok || len(name) == 0 || bytes.ContainsAny(name, " \t"):
			return head{}, code.Errorf(code.BadRequest, "a header line is not of the form name: value")
		}
		if err := framing.add(name, bytes.Trim(value, " \t")); err != nil {
			return head{}, err
		}
	}
	return h, framing.apply(&h)
}

func parseRequestLine(line []byte, h *head) error {
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 3 || len(parts[0]) == 0 || len(parts[1]) == 0 || bytes.ContainsAny(line, "\r\n\x00") {
		return code.Errorf(code.BadRequest, "the request line is not of the form METHOD target HTTP/1.1")
	}
	if v := string(parts[2]); v != "HTTP/1.1" && v != "HTTP/1.0" {
		return code.Errorf(code.BadRequest, "the protocol is not HTTP/1.1 or HTTP/1.0")
	}
	path, _, _ := bytes.Cut(parts[1], []byte("?"))
	h.method, h.path = string(parts[0]), string(path)
	return nil
}

// framingHeaders gathers the headers that decide where a request ends.
type framingHeaders struct {
	lengths    int // how many Content-Length headers
	length     int
	chunked    bool
	upgrade    bool // Upgrade: websocket
	connection bool // Connection: upgrade
	expect     bool
}

func (f *framingHeaders) add(name, value []byte) error {
	switch {
	case equalFold(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil {
			return code.Errorf(code.BadRequest, "Content-Length is not a number below 2^31")
		}
		if f.lengths > 0 && int(n) != f.length {
			return code.Errorf(code.BadRequest, "two different Content-Length headers")
		}
		f.lengths, f.length = f.lengths+1, int(n)
	case equalFold(name, "transfer-encoding"):
		if !equalFold(value, "chunked") || f.chunked {
			return code.Errorf(code.BadRequest, "the only Transfer-Encoding understood is chunked, once")
		}
		f.chunked = true
	case equalFold(name, "expect"):
		if !equalFold(value, "100-continue") {
			return code.Errorf(code.BadRequest, "the only Expect understood is 100-continue")
		}
		f.expect = true
	case equalFold(name, "upgrade"):
		f.upgrade = f.upgrade || equalFold(value, "websocket")
	case equalFold(name, "connection"):
		for token := range bytes.SplitSeq(value, []byte(",")) {
			f.connection = f.connection || equalFold(bytes.TrimSpace(token), "upgrade")
		}
	}
	return nil
}

func (f *framingHeaders) apply(h *head) error {
	if f.chunked && f.lengths > 0 {
		return code.Errorf(code.BadRequest, "both Content-Length and Transfer-Encoding")
	}
	h.length = f.length
	if f.chunked {
		h.length = -1
	}
	h.upgrade = f.upgrade && f.connection && h.length == 0
	h.expect = f.expect && h.length != 0
	return nil
}

func equalFold(b []byte, lower string) bool {
	return len(b) == len(lower) && bytes.EqualFold(b, []byte(lower))
}

// maxChunkLine bounds a chunk's size line with its extensions, and a trailer line.
const maxChunkLine = 256

// maxTrailer bounds all trailer lines together.
const maxTrailer = 4096

// scanChunks walks over the chunks that are there. size is where the request ends, 0 while
// it has not ended.
func (f *framer) scanChunks(buf []byte) (size int, err error) {
	for {
		line, after, err := chunkLine(buf, f.next)
		if err != nil || after == 0 {
			return 0, err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(digits, " \t")), 16, 31)
		if err != nil {
			return 0, code.Errorf(code.BadRequest, "a chunk does not start with its size")
		}
		if n == 0 {
			return scanTrailer(buf, after)
		}
		if f.body+int(n) > f.maxBody {
			return 0, tooLargeBody(f.maxBody)
		}
		end := after + int(n)
		if len(buf) < end+2 {
			return 0, nil
		}
		if buf[end] != '\r' || buf[end+1] != '\n' {
			return 0, code.Errorf(code.BadRequest, "a chunk is longer than its size")
		}
		f.body, f.next = f.body+int(n), end+2
	}
}

// scanTrailer finds the blank line that ends a chunked request, from is where the trailer starts.
func scanTrailer(buf []byte, from int) (size int, err error) {
	for at := from; ; {
		line, after, err := chunkLine(buf, at)
		if err != nil || after == 0 {
			return 0, err
		}
		if len(line) == 0 {
			return after, nil
		}
		if after-from > maxTrailer {
			return 0, code.Errorf(code.TooLarge, "the request's trailer is over %d bytes", maxTrailer)
		}
		at = after
	}
}

// chunkLine returns the line at from without its CR LF, and where the next one starts: 0
// while the line is not complete.
func chunkLine(buf []byte, from int) (line []byte, after int, err error) {
	i := bytes.IndexByte(buf[from:], '\n')
	switch {
	case i < 0 && len(buf)-from > maxChunkLine, i > maxChunkLine:
		return nil, 0, code.Errorf(code.BadRequest, "a chunk's size line is over %d bytes", maxChunkLine)
	case i < 0:
		return nil, 0, nil
	case i == 0 || buf[from+i-1] != '\r':
		return nil, 0, code.Errorf(code.BadRequest, "lines of a chunked body end with CR LF")
	}
	return buf[from : from+i-1], from + i + 1, nil
}
