package sqlstore

import (
	"cmp"
	"slices"
	"strings"

	"hongyan/das/store"
)

// scriptOf writes a batch as SQL. Tables come in one order and heads in the order of their
// keys, so that commits rarely wait for each other in a circle; who holds a head holds
// everything of its log.
func (s *Store) scriptOf(b *store.Batch) *script {
	sc := s.newScript()
	sc.convs(b.Convs)
	sc.messages(b.Messages)
	sc.rewrites(b.Rewrites)
	sc.users(b.Users)
	sc.sessionHeads(b.Sessions)
	sc.woken(b.Woken)
	sc.members(b.Members)
	sc.sessions(b.Sessions)
	sc.devices(b.Cursors)
	sc.outbox(b)
	sc.pushes(b.Pushes)
	return sc
}

// fenced writes a column that moves from a believed value to a new one, and fails where the
// row has another. VALUES(from) is what is believed.
func fenced(column, from, to string) string {
	return column + "=IF(" + column + "=VALUES(" + from + ")," + to + "," +
		maxUint + "+(" + column + "<>VALUES(" + from + ")))," + from + "=VALUES(" + from + ")"
}

func byKey(a, b store.Key) int {
	return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.ID, b.ID))
}

// convs moves heads (R02). A head at 0 has no row: so many rows are inserted, all others
// updated, and updates count twice; a row that is missing or too much shows in the count,
// one that has another seq fails at once.
func (sc *script) convs(list []store.ConvMove) {
	if len(list) == 0 {
		return
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b store.ConvMove) int { return byKey(a.Key, b.Key) })
	sc.rows("INSERT INTO conversation (bucket,tenant,conv,head_from,head_seq,head_ord,flags,own) VALUES ", len(list), func(t *text, i int) {
		m := &list[i]
		t.key(m.Key)
		t.uints(m.From, m.To.Seq, m.To.Ord, uint64(m.To.Flags))
		t.raw(",")
		sc.scratch = appendOwn(sc.scratch[:0], m.To.Own)
		t.bytes(sc.scratch)
	}, " ON DUPLICATE KEY UPDATE "+fenced("head_seq", "head_from", "VALUES(head_seq)")+
		",head_ord=VALUES(head_ord),flags=VALUES(flags),own=VALUES(own)",
		func(from, to int) (rows int) {
			for _, m := range list[from:to] {
				rows++
				if m.From > 0 {
					rows++
				}
			}
			return rows
		})
}

const messageColumns = "seq,sender,client_msg_id,body_hash,kind,text,data,created_ms,ord,own_ord,mod_seq,recalled,target_seq"

// messages inserts plainly: whatever exists already is an error (R03).
func (sc *script) messages(list []*store.Message) {
	sc.insertMessages(list, "")
	sc.modified(list)
}

func (sc *script) insertMessages(list []*store.Message, tail string) {
	sc.rows("INSERT INTO message (bucket,tenant,conv,"+messageColumns+") VALUES ", len(list), func(t *text, i int) {
		m := list[i]
		t.key(m.Conv)
		t.uints(m.Seq)
		t.strs(m.Sender)
		t.raw(",")
		t.strOrNull(m.ClientMsgID)
		t.uints(m.BodyHash)
		t.raw(",")
		t.int(int64(m.Kind))
		t.strs(m.Text)
		t.raw(",")
		t.bytesOrNull(m.Data)
		t.raw(",")
		t.int(m.CreatedMS)
		t.uints(m.Ord, m.OwnOrd, m.ModSeq)
		t.raw(",")
		t.flag(m.Recalled)
		t.uints(m.TargetSeq)
	}, tail, nil)
}

