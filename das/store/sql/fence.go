package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"hongyan/das/store"
)

// explain finds which beliefs of a batch were wrong after its transaction was rolled back,
// in one snapshot: the transaction itself sees its own writes and is no witness. When none is
// wrong (any more), another try may succeed.
func (s *Store) explain(ctx context.Context, conn *sql.Conn, b *store.Batch, cause error) (why string, _ error) {
	e := explanation{ctx: ctx, conn: conn, b: b}
	_, err := conn.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL "+repeatableRead+";"+s.dialect.snapshot)
	if err == nil {
		err = e.read()
	}
	if !s.rollBack(ctx, conn) {
		return whyConnection, notWritten(cause)
	}
	switch {
	case err != nil:
		return "", notWritten(fmt.Errorf("find out what was wrong with a batch (%w): %w", cause, err))
	case !e.fence.Empty():
		return "", &e.fence
	case e.misfit != nil:
		return "", fmt.Errorf("%w: rewrite of %v/%d does not fit the entry", store.ErrInvalid, e.misfit.Conv, e.misfit.Seq)
	}
	return whyRace, notWritten(cause)
}

type explanation struct {
	ctx    context.Context
	conn   *sql.Conn
	b      *store.Batch
	fence  store.FenceError
	misfit *store.Message // a rewrite
}

func (e *explanation) read() error {
	for _, part := range []func() error{e.buckets, e.convs, e.users, e.sessions, e.duplicates, e.outbox} {
		if err := part(); err != nil {
			return err
		}
	}
	if e.fence.Empty() {
		return e.rewrites()
	}
	return nil
}

