package sqlstore

import (
	"fmt"

	"hongyan/das/store"
)

const (
	minPacket = 64 << 10
	// maxStatement ends a statement of many rows: a server parses each as a whole.
	maxStatement = 256 << 10
)

// script is the statements of a transaction, in as few packets as the server takes. It is
// built once and run as often as need be. The first packet begins the transaction; the last
// ends it with a SELECT, COMMIT and, if asked for, the state of the replica: who has read the
// row of that SELECT knows that whatever fails then fails at or after COMMIT.
type script struct {
	limit   int
	packets []text
	cur     text
	done    int  // end of the last whole statement in cur
	doomed  bool // a belief was seen to be wrong: the script must not run
	err     error
	scratch []byte // for a value that is quoted next
}

// newScript begins a script. Its buffer is that of an earlier one, see recycle.
func (s *Store) newScript() *script {
	sc := &script{limit: s.packet - 256} // room for the end
	if old, ok := s.buffers.Get().(*text); ok {
		sc.cur = (*old)[:0]
	}
	sc.cur.raw("BEGIN;")
	sc.done = len(sc.cur)
	return sc
}

// maxRecycled is the largest buffer that is kept.
const maxRecycled = 4 << 20

// recycle keeps the buffer of a script that is done: growing one to the size of a packet costs
// more than filling it.
func (s *Store) recycle(sc *script) {
	if buf := sc.cur; cap(buf) <= maxRecycled {
		sc.cur = nil
		s.buffers.Put(&buf)
	}
}

// end closes the statement that was written to cur.
func (sc *script) end() {
	sc.cur.raw(";")
	if len(sc.cur) > sc.limit {
		if size := len(sc.cur) - sc.done; size > sc.limit {
			sc.err = fmt.Errorf("%w: a statement of %d bytes exceeds the server's max_allowed_packet", store.ErrInvalid, size)
		}
		rest := append(text(nil), sc.cur[sc.done:]...)
		sc.packets = append(sc.packets, sc.cur[:sc.done])
		sc.cur = rest
	}
	sc.done = len(sc.cur)
}

func (sc *script) statement(q text) {
	sc.cur = append(sc.cur, q...)
	sc.end()
}

// failUnless appends a statement that fails unless cond, an expression of 0 or 1, is 1.
func (sc *script) failUnless(cond string) {
	sc.cur.raw("SELECT " + maxUint + "+(NOT " + cond + ")")
	sc.end()
}

// maxUint plus anything is out of range.
const maxUint = "18446744073709551615"

// rows appends an INSERT of n rows in as many statements as their size asks for. With
// affected, each must have affected so many rows as that tells for rows [from, to).
func (sc *script) rows(head string, n int, row func(t *text, i int), tail string, affected func(from, to int) int) {
	for from, i := 0, 0; from < n; from = i {
		start := len(sc.cur)
		sc.cur.raw(head)
		for i = from; i < n; i++ {
			if i > from {
				sc.cur.raw(",")
			}
			at := len(sc.cur)
			sc.cur.raw("(")
			row(&sc.cur, i)
			sc.cur.raw(")")
			if size := len(sc.cur) + len(tail) - start; i > from && (size > maxStatement || size > sc.limit) {
				sc.cur = sc.cur[:at-1]
				break
			}
		}
		sc.cur.raw(tail)
		sc.end()
		if affected != nil {
			sc.failUnless(fmt.Sprintf("(ROW_COUNT()=%d)", affected(from, i)))
		}
	}
}

// ready is the column of the last SELECT before COMMIT.
const ready = "ready"

// finish returns the packets. check is an expression, or empty, with the rest of its SELECT;
// it comes last before COMMIT.
func (sc *script) finish(check, from text, replicaState string) ([]text, error) {
	if len(check) == 0 {
		check.raw("1")
	}
	sc.cur.raw("SELECT ")
	sc.cur = append(sc.cur, check...)
	sc.cur.raw(" AS " + ready)
	sc.cur = append(sc.cur, from...)
	sc.end()
	sc.cur.raw("COMMIT")
	if replicaState != "" {
		sc.cur.raw(";" + replicaState)
	}
	return append(sc.packets, sc.cur), sc.err
}