// rewrites change entries that exist and whose sender and key stay (R25).
func (sc *script) rewrites(list []*store.Message) {
	for _, m := range list {
		t := &sc.cur
		t.raw("UPDATE message SET body_hash=")
		t.uint(m.BodyHash)
		t.raw(",kind=")
		t.int(int64(m.Kind))
		t.raw(",text=")
		t.str(m.Text)
		t.raw(",data=")
		t.bytesOrNull(m.Data)
		t.raw(",created_ms=")
		t.int(m.CreatedMS)
		for _, c := range [...]struct {
			name string
			n    uint64
		}{{"ord", m.Ord}, {"own_ord", m.OwnOrd}, {"mod_seq", m.ModSeq}, {"target_seq", m.TargetSeq}} {
			t.raw("," + c.name + "=")
			t.uint(c.n)
		}
		t.raw(",recalled=")
		t.flag(m.Recalled)
		t.raw(" WHERE ")
		t.where("", "conv", m.Conv)
		t.raw(" AND seq=")
		t.uint(m.Seq)
		t.raw(" AND sender=")
		t.str(m.Sender)
		t.raw(" AND client_msg_id<=>")
		t.strOrNull(m.ClientMsgID)
		sc.end()
		sc.failUnless("(ROW_COUNT()=1)")
	}
	sc.modified(list)
}

// modified notes the places of entries that were rewritten.
func (sc *script) modified(all []*store.Message) {
	var list []*store.Message
	for _, m := range all {
		if m.ModSeq > 0 {
			list = append(list, m)
		}
	}
	sc.rows("INSERT INTO modified (bucket,tenant,conv,mod_seq,seq) VALUES ", len(list), func(t *text, i int) {
		t.key(list[i].Conv)
		t.uints(list[i].ModSeq, list[i].Seq)
	}, " ON DUPLICATE KEY UPDATE seq=VALUES(seq)", nil)
}

// headRow is a user_head row to be moved by one of its fences.
type headRow struct {
	key      store.Key
	from, to uint64
}

// userHeads moves rows of user_head. Those that are believed to be at 0 may or may not
// exist; all others must, and each of them is an update that changes it.
func (sc *script) userHeads(list []headRow, fromColumn, toColumn, to string) {
	slices.SortFunc(list, func(a, b headRow) int {
		return cmp.Or(cmp.Compare(min(b.from, 1), min(a.from, 1)), byKey(a.key, b.key))
	})
	known := len(list)
	for known > 0 && list[known-1].from == 0 {
		known--
	}
	head := "INSERT INTO user_head (bucket,tenant,uid," + fromColumn + "," + toColumn + ") VALUES "
	tail := " ON DUPLICATE KEY UPDATE writes=writes+1," + fenced(toColumn, fromColumn, to)
	row := func(list []headRow) func(t *text, i int) {
		return func(t *text, i int) {
			t.key(list[i].key)
			t.uints(list[i].from, list[i].to)
		}
	}
	sc.rows(head, known, row(list[:known]), tail, func(from, to int) int { return 2 * (to - from) })
	sc.rows(head, len(list)-known, row(list[known:]), tail, nil)
}

// users moves versions (R01).
func (sc *script) users(moves []store.UserMove) {
	list := make([]headRow, len(moves))
	for i, m := range moves {
		list[i] = headRow{m.Key, m.From, m.To}
	}
	sc.userHeads(list, "version_from", "version", "VALUES(version)")
}

// sessionHeads moves the highest epoch of a user's sessions, once for all his rows in the
// batch: each believed the state before it (R27).
func (sc *script) sessionHeads(moves []store.SessionMove) {
	at := make(map[store.Key]int, len(moves))
	var list []headRow
	for _, m := range moves {
		i, ok := at[m.User]
		if !ok {
			i = len(list)
			at[m.User] = i
			list = append(list, headRow{m.User, m.From, m.From})
		}
		if list[i].from != m.From {
			sc.doomed = true
		}
		list[i].to = max(list[i].to, m.To.Epoch)
	}
	sc.userHeads(list, "session_from", "session_epoch", "GREATEST(session_epoch,VALUES(session_epoch))")
}

func (sc *script) woken(list []store.WokenMark) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b store.WokenMark) int { return byKey(a.User, b.User) })
	sc.rows("INSERT INTO user_head (bucket,tenant,uid,woken) VALUES ", len(list), func(t *text, i int) {
		t.key(list[i].User)
		t.uints(list[i].Version)
	}, " ON DUPLICATE KEY UPDATE writes=writes+1,woken=GREATEST(woken,VALUES(woken))", nil)
}

