package httpentry

import (
	"io"
	"net"
	"sync"
)

// byteReader is a request in memory as hertz reads it (network.Reader). Nothing is copied.
type byteReader struct{ b []byte }

func (r *byteReader) Peek(n int) ([]byte, error) {
	if n > len(r.b) {
		return r.b, io.EOF
	}
	return r.b[:n], nil
}

func (r *byteReader) Skip(n int) error {
	if n > len(r.b) {
		return io.EOF
	}
	r.b = r.b[n:]
	return nil
}

func (r *byteReader) ReadByte() (byte, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c, nil
}

func (r *byteReader) ReadBinary(n int) ([]byte, error) {
	p, err := r.Peek(n)
	if err != nil {
		return nil, err
	}
	r.b = r.b[n:]
	return append([]byte(nil), p...), nil
}

func (r *byteReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func (r *byteReader) Len() int       { return len(r.b) }
func (r *byteReader) Release() error { return nil }

// byteWriter gathers a response as hertz writes it (network.Writer), so that it leaves with
// one system call.
type byteWriter struct{ b []byte }

func (w *byteWriter) Malloc(n int) ([]byte, error) {
	at := len(w.b)
	w.b = append(w.b, make([]byte, n)...)
	return w.b[at:], nil
}

func (w *byteWriter) WriteBinary(b []byte) (int, error) {
	w.b = append(w.b, b...)
	return len(b), nil
}

func (w *byteWriter) Write(b []byte) (int, error) { return w.WriteBinary(b) }
func (w *byteWriter) Flush() error                { return nil }

// maxKeptBuffer is the largest buffer worth keeping for the next response.
const maxKeptBuffer = 64 << 10

// bufferPool lends byteWriters. What a writer was given is copied by the kernel or into its
// queue, so a buffer is free again as soon as it was written.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *byteWriter {
	if w, ok := p.pool.Get().(*byteWriter); ok {
		w.b = w.b[:0]
		return w
	}
	return &byteWriter{b: make([]byte, 0, 1024)}
}

func (p *bufferPool) put(w *byteWriter) {
	if cap(w.b) <= maxKeptBuffer {
		p.pool.Put(w)
	}
}

// hostOf is the IP of an address, without the port.
func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
