package sqlstore

import (
	"hongyan/das/store"
)

// load writes rows as they are, over older states of them. Unlike a commit's, its statements
// hold no beliefs.
func (sc *script) load(r *store.BucketRows) {
	sc.loadMessages(r.Messages)
	sc.rows("INSERT INTO conversation (bucket,tenant,conv,head_from,head_seq,head_ord,flags,own) VALUES ", len(r.Convs), func(t *text, i int) {
		c := &r.Convs[i]
		t.key(c.Key)
		t.uints(c.Head.Seq, c.Head.Seq, c.Head.Ord, uint64(c.Head.Flags))
		t.raw(",")
		t.bytes(appendOwn(nil, c.Head.Own))
	}, replaced("head_from", "head_seq", "head_ord", "flags", "own"), nil)
	sc.insertMembers(r.Members, replaced("version", "last_epoch", "back_epoch", "last_seq", "last_ord", "read_seq", "read_ord", "peer_read_seq",
		"blocked", "pinned", "muted", "hidden", "remark", "updated_ms"))
	sc.pushes(r.Pushes)
	sc.loadUsers(r.Users)
}

// replaced is the end of an upsert that leaves nothing of the old row.
func replaced(columns ...string) string {
	s := " ON DUPLICATE KEY UPDATE "
	for i, c := range columns {
		if i > 0 {
			s += ","
		}
		s += c + "=VALUES(" + c + ")"
	}
	return s
}

func (sc *script) loadMessages(list []*store.Message) {
	sc.insertMessages(list, replaced("sender", "client_msg_id", "body_hash", "kind", "text", "data", "created_ms",
		"ord", "own_ord", "mod_seq", "recalled", "target_seq"))
	sc.modified(list)
}

func (sc *script) loadUsers(list []store.UserCopy) {
	var devices []store.DeviceRow
	var sessions []store.SessionMove
	epochs := make([]uint64, len(list))
	for i := range list {
		c := &list[i]
		for _, d := range c.Devices {
			devices = append(devices, store.DeviceRow{User: c.Key, Device: d})
		}
		for _, x := range c.Sessions {
			sessions = append(sessions, store.SessionMove{User: c.Key, To: x})
			epochs[i] = max(epochs[i], x.Epoch)
		}
	}
	sc.rows("INSERT INTO user_head (bucket,tenant,uid,version_from,version,woken,session_from,session_epoch) VALUES ", len(list), func(t *text, i int) {
		c := &list[i]
		t.key(c.Key)
		t.uints(c.Head.Version, c.Head.Version, c.Head.Woken, epochs[i], epochs[i])
	}, replaced("version_from", "version", "woken", "session_from", "session_epoch"), nil)
	sc.insertDevices(devices, replaced("platform", "push_token", "epoch", "position", "seen_ms"))
	sc.insertSessions(sessions, replaced("device", "epoch", "counter", "gateway", "seen_ms"))
}
