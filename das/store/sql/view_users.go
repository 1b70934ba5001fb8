package sqlstore

import (
	"database/sql"

	"hongyan/das/store"
)

func scanMember(rows *sql.Rows) (m store.Member, err error) {
	return m, rows.Scan(&m.Conv, &m.Version, &m.LastEpoch, &m.BackEpoch, &m.LastSeq, &m.LastOrd, &m.ReadSeq, &m.ReadOrd, &m.PeerReadSeq,
		&m.Blocked, &m.Pinned, &m.Muted, &m.Hidden, &m.Remark, &m.UpdatedMS)
}

func (v *view) Member(user store.Key, conv string) (store.Member, error) {
	q := query(memberColumns, "member", "uid", user)
	q.raw(" AND conv=")
	q.str(conv)
	return need(v, q, scanMember)
}

func (v *view) Changes(user store.Key, after uint64, limit int) ([]store.Member, error) {
	q := query(memberColumns, "member", "uid", user)
	q.raw(" AND version>")
	q.uint(after)
	q.raw(" ORDER BY version")
	q.limit(limit)
	return read(v, q, scanMember)
}

func (v *view) Members(user store.Key, before uint64, limit int) ([]store.Member, error) {
	q := query(memberColumns, "member", "uid", user)
	if before > 0 {
		q.raw(" AND version<")
		q.uint(before)
	}
	q.raw(" ORDER BY version DESC")
	q.limit(limit)
	return read(v, q, scanMember)
}

func (v *view) Devices(user store.Key) ([]store.Device, error) {
	q := query("device,platform,push_token,epoch,position,seen_ms", "device", "uid", user)
	q.raw(" ORDER BY device")
	return read(v, q, func(rows *sql.Rows) (d store.Device, err error) {
		return d, rows.Scan(&d.ID, &d.Platform, &d.PushToken, &d.Epoch, &d.Cursor, &d.SeenMS)
	})
}

func (v *view) Sessions(user store.Key) ([]store.Session, error) {
	q := query("class,slot,device,epoch,counter,gateway,seen_ms", "session", "uid", user)
	q.raw(" ORDER BY class,slot")
	return read(v, q, func(rows *sql.Rows) (s store.Session, err error) {
		return s, rows.Scan(&s.Class, &s.Slot, &s.Device, &s.Epoch, &s.Counter, &s.Gateway, &s.SeenMS)
	})
}

func (v *view) Pushes(user store.Key, limit int) ([]store.Push, error) {
	q := query("device,platform,conv,seq,title,body,collapse,badge,at_ms", "push", "uid", user)
	q.raw(" ORDER BY at_ms DESC,device DESC,conv DESC,seq DESC")
	q.limit(limit)
	return read(v, q, func(rows *sql.Rows) (p store.Push, err error) {
		return p, rows.Scan(&p.Device, &p.Platform, &p.Conv, &p.Seq, &p.Title, &p.Body, &p.Collapse, &p.Badge, &p.AtMS)
	})
}

func (v *view) FanOutRows(after store.RowKey, created store.Created, limit int) ([]store.FanOutRow, error) {
	return read(v, outboxQuery("outbox_fanout", after, created, limit), func(rows *sql.Rows) (r store.FanOutRow, err error) {
		var entries sql.RawBytes
		if err := rows.Scan(&r.Owner, &r.N, &r.CreatedMS, &entries); err != nil {
			return r, err
		}
		r.Entries, err = decodeFanOut(entries)
		return r, err
	})
}

func (v *view) DeliverRows(after store.RowKey, created store.Created, limit int) ([]store.DeliverRow, error) {
	return read(v, outboxQuery("outbox_deliver", after, created, limit), func(rows *sql.Rows) (r store.DeliverRow, err error) {
		var entries sql.RawBytes
		if err := rows.Scan(&r.Owner, &r.N, &r.CreatedMS, &entries); err != nil {
			return r, err
		}
		r.Entries, err = decodeDeliver(entries)
		return r, err
	})
}

func outboxQuery(table string, after store.RowKey, created store.Created, limit int) (q text) {
	q.raw("SELECT owner,n,created_ms,entries FROM " + table + " WHERE owner>=")
	q.str(after.Owner)
	q.raw(" AND (owner>")
	q.str(after.Owner)
	q.raw(" OR n>")
	q.uint(after.N)
	q.raw(") AND (created_ms<=")
	q.int(created.Before)
	if created.Beyond > 0 {
		q.raw(" OR created_ms>")
		q.int(created.Beyond)
	}
	q.raw(")")
	q.raw(" ORDER BY owner,n")
	q.limit(limit)
	return q
}