const memberColumns = "conv,version,last_epoch,back_epoch,last_seq,last_ord,read_seq,read_ord,peer_read_seq,blocked,pinned,muted,hidden,remark,updated_ms"

// members is Member.Raise in SQL: assignments run from left to right, each ordinal goes
// before the seq it belongs to, and the epoch by which all are compared comes last.
func (sc *script) members(list []store.MemberRow) {
	sc.insertMembers(list, raiseMember)
}

var raiseMember = " ON DUPLICATE KEY UPDATE version=GREATEST(version,VALUES(version)),back_epoch=GREATEST(back_epoch,VALUES(back_epoch))," +
	raised("last_ord", "last_seq") + raised("last_seq", "last_seq") +
	raised("read_ord", "read_seq") + raised("read_seq", "read_seq") +
	raised("peer_read_seq", "peer_read_seq") + "last_epoch=GREATEST(last_epoch,VALUES(last_epoch))," +
	"blocked=VALUES(blocked),pinned=VALUES(pinned),muted=VALUES(muted),hidden=VALUES(hidden)," +
	"remark=VALUES(remark),updated_ms=VALUES(updated_ms)"

// raised writes a column of a position of the log, unless the row's is ahead.
func raised(column, seq string) string {
	return column + "=IF(last_epoch>VALUES(last_epoch) OR last_epoch=VALUES(last_epoch) AND " + seq + ">VALUES(" + seq + ")," +
		column + ",VALUES(" + column + ")),"
}

func (sc *script) insertMembers(list []store.MemberRow, tail string) {
	sc.rows("INSERT INTO member (bucket,tenant,uid,"+memberColumns+") VALUES ", len(list), func(t *text, i int) {
		r := &list[i]
		t.key(r.User)
		t.strs(r.Conv)
		t.uints(r.Version, r.LastEpoch, r.BackEpoch, r.LastSeq, r.LastOrd, r.ReadSeq, r.ReadOrd, r.PeerReadSeq)
		for _, on := range [...]bool{r.Blocked, r.Pinned, r.Muted, r.Hidden} {
			t.raw(",")
			t.flag(on)
		}
		t.strs(r.Remark)
		t.raw(",")
		t.int(r.UpdatedMS)
	}, tail, nil)
}

func (sc *script) sessions(list []store.SessionMove) {
	sc.insertSessions(list, " ON DUPLICATE KEY UPDATE device=VALUES(device),epoch=GREATEST(epoch,VALUES(epoch)),counter=VALUES(counter),"+
		"gateway=VALUES(gateway),seen_ms=VALUES(seen_ms)")
}

func (sc *script) insertSessions(list []store.SessionMove, tail string) {
	sc.rows("INSERT INTO session (bucket,tenant,uid,class,slot,device,epoch,counter,gateway,seen_ms) VALUES ", len(list), func(t *text, i int) {
		to := &list[i].To
		t.key(list[i].User)
		t.strs(to.Class)
		t.uints(uint64(to.Slot))
		t.strs(to.Device)
		t.uints(to.Epoch, to.Counter)
		t.strs(to.Gateway)
		t.raw(",")
		t.int(to.SeenMS)
	}, tail, nil)
}

// devices is Device.Raise in SQL: positions compare as pairs of epoch and cursor (R18).
func (sc *script) devices(list []store.DeviceRow) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b store.DeviceRow) int {
		return cmp.Or(byKey(a.User, b.User), strings.Compare(a.ID, b.ID))
	})
	sc.insertDevices(list, " ON DUPLICATE KEY UPDATE platform=VALUES(platform),push_token=VALUES(push_token),"+
		"position=IF(epoch>VALUES(epoch) OR (epoch=VALUES(epoch) AND position>VALUES(position)),position,VALUES(position)),"+
		"epoch=GREATEST(epoch,VALUES(epoch)),seen_ms=VALUES(seen_ms)")
}