// each runs a query and hands over its rows.
func (e *explanation) each(q text, scan func(*sql.Rows) error) error {
	rows, err := e.conn.QueryContext(e.ctx, string(q))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (e *explanation) buckets() error {
	if len(e.b.Buckets) == 0 {
		return nil
	}
	states := make(map[uint32]store.BucketState)
	err := e.each(text("SELECT id,epoch,open FROM bucket"), func(rows *sql.Rows) error {
		var id uint32
		var state store.BucketState
		err := rows.Scan(&id, &state.Epoch, &state.Open)
		states[id] = state
		return err
	})
	for _, f := range e.b.Buckets {
		if states[f.ID] != (store.BucketState{Epoch: f.Epoch, Open: true}) {
			e.fence.Buckets = append(e.fence.Buckets, f.ID)
		}
	}
	return err
}

// chunk is how many keys a query names.
const chunk = 256

// heads reads one number of each key that has a row.
func (e *explanation) heads(table, id, column string, keys []store.Key) (map[store.Key]uint64, error) {
	heads := make(map[store.Key]uint64, len(keys))
	for some := range slices.Chunk(keys, chunk) {
		var q text
		q.raw("SELECT tenant," + id + "," + column + " FROM " + table + " FORCE INDEX (PRIMARY) WHERE ")
		for i, k := range some {
			if i > 0 {
				q.raw(" OR ")
			}
			q.where("", id, k)
		}
		err := e.each(q, func(rows *sql.Rows) error {
			var k store.Key
			var n uint64
			err := rows.Scan(&k.Tenant, &k.ID, &n)
			heads[k] = n
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return heads, nil
}

func (e *explanation) convs() error {
	keys := make([]store.Key, len(e.b.Convs))
	for i, m := range e.b.Convs {
		keys[i] = m.Key
	}
	heads, err := e.heads("conversation", "conv", "head_seq", keys)
	for _, m := range e.b.Convs {
		if heads[m.Key] != m.From {
			e.fence.Convs = append(e.fence.Convs, m.Key)
		}
	}
	return err
}

func (e *explanation) users() error {
	keys := make([]store.Key, len(e.b.Users))
	for i, m := range e.b.Users {
		keys[i] = m.Key
	}
	heads, err := e.heads("user_head", "uid", "version", keys)
	for _, m := range e.b.Users {
		if heads[m.Key] != m.From {
			e.fence.Users = append(e.fence.Users, m.Key)
		}
	}
	return err
}

func (e *explanation) sessions() error {
	keys := make([]store.Key, len(e.b.Sessions))
	for i, m := range e.b.Sessions {
		keys[i] = m.User
	}
	heads, err := e.heads("user_head", "uid", "session_epoch", keys)
	named := make(map[store.Key]bool)
	for _, m := range e.b.Sessions {
		if heads[m.User] != m.From && !named[m.User] {
			named[m.User] = true
			e.fence.Sessions = append(e.fence.Sessions, m.User)
		}
	}
	return err
}

// dedupe is the key of client_msg_id.
type dedupe struct {
	conv       store.Key
	sender, id string
}

func dedupeOf(m *store.Message) dedupe { return dedupe{m.Conv, m.Sender, m.ClientMsgID} }

// duplicates names entries whose key is stored, or stands earlier in the batch (R03).
func (e *explanation) duplicates() error {
	stored := make(map[dedupe]bool)
	for from := 0; from < len(e.b.Messages); from += chunk {
		if err := e.stored(e.b.Messages[from:min(from+chunk, len(e.b.Messages))], stored); err != nil {
			return err
		}
	}
	for _, m := range e.b.Messages {
		k := dedupeOf(m)
		if m.ClientMsgID == "" {
			continue
		}
		if stored[k] {
			e.fence.Duplicates = append(e.fence.Duplicates, m)
		}
		stored[k] = true
	}
	return nil
}

// stored adds the keys of messages that have a row.
func (e *explanation) stored(list []*store.Message, stored map[dedupe]bool) error {
	var q text
	for _, m := range list {
		if m.ClientMsgID == "" {
			continue
		}
		if len(q) > 0 {
			q.raw(" UNION ALL ")
		}
		q.raw("SELECT tenant,conv,sender,client_msg_id FROM message WHERE ")
		q.where("", "conv", m.Conv)
		q.raw(" AND sender=")
		q.str(m.Sender)
		q.raw(" AND client_msg_id=")
		q.str(m.ClientMsgID)
	}
	if len(q) == 0 {
		return nil
	}
	return e.each(q, func(rows *sql.Rows) error {
		var k dedupe
		err := rows.Scan(&k.conv.Tenant, &k.conv.ID, &k.sender, &k.id)
		stored[k] = true
		return err
	})
}

// outbox names rows whose key is taken.
func (e *explanation) outbox() error {
	fanOut := make([]store.RowKey, len(e.b.FanOut))
	for i := range e.b.FanOut {
		fanOut[i] = e.b.FanOut[i].RowKey
	}
	deliver := make([]store.RowKey, len(e.b.Deliver))
	for i := range e.b.Deliver {
		deliver[i] = e.b.Deliver[i].RowKey
	}
	if err := e.taken("outbox_fanout", fanOut, e.b.FanOutDone, &e.fence.FanOut); err != nil {
		return err
	}
	return e.taken("outbox_deliver", deliver, e.b.DeliverDone, &e.fence.Deliver)
}

func (e *explanation) taken(table string, keys []store.RowKey, done []store.RowRange, taken *[]store.RowKey) error {
	for some := range slices.Chunk(keys, chunk) {
		q := text("SELECT owner,n FROM " + table + " WHERE ")
		for i, k := range some {
			if i > 0 {
				q.raw(" OR ")
			}
			q.raw("owner=")
			q.str(k.Owner)
			q.raw(" AND n=")
			q.uint(k.N)
		}
		err := e.each(q, func(rows *sql.Rows) error {
			var k store.RowKey
			err := rows.Scan(&k.Owner, &k.N)
			if !store.Covered(k, done) {
				*taken = append(*taken, k)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rewrites finds one whose entry does not exist or has another sender or key.
func (e *explanation) rewrites() error {
	for _, m := range e.b.Rewrites {
		fits := false
		for _, x := range e.b.Messages {
			if x.Conv == m.Conv && x.Seq == m.Seq {
				fits = x.Sender == m.Sender && x.ClientMsgID == m.ClientMsgID
			}
		}
		var q text
		q.raw("SELECT sender,IFNULL(client_msg_id,'') FROM message WHERE ")
		q.where("", "conv", m.Conv)
		q.raw(" AND seq=")
		q.uint(m.Seq)
		err := e.each(q, func(rows *sql.Rows) error {
			var sender, id string
			err := rows.Scan(&sender, &id)
			fits = sender == m.Sender && id == m.ClientMsgID
			return err
		})
		if err != nil {
			return err
		}
		if !fits {
			e.misfit = m
			return nil
		}
	}
	return nil
}
