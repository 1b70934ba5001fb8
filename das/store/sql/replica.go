package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"hongyan/das/store"
)

// errNoReplica: the commit is done, but nobody can say that a replica has it (R20).
var errNoReplica = errors.New("the database did not confirm that commits wait for a replica")

// replicaState is what a server says of its commits: whether they wait for a replica, and how
// often since its start they have ceased to. Switching semi-sync off, a timeout and a shutdown
// all end the wait of those under way with OK, and all are counted.
type replicaState struct {
	on   bool
	offs uint64
}

// read takes a row of dialect.replicaState.
func (r *replicaState) read(d *dialect, name, value []byte) (err error) {
	switch string(name) {
	case d.replicaOn:
		r.on = string(value) == "ON"
	case d.replicaOffs:
		r.offs, err = strconv.ParseUint(string(value), 10, 64)
	}
	return err
}

// waits tells that nothing counts as committed before a replica has it, and that the server
// has to be asked.
func (s *Store) waits() bool { return s.cfg.RequireReplica && s.dialect.replicaState != "" }

// confirmed tells whether a commit was answered because a replica has it: commits wait when it
// is over, and have not ceased to since the store last asked, which was before its COMMIT. A
// server that has restarted counts from 0: that costs its first commit the proof.
func (s *Store) confirmed(after replicaState, offs uint64) bool {
	if !s.waits() {
		return true
	}
	s.offs.Store(after.offs)
	return after.on && after.offs == offs
}

// askReplica asks for the state by itself.
func (s *Store) askReplica(ctx context.Context) (state replicaState, err error) {
	rows, err := s.reads.QueryContext(ctx, s.dialect.replicaState)
	if err != nil {
		return state, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value sql.RawBytes
		if err := rows.Scan(&name, &value); err != nil {
			return state, err
		}
		if err := state.read(s.dialect, name, value); err != nil {
			return state, err
		}
	}
	s.offs.Store(state.offs)
	return state, rows.Err()
}

// Barrier implements store.Barrier: it writes a row and returns when that is committed cleanly,
// on the replica too with RequireReplica. Then everything that was visible before the call is
// there as well, whoever committed it, and may be acked or pushed (R19). Without RequireReplica
// it has nothing to prove and returns at once.
func (s *Store) Barrier(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	if !s.waits() {
		return ctx.Err()
	}
	var q text
	q.raw("INSERT INTO barrier (id,n) VALUES (")
	q.uint(s.barriers.Add(1) % 16)
	q.raw(",1) ON DUPLICATE KEY UPDATE n=n+1")
	sc := s.newScript()
	sc.statement(q)
	if err := s.execute(ctx, s.writes, work{script: sc}); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// Role tells what this server is now: a primary takes writes and has the highest epoch of all
// servers of its database.
func (s *Store) Role(ctx context.Context) (r store.Role, err error) {
	if s.closed.Load() {
		return r, store.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	var readOnly bool
	// MariaDB shows every variable as 0 beside an aggregate: hence a SELECT of its own.
	q := "SELECT " + s.dialect.readOnly + ",(SELECT IFNULL(MAX(epoch),0) FROM bucket)"
	if err := s.reads.QueryRowContext(ctx, q).Scan(&readOnly, &r.Epoch); err != nil {
		return r, fmt.Errorf("ask the database for its role: %w", err)
	}
	r.Writable = !readOnly && r.Epoch > 0
	return r, nil
}
