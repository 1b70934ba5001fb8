package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"hongyan/das/store"
)

// SetBucket implements store.Movable.
func (s *Store) SetBucket(ctx context.Context, id uint32, state store.BucketState) error {
	if err := s.SetBuckets(ctx, map[uint32]store.BucketState{id: state}); err != nil {
		return fmt.Errorf("write bucket %d: %w", id, err)
	}
	return nil
}

// SetBuckets is SetBucket for many, in one commit: all of them or none.
func (s *Store) SetBuckets(ctx context.Context, states map[uint32]store.BucketState) error {
	ids := slices.Sorted(maps.Keys(states))
	for _, id := range ids {
		if err := s.askedFor(id); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return nil
	}
	q := text("INSERT INTO bucket (id,epoch,open) VALUES ")
	for i, id := range ids {
		if i > 0 {
			q.raw(",")
		}
		q.raw("(")
		q.uint(uint64(id))
		q.uints(states[id].Epoch)
		q.raw(",")
		q.flag(states[id].Open)
		q.raw(")")
	}
	q.raw(" ON DUPLICATE KEY UPDATE epoch=VALUES(epoch),open=VALUES(open)")
	sc := s.newScript()
	sc.statement(q)
	return s.execute(ctx, s.writes, work{script: sc})
}

// RaiseEpochs lifts the epoch of every bucket to at least epoch: devices compare what they hold
// (R18). It returns when that survives the primary.
func (s *Store) RaiseEpochs(ctx context.Context, epoch uint64) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	q := text("UPDATE bucket SET epoch=GREATEST(epoch,")
	q.uint(epoch)
	q.raw(")")
	sc := s.newScript()
	sc.statement(q)
	if err := s.execute(ctx, s.writes, work{script: sc}); err != nil {
		return fmt.Errorf("raise the epochs: %w", err)
	}
	return nil
}

func (s *Store) askedFor(bucket uint32) error {
	switch {
	case s.closed.Load():
		return store.ErrClosed
	case bucket >= store.Buckets:
		return fmt.Errorf("%w: bucket %d", store.ErrInvalid, bucket)
	}
	return nil
}

// pageAfter ends a SELECT of rows of a bucket: those behind a key, in the order of keys.
func pageAfter(q *text, id string, bucket uint32, after store.Key, limit int) {
	q.raw(" WHERE bucket=")
	q.uint(uint64(bucket))
	q.raw(" AND (tenant>")
	q.str(after.Tenant)
	q.raw(" OR tenant=")
	q.str(after.Tenant)
	q.raw(" AND " + id + ">")
	q.str(after.ID)
	q.raw(") ORDER BY tenant," + id)
	q.limit(limit)
}

// BucketConvs implements store.Movable.
func (s *Store) BucketConvs(ctx context.Context, bucket uint32, after store.Key, limit int) ([]store.ConvCopy, error) {
	if err := s.askedFor(bucket); err != nil {
		return nil, err
	}
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	q := text("SELECT tenant,conv,head_seq,head_ord,flags,own FROM conversation")
	pageAfter(&q, "conv", bucket, after, limit)
	return read(v, q, func(rows *sql.Rows) (c store.ConvCopy, err error) {
		var own sql.RawBytes
		if err := rows.Scan(&c.Key.Tenant, &c.Key.ID, &c.Head.Seq, &c.Head.Ord, &c.Head.Flags, &own); err != nil {
			return c, err
		}
		c.Head.Own, err = decodeOwn(own)
		return c, err
	})
}

