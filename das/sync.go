package das

import (
	"context"
	"fmt"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// Limits of SYNC.
const (
	syncDefault      = 100 // conversations
	syncMost         = 500
	syncMessages     = 20 // of each
	syncMessagesMost = 100
	modsKnownMost    = 500  // conversations named
	modifiedMost     = 1000 // later modifications told per conversation
)

// Sync implements tier.Das: the conversations that changed after a cursor, ascending by
// version, with the newest messages of each. A cursor of another epoch or beyond the head
// is answered must_reset and nothing else (R18).
func (d *Das) Sync(ctx context.Context, req *tier.SyncRequest) (*im.SyncRsp, error) {
	user, err := userKey(req.Tenant, req.Uid)
	if err != nil {
		return nil, err
	}
	s := req.Sync
	if s == nil {
		s = &im.Sync{}
	}
	if len(s.ModsKnown) > modsKnownMost {
		return nil, code.Errorf(code.TooLarge, "mods_known names %d conversations, over %d", len(s.ModsKnown), modsKnownMost)
	}
	return confirmed(ctx, d, d.lanes.session, "sync", func(v store.View) (*im.SyncRsp, error) {
		return syncUser(v, user, s, d.cfg.MaxAnswer)
	})
}

func syncUser(v store.View, user store.Key, s *im.Sync, maxAnswer int) (*im.SyncRsp, error) {
	room, modsRoom := budgets(maxAnswer)
	epoch, err := epochOf(v, user)
	if err != nil {
		return nil, err
	}
	head, err := v.User(user)
	if err != nil {
		return nil, fmt.Errorf("read the head of user %q: %w", user.ID, err)
	}
	rsp := &im.SyncRsp{Epoch: epoch, Head: head.Version}
	if s.Cursor > head.Version || s.Cursor > 0 && s.Epoch != epoch {
		rsp.MustReset = true
		return rsp, nil
	}
	limit := clamp(s.Limit, syncDefault, syncMost)
	rows, err := v.Changes(user, s.Cursor, limit+1)
	if err != nil {
		return nil, fmt.Errorf("read the changes of user %q: %w", user.ID, err)
	}
	rsp.NextCursor, rsp.More = head.Version, len(rows) > limit
	rows = rows[:min(len(rows), limit)]
	rsp.Changes, err = tellRows(v, user, rows, clamp(s.Messages, syncMessages, syncMessagesMost), &room)
	if err != nil {
		return nil, err
	}
	if n := len(rsp.Changes); rsp.More || n < len(rows) {
		rsp.More, rsp.NextCursor = true, rsp.Changes[n-1].Version
	}
	rsp.Modified, err = modifiedSince(v, user, s.ModsKnown, &modsRoom)
	return rsp, err
}

// tellRows are rows with the newest messages of each, up to what the row says: its version
// covers no more. When there is no more room it stops, after one row at least.
func tellRows(v store.View, user store.Key, rows []store.Member, messages int, room *budget) ([]*im.Conversation, error) {
	told := make([]*im.Conversation, 0, len(rows))
	for i := range rows {
		row, err := rowOf(&rows[i], user.ID)
		if err != nil {
			return nil, err
		}
		if row.LastSeq > 0 && messages > 0 {
			list, err := v.Last(store.Key{Tenant: user.Tenant, ID: row.Conv}, row.LastSeq+1, messages)
			if err != nil {
				return nil, fmt.Errorf("read the end of %q: %w", row.Conv, err)
			}
			list = room.newest(list)
			row.Messages = messagesOf(list)
		}
		if told = append(told, row); *room <= 0 {
			break
		}
	}
	return told, nil
}

// modifiedSince are the entries that were changed after what the client knows (R25), of
// each conversation the earliest modifications first: it asks again from the last one told.
func modifiedSince(v store.View, user store.Key, known []*im.ModsKnown, room *budget) ([]*im.Message, error) {
	var told []*im.Message
	for _, k := range known {
		key, _, err := convKey(user.Tenant, user.ID, k.GetConv())
		if err != nil {
			return nil, err
		}
		list, err := v.Modified(key, k.Seq, modifiedMost)
		if err != nil {
			return nil, fmt.Errorf("read the modifications of %q: %w", key.ID, err)
		}
		list = room.oldest(list)
		told = append(told, messagesOf(list)...)
	}
	return told, nil
}
