package sqlstore

import (
	"strconv"

	"hongyan/das/store"
)

// text is SQL under construction. Every value goes through its methods, none is ever
// formatted in: a session has the character set binary and backslash escapes (session.go), so
// that quoting is a matter of single bytes and any bytes are legal.
type text []byte

func (t *text) raw(s string) { *t = append(*t, s...) }

// str appends a quoted string of any bytes.
func (t *text) str(s string) { *t = quote(*t, s) }

func (t *text) bytes(b []byte) { *t = quote(*t, b) }

// strOrNull is str, but NULL for the empty string.
func (t *text) strOrNull(s string) {
	if s == "" {
		t.raw("NULL")
		return
	}
	t.str(s)
}

func (t *text) bytesOrNull(b []byte) {
	if len(b) == 0 {
		t.raw("NULL")
		return
	}
	t.bytes(b)
}

func (t *text) uint(n uint64) { *t = strconv.AppendUint(*t, n, 10) }
func (t *text) int(n int64)   { *t = strconv.AppendInt(*t, n, 10) }

func (t *text) flag(on bool) {
	if on {
		t.raw("1")
		return
	}
	t.raw("0")
}

// key appends bucket, tenant and id as values of a row.
func (t *text) key(k store.Key) {
	t.uint(uint64(k.Bucket()))
	t.raw(",")
	t.str(k.Tenant)
	t.raw(",")
	t.str(k.ID)
}

// where appends a condition that holds for the rows of a key. table is empty or ends in a
// dot; id is the column of the key's ID.
func (t *text) where(table, id string, k store.Key) {
	t.raw(table + "bucket=")
	t.uint(uint64(k.Bucket()))
	t.raw(" AND " + table + "tenant=")
	t.str(k.Tenant)
	t.raw(" AND " + table + id + "=")
	t.str(k.ID)
}

// uints appends values of a row, each behind a comma.
func (t *text) uints(list ...uint64) {
	for _, n := range list {
		t.raw(",")
		t.uint(n)
	}
}

// strs appends values of a row, each behind a comma.
func (t *text) strs(list ...string) {
	for _, s := range list {
		t.raw(",")
		t.str(s)
	}
}

// limit appends a LIMIT clause, none for 0.
func (t *text) limit(n int) {
	if n > 0 {
		t.raw(" LIMIT ")
		t.int(int64(n))
	}
}

func quote[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '\'')
	start := 0
	for i := range len(s) {
		esc := escapes[s[i]]
		if esc == 0 {
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, '\\', esc)
		start = i + 1
	}
	dst = append(dst, s[start:]...)
	return append(dst, '\'')
}

// escapes are the letters behind a backslash for bytes that may not stand as they are.
var escapes = [256]byte{0: '0', '\n': 'n', '\r': 'r', 0x1a: 'Z', '\'': '\'', '"': '"', '\\': '\\'}