func (sc *script) insertDevices(list []store.DeviceRow, tail string) {
	sc.rows("INSERT INTO device (bucket,tenant,uid,device,platform,push_token,epoch,position,seen_ms) VALUES ", len(list), func(t *text, i int) {
		d := &list[i].Device
		t.key(list[i].User)
		t.strs(d.ID, d.Platform, d.PushToken)
		t.uints(d.Epoch, d.Cursor)
		t.raw(",")
		t.int(d.SeenMS)
	}, tail, nil)
}

// outbox deletes before it inserts: a range never takes the rows of its own batch (R07). A row
// that exists is an error, as with messages.
func (sc *script) outbox(b *store.Batch) {
	sc.finished("outbox_fanout", b.FanOutDone)
	sc.finished("outbox_deliver", b.DeliverDone)
	sc.outboxRows("outbox_fanout", len(b.FanOut), func(i int) (store.RowKey, int64, []byte) {
		r := &b.FanOut[i]
		return r.RowKey, r.CreatedMS, appendFanOut(nil, r.Entries)
	})
	sc.outboxRows("outbox_deliver", len(b.Deliver), func(i int) (store.RowKey, int64, []byte) {
		r := &b.Deliver[i]
		return r.RowKey, r.CreatedMS, appendDeliver(nil, r.Entries)
	})
}

func (sc *script) finished(table string, ranges []store.RowRange) {
	for _, r := range ranges {
		t := &sc.cur
		t.raw("DELETE FROM " + table + " WHERE owner=")
		t.str(r.Owner)
		t.raw(" AND n BETWEEN ")
		t.uint(r.From)
		t.raw(" AND ")
		t.uint(r.To)
		sc.end()
	}
}

func (sc *script) outboxRows(table string, n int, row func(i int) (store.RowKey, int64, []byte)) {
	sc.rows("INSERT INTO "+table+" (owner,n,created_ms,entries) VALUES ", n, func(t *text, i int) {
		key, created, entries := row(i)
		t.str(key.Owner)
		t.uints(key.N)
		t.raw(",")
		t.int(created)
		t.raw(",")
		t.bytes(entries)
	}, "", nil)
}

func (sc *script) pushes(list []store.PushRow) {
	sc.rows("INSERT INTO push (bucket,tenant,uid,at_ms,device,conv,seq,platform,title,body,collapse,badge) VALUES ", len(list), func(t *text, i int) {
		p := &list[i].Push
		t.key(list[i].User)
		t.raw(",")
		t.int(p.AtMS)
		t.strs(p.Device, p.Conv)
		t.uints(p.Seq)
		t.strs(p.Platform, p.Title, p.Body, p.Collapse)
		t.uints(p.Badge)
	}, " ON DUPLICATE KEY UPDATE platform=VALUES(platform),title=VALUES(title),body=VALUES(body),"+
		"collapse=VALUES(collapse),badge=VALUES(badge)", nil)
}

// bucketCheck is an expression and the rest of its SELECT: it fails unless all buckets are
// open at their epochs, and holds them so until commit (R17). It comes last, so that whoever
// closes a bucket waits only for commits that are nearly done.
func bucketCheck(list []store.BucketFence, share string) (check, from text) {
	if len(list) == 0 {
		return nil, nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b store.BucketFence) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.ID, b.ID))
	})
	list = slices.Compact(list)
	check.raw(maxUint + "+(COUNT(*)<>")
	check.uint(uint64(len(list)))
	check.raw(")")
	from.raw(" FROM bucket FORCE INDEX (PRIMARY) WHERE open=1 AND (")
	for i, f := range list {
		switch {
		case i == 0:
		case list[i-1].Epoch == f.Epoch:
			from.raw(",")
			from.uint(uint64(f.ID))
			continue
		default:
			from.raw(")) OR ")
		}
		from.raw("(epoch=")
		from.uint(f.Epoch)
		from.raw(" AND id IN (")
		from.uint(uint64(f.ID))
	}
	from.raw(")))")
	from.raw(share)
	return check, from
}