// BucketUsers implements store.Movable.
func (s *Store) BucketUsers(ctx context.Context, bucket uint32, after store.Key, limit int) ([]store.UserCopy, error) {
	if err := s.askedFor(bucket); err != nil {
		return nil, err
	}
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	users, err := read(v, usersPage(bucket, after, limit), func(rows *sql.Rows) (c store.UserCopy, err error) {
		return c, rows.Scan(&c.Key.Tenant, &c.Key.ID)
	})
	if err != nil {
		return nil, err
	}
	for some := range slices.Chunk(users, chunk) {
		if err := v.fill(some); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// usersPage selects the users that have a row of any kind; a member row comes with a head row.
func usersPage(bucket uint32, after store.Key, limit int) (q text) {
	for i, table := range [...]string{"user_head", "device", "session", "push"} {
		if i > 0 {
			q.raw(" UNION ")
		}
		q.raw("(SELECT DISTINCT tenant,uid FROM " + table)
		pageAfter(&q, "uid", bucket, after, limit)
		q.raw(")")
	}
	q.raw(" ORDER BY tenant,uid")
	q.limit(limit)
	return q
}

// fill reads what users have.
func (v *view) fill(users []store.UserCopy) error {
	at, where := make(map[store.Key]*store.UserCopy, len(users)), text(" WHERE ")
	for i := range users {
		at[users[i].Key] = &users[i]
		if i > 0 {
			where.raw(" OR ")
		}
		where.where("", "uid", users[i].Key)
	}
	for _, part := range [...]struct {
		query, end string
		scan       func(rows *sql.Rows) error
	}{
		{"SELECT tenant,uid,version,woken FROM user_head", "", func(rows *sql.Rows) error {
			var k store.Key
			var h store.UserHead
			err := rows.Scan(&k.Tenant, &k.ID, &h.Version, &h.Woken)
			at[k].Head = h
			return err
		}},
		{"SELECT tenant,uid,device,platform,push_token,epoch,position,seen_ms FROM device", " ORDER BY tenant,uid,device", func(rows *sql.Rows) error {
			var k store.Key
			var d store.Device
			err := rows.Scan(&k.Tenant, &k.ID, &d.ID, &d.Platform, &d.PushToken, &d.Epoch, &d.Cursor, &d.SeenMS)
			at[k].Devices = append(at[k].Devices, d)
			return err
		}},
		{"SELECT tenant,uid,class,slot,device,epoch,counter,gateway,seen_ms FROM session", " ORDER BY tenant,uid,class,slot", func(rows *sql.Rows) error {
			var k store.Key
			var x store.Session
			err := rows.Scan(&k.Tenant, &k.ID, &x.Class, &x.Slot, &x.Device, &x.Epoch, &x.Counter, &x.Gateway, &x.SeenMS)
			at[k].Sessions = append(at[k].Sessions, x)
			return err
		}},
		{"SELECT tenant,uid,COUNT(*) FROM push", " GROUP BY tenant,uid", func(rows *sql.Rows) error {
			var k store.Key
			var n int
			err := rows.Scan(&k.Tenant, &k.ID, &n)
			at[k].Pushes = n
			return err
		}},
	} {
		q := append(append(text(part.query), where...), part.end...)
		if _, err := read(v, q, func(rows *sql.Rows) (struct{}, error) { return struct{}{}, part.scan(rows) }); err != nil {
			return err
		}
	}
	return nil
}

// bucketTables are those whose rows a bucket holds; heads come last.
var bucketTables = [...]string{"message", "modified", "member", "device", "session", "push", "conversation", "user_head"}

// BucketCount implements store.Movable.
func (s *Store) BucketCount(ctx context.Context, bucket uint32) (n store.BucketCount, err error) {
	if err := s.askedFor(bucket); err != nil {
		return n, err
	}
	v, err := s.view(ctx)
	if err != nil {
		return n, err
	}
	defer v.Close()
	for _, part := range [...]struct {
		from string
		into *int
	}{
		{"conversation", &n.Convs}, {"message", &n.Messages}, {"member", &n.Members}, {"device", &n.Devices},
		{"session", &n.Sessions}, {"push", &n.Pushes}, {"user_head", &n.Users},
	} {
		q := text("SELECT COUNT(*) FROM " + part.from + " WHERE bucket=")
		q.uint(uint64(bucket))
		if part.from == "user_head" {
			q.raw(" AND (version>0 OR woken>0)") // others hold the fence of sessions only
		}
		_, err := need(v, q, func(rows *sql.Rows) (struct{}, error) { return struct{}{}, rows.Scan(part.into) })
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Load implements store.Movable.
func (s *Store) Load(ctx context.Context, bucket store.BucketFence, rows *store.BucketRows) error {
	if err := s.askedFor(bucket.ID); err != nil {
		return err
	}
	sc := s.newScript()
	sc.load(rows)
	if err := s.whileClosed(ctx, sc, bucket.ID, &bucket.Epoch); err != nil {
		return fmt.Errorf("load rows of bucket %d: %w", bucket.ID, err)
	}
	return nil
}

// whileClosed runs a script if a bucket is closed, at an epoch if one is given, and stays so
// until the commit.
func (s *Store) whileClosed(ctx context.Context, sc *script, bucket uint32, epoch *uint64) error {
	var w work
	w.script = sc
	w.check.raw(maxUint + "+(COUNT(*)<>1)")
	w.from.raw(" FROM bucket WHERE open=0 AND id=")
	w.from.uint(uint64(bucket))
	if epoch != nil {
		w.from.raw(" AND epoch=")
		w.from.uint(*epoch)
	}
	w.from.raw(s.dialect.share)
	w.explain = func(ctx context.Context, conn *sql.Conn, cause error) (string, error) {
		q := text("SELECT epoch,open FROM bucket WHERE id=")
		q.uint(uint64(bucket))
		var state store.BucketState
		switch err := conn.QueryRowContext(ctx, string(q)).Scan(&state.Epoch, &state.Open); {
		case err != nil:
			return "", notWritten(err)
		case state.Open || epoch != nil && state.Epoch != *epoch:
			return "", &store.FenceError{Buckets: []uint32{bucket}}
		}
		return whyRace, notWritten(cause)
	}
	return s.execute(ctx, s.lazy, w)
}

// Purge implements store.Movable: each call deletes from one table.
func (s *Store) Purge(ctx context.Context, bucket uint32, limit int) (more bool, err error) {
	if err := s.askedFor(bucket); err != nil {
		return false, err
	}
	table, err := s.firstWithRows(ctx, bucket)
	if err != nil {
		return false, err
	}
	sc := s.newScript()
	if table != "" {
		q := text("DELETE FROM " + table + " WHERE bucket=")
		q.uint(uint64(bucket))
		q.limit(max(limit, 1))
		sc.statement(q)
	}
	if err := s.whileClosed(ctx, sc, bucket, nil); err != nil {
		return false, fmt.Errorf("purge bucket %d: %w", bucket, err)
	}
	if table == "" {
		return false, nil
	}
	table, err = s.firstWithRows(ctx, bucket)
	return table != "", err
}

// firstWithRows is the first table in which a bucket has rows; "" if there is none.
func (s *Store) firstWithRows(ctx context.Context, bucket uint32) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	for _, table := range bucketTables {
		q := text("SELECT COUNT(*) FROM (SELECT 1 FROM " + table + " WHERE bucket=")
		q.uint(uint64(bucket))
		q.raw(" LIMIT 1) x")
		var n int
		if err := s.reads.QueryRowContext(ctx, string(q)).Scan(&n); err != nil {
			return "", fmt.Errorf("look for rows of bucket %d: %w", bucket, err)
		}
		if n > 0 {
			return table, nil
		}
	}
	return "", nil
}
