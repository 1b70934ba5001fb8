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
	return reading(ctx, d, d.lanes.session, "sync", func(v store.View) (*im.SyncRsp, error) {
		return syncUser(v, user, s)
	})
}

func syncUser(v store.View, user store.Key, s *im.Sync) (*im.SyncRsp, error) {
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
	rsp.NextCursor = head.Version
	if rsp.More = len(rows) > limit; rsp.More {
		rows = rows[:limit]
		rsp.NextCursor = rows[limit-1].Version
	}
	if rsp.Changes, err = tellRows(v, user, rows, clamp(s.Messages, syncMessages, syncMessagesMost)); err != nil {
		return nil, err
	}
	rsp.Modified, err = modifiedSince(v, user, s.ModsKnown)
	return rsp, err
}

// tellRows are rows with the newest messages of each, up to what the row says: its version
// covers no more.
func tellRows(v store.View, user store.Key, rows []store.Member, messages int) ([]*im.Conversation, error) {
	told := make([]*im.Conversation, len(rows))
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
			row.Messages = messagesOf(list)
		}
		told[i] = row
	}
	return told, nil
}

// modifiedSince are the entries that were changed after what the client knows (R25).
func modifiedSince(v store.View, user store.Key, known []*im.ModsKnown) ([]*im.Message, error) {
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
		told = append(told, messagesOf(list)...)
	}
	return told, nil
}
