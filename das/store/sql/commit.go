package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-sql-driver/mysql"

	"hongyan/das/store"
)

// ErrNotWritten is wrapped by errors of commits of which it is certain that nothing was
// written. All other errors are unknown outcomes.
var ErrNotWritten = store.ErrNotWritten

func notWritten(err error) error { return fmt.Errorf("%w: %w", ErrNotWritten, err) }

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return store.ErrClosed
	}
	if err := b.Validate(); err != nil {
		return err
	}
	pool := s.writes
	if b.Lazy() && len(b.Buckets) == 0 {
		if len(b.FanOutDone)+len(b.DeliverDone)+len(b.Cursors)+len(b.Woken) == 0 {
			return nil
		}
		pool = s.lazy
	}
	w := work{script: s.scriptOf(b)}
	w.check, w.from = bucketCheck(b.Buckets, s.dialect.share)
	w.explain = func(ctx context.Context, conn *sql.Conn, cause error) (string, error) {
		return s.explain(ctx, conn, b, cause)
	}
	defer s.recycle(w.script)
	return s.execute(ctx, pool, w)
}

// work is a script with what it stands on.
type work struct {
	script *script
	// check is an expression that fails unless the buckets are as they must be, with the rest of
	// its SELECT; empty: any will do.
	check, from text
	// explain settles a transaction, rolled back by now, of which an assertion failed: it tells
	// what was wrong, or why another try may succeed. nil: there is no assertion.
	explain func(ctx context.Context, conn *sql.Conn, cause error) (why string, err error)
}

// execute runs a script until it is committed, or known to have failed, or nobody knows.
func (s *Store) execute(ctx context.Context, pool *sql.DB, w work) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CommitTimeout)
	defer cancel()
	state := ""
	if s.cfg.RequireReplica {
		state = s.dialect.replicaState
	}
	packets, err := w.script.finish(w.check, w.from, state)
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		why, err := s.attempt(ctx, pool, packets, w)
		if why == "" || try >= s.cfg.Repeats {
			return err
		}
		s.metrics.repeats.WithLabelValues(why).Inc()
		s.log.Debug("a commit is tried again", "why", why, "err", err)
		if !pause(ctx, try) {
			return err
		}
	}
}

// pause waits a little longer each time, false when ctx ends first.
func pause(ctx context.Context, try int) bool {
	t := time.NewTimer(time.Duration(1+rand.IntN(4<<min(try, 6))) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Why a commit is repeated: nothing was written, and the next try may do better.
const (
	whyConflict   = "conflict"   // lost against another transaction
	whyConnection = "connection" // a pooled connection was dead
	whyRace       = "race"       // a belief was wrong, but no longer is
)

// attempt runs the packets once. It returns nil when they are committed, and otherwise why
// they may be tried again, if they may.
func (s *Store) attempt(ctx context.Context, pool *sql.DB, packets []text, w work) (why string, err error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return "", notWritten(fmt.Errorf("connect: %w", err))
	}
	defer conn.Close()
	if w.script.doomed {
		return w.explain(ctx, conn, errors.New("beliefs contradict each other"))
	}
	for _, p := range packets[:len(packets)-1] {
		if _, err := conn.ExecContext(ctx, string(p)); err != nil {
			return s.failed(ctx, conn, err, w) // without a COMMIT nothing can have been written
		}
	}
	offs := s.offs.Load()
	out, err := s.run(ctx, conn, packets[len(packets)-1])
	switch server := (*mysql.MySQLError)(nil); {
	case err == nil && s.confirmed(out.replica, offs):
		return "", nil
	case err == nil:
		err = errNoReplica
	case errors.Is(err, driver.ErrBadConn) && len(packets) == 1: // not a byte was sent
		return whyConnection, notWritten(err)
	case !out.ready && errors.As(err, &server):
		return s.failed(ctx, conn, err, w)
	}
	discard(conn)
	s.metrics.unknown.WithLabelValues().Inc()
	return "", fmt.Errorf("unknown outcome of a commit: %w", err)
}

// answer is what the last packet told.
type answer struct {
	ready   bool // everything before COMMIT is done
	replica replicaState
}

// run sends a packet and reads its rows.
func (s *Store) run(ctx context.Context, conn *sql.Conn, p text) (a answer, err error) {
	rows, err := conn.QueryContext(ctx, string(p))
	if err != nil {
		return a, err
	}
	defer rows.Close()
	for more := true; more; more = rows.NextResultSet() {
		columns, err := rows.Columns()
		if err != nil {
			return a, err
		}
		for rows.Next() {
			var name, value sql.RawBytes
			switch len(columns) {
			case 1:
				err = rows.Scan(&name)
			case 2:
				if err = rows.Scan(&name, &value); err == nil {
					err = a.replica.read(s.dialect, name, value)
				}
			}
			if err != nil {
				return a, err
			}
		}
		if err := rows.Err(); err != nil {
			return a, err
		}
		a.ready = a.ready || len(columns) == 1 && columns[0] == ready
	}
	return a, rows.Err()
}

// failed settles a transaction that ended before its COMMIT was reached.
func (s *Store) failed(ctx context.Context, conn *sql.Conn, err error, w work) (why string, _ error) {
	var server *mysql.MySQLError
	if !errors.As(err, &server) { // the connection is gone, and the server rolls back
		discard(conn)
		return "", notWritten(err)
	}
	if !s.rollBack(ctx, conn) {
		return whyConnection, notWritten(err)
	}
	switch {
	case s.dialect.conflicts[server.Number]:
		return whyConflict, notWritten(err)
	case w.explain != nil && (server.Number == errOutOfRange || server.Number == errDuplicate):
		return w.explain(ctx, conn, err)
	}
	return "", notWritten(err)
}

// rollBack ends the transaction of a connection; one that cannot is thrown away, which
// ends it too.
func (s *Store) rollBack(ctx context.Context, conn *sql.Conn) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ReadTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		discard(conn)
		return false
	}
	return true
}

// discard keeps a connection from returning to its pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the error is the request
}
