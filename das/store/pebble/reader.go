package pebblestore

import (
	"encoding/binary"
	"errors"
)

var errCorrupt = errors.New("corrupt row")

// reader takes a value apart. After the first mistake it is failed and yields zeros, so a
// decoder checks once, at its end; it never panics and never allocates for a length that
// the value does not have.
type reader struct {
	b      []byte
	s      string // the same bytes: what is cut from it shares one allocation
	failed bool
}

// newReader checks the version byte that begins every value.
func newReader(b []byte, version byte) reader {
	if len(b) == 0 || b[0] != version {
		return reader{failed: true}
	}
	return reader{b: b[1:], s: string(b[1:])}
}

func (r *reader) fail() { *r = reader{failed: true} }

func (r *reader) skip(n int) {
	r.b, r.s = r.b[n:], r.s[n:]
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.skip(1)
	return c
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.skip(size)
	return n
}

func (r *reader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(r.b)
	r.skip(8)
	return n
}

// count is the number of elements that follow, each of at least one byte.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count()
	s := r.s[:n]
	r.skip(n)
	return s
}

func (r *reader) bytes() []byte {
	n := r.count()
	if n == 0 {
		return nil
	}
	b := append([]byte(nil), r.b[:n]...)
	r.skip(n)
	return b
}

// end tells whether the value was whole and nothing is left of it.
func (r *reader) end() error {
	if r.failed || len(r.b) > 0 {
		return errCorrupt
	}
	return nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}
