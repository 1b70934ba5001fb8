package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"hongyan/das/store"
)

// view is a transaction that reads one snapshot. Each read is one round trip: a statement
// with its values in it, which no connection has to prepare first.
type view struct {
	s      *Store
	ctx    context.Context // of View, with the store's own bound
	cancel context.CancelFunc
	conn   *sql.Conn
	closed bool
	err    error // of a read: the snapshot is lost
}

// View implements store.Store. The view ends with ctx.
func (s *Store) View(ctx context.Context) (store.View, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (s *Store) view(ctx context.Context) (*view, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	conn, err := s.reads.Conn(ctx)
	if err == nil {
		if _, err = conn.ExecContext(ctx, s.dialect.snapshot); err != nil {
			discard(conn)
		}
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a view: %w", err)
	}
	return &view{s: s, ctx: ctx, cancel: cancel, conn: conn}, nil
}

// Close implements store.View.
func (v *view) Close() {
	if v.closed {
		return
	}
	v.closed = true
	if v.err != nil || v.ctx.Err() != nil {
		discard(v.conn)
	} else {
		v.s.rollBack(v.ctx, v.conn)
	}
	v.cancel()
	_ = v.conn.Close() // it was ended or discarded already
}

// read runs a query and makes a T of each row.
func read[T any](v *view, q text, scan func(*sql.Rows) (T, error)) (list []T, err error) {
	if v.closed || v.s.closed.Load() {
		return nil, store.ErrClosed
	}
	if v.err != nil {
		return nil, v.err
	}
	defer func() {
		if err != nil {
			list, v.err = nil, fmt.Errorf("read: %w", err)
			err = v.err
		}
	}()
	rows, err := v.conn.QueryContext(v.ctx, string(q))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, rows.Err()
}

// one is read for a query of at most one row. ok tells whether there was one.
func one[T any](v *view, q text, scan func(*sql.Rows) (T, error)) (row T, ok bool, err error) {
	list, err := read(v, q, scan)
	if len(list) == 0 {
		return row, false, err
	}
	return list[0], true, nil
}

// need is one for a row that must be there.
func need[T any](v *view, q text, scan func(*sql.Rows) (T, error)) (T, error) {
	row, ok, err := one(v, q, scan)
	if err == nil && !ok {
		err = store.ErrNotFound
	}
	return row, err
}

// query begins a SELECT of the rows of a key.
func query(columns, table, id string, k store.Key) (q text) {
	q.raw("SELECT " + columns + " FROM " + table + " WHERE ")
	q.where("", id, k)
	return q
}

func (v *view) Bucket(id uint32) (store.BucketState, error) {
	var q text
	q.raw("SELECT epoch,open FROM bucket WHERE id=")
	q.uint(uint64(id))
	return need(v, q, func(rows *sql.Rows) (b store.BucketState, err error) {
		return b, rows.Scan(&b.Epoch, &b.Open)
	})
}

func (v *view) Conv(k store.Key) (store.ConvHead, error) {
	q := query("head_seq,head_ord,flags,own", "conversation", "conv", k)
	head, _, err := one(v, q, func(rows *sql.Rows) (h store.ConvHead, err error) {
		var own sql.RawBytes
		if err := rows.Scan(&h.Seq, &h.Ord, &h.Flags, &own); err != nil {
			return h, err
		}
		h.Own, err = decodeOwn(own)
		return h, err
	})
	return head, err
}

func (v *view) User(k store.Key) (store.UserHead, error) {
	q := query("version,woken", "user_head", "uid", k)
	head, _, err := one(v, q, func(rows *sql.Rows) (h store.UserHead, err error) {
		return h, rows.Scan(&h.Version, &h.Woken)
	})
	return head, err
}

const selectMessage = "m.seq,m.sender,IFNULL(m.client_msg_id,''),m.body_hash,m.kind,m.text,m.data,m.created_ms,m.ord,m.own_ord,m.mod_seq,m.recalled,m.target_seq"

func (v *view) messages(conv store.Key, q text) ([]*store.Message, error) {
	return read(v, q, scanMessage(conv))
}

func scanMessage(conv store.Key) func(*sql.Rows) (*store.Message, error) {
	conv = conv.Clone()
	return func(rows *sql.Rows) (*store.Message, error) {
		m := &store.Message{Conv: conv}
		return m, rows.Scan(&m.Seq, &m.Sender, &m.ClientMsgID, &m.BodyHash, &m.Kind, &m.Text, &m.Data, &m.CreatedMS,
			&m.Ord, &m.OwnOrd, &m.ModSeq, &m.Recalled, &m.TargetSeq)
	}
}

func (v *view) Message(conv store.Key, seq uint64) (*store.Message, error) {
	q := query(selectMessage, "message m", "conv", conv)
	q.raw(" AND seq=")
	q.uint(seq)
	return need(v, q, scanMessage(conv))
}

func (v *view) Range(conv store.Key, from, to uint64, limit int) ([]*store.Message, error) {
	q := query(selectMessage, "message m", "conv", conv)
	q.raw(" AND seq BETWEEN ")
	q.uint(from)
	q.raw(" AND ")
	q.uint(to)
	q.raw(" ORDER BY seq")
	q.limit(limit)
	return v.messages(conv, q)
}

func (v *view) Last(conv store.Key, before uint64, limit int) ([]*store.Message, error) {
	q := query(selectMessage, "message m", "conv", conv)
	if before > 0 {
		q.raw(" AND seq<")
		q.uint(before)
	}
	q.raw(" ORDER BY seq DESC")
	q.limit(limit)
	list, err := v.messages(conv, q)
	slices.Reverse(list)
	return list, err
}

// Modified follows the places that entries were rewritten at; an entry that was rewritten
// again has left the older ones.
func (v *view) Modified(conv store.Key, after uint64, limit int) ([]*store.Message, error) {
	var q text
	q.raw("SELECT " + selectMessage + " FROM modified x STRAIGHT_JOIN message m" +
		" ON m.bucket=x.bucket AND m.tenant=x.tenant AND m.conv=x.conv AND m.seq=x.seq AND m.mod_seq=x.mod_seq WHERE ")
	q.where("x.", "conv", conv)
	q.raw(" AND x.mod_seq>")
	q.uint(after)
	q.raw(" ORDER BY x.mod_seq,x.seq")
	q.limit(limit)
	return v.messages(conv, q)
}

func (v *view) ByClientID(conv store.Key, sender, clientMsgID string) (*store.Message, error) {
	q := query(selectMessage, "message m", "conv", conv)
	q.raw(" AND sender=")
	q.str(sender)
	q.raw(" AND client_msg_id=")
	q.strOrNull(clientMsgID) // = NULL finds nothing
	return need(v, q, scanMessage(conv))
}
