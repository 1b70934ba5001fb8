package das

import (
	"context"
	"errors"
	"fmt"

	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// Limits of CONVERSATIONS and UNREAD.
const (
	listDefault      = 100
	listMost         = 500
	listMessages     = 1 // of each
	listMessagesMost = 20
	listPages        = 10 // pages looked through for one answer
	unreadPage       = 500
)

// Conversations implements tier.Das: a user's conversations, most recently changed first.
// Hidden ones only when asked for, with contacts only private ones. A page may be short
// though more is set.
func (d *Das) Conversations(ctx context.Context, req *tier.ConversationsRequest) (*im.ConversationsRsp, error) {
	user, err := userKey(req.Tenant, req.Uid)
	if err != nil {
		return nil, err
	}
	c := req.Conversations
	if c == nil {
		c = &im.Conversations{}
	}
	return reading(ctx, d, d.lanes.contact, "conversations", func(v store.View) (*im.ConversationsRsp, error) {
		return conversations(v, user, c, req.Contacts, budget(d.cfg.MaxAnswer))
	})
}

func conversations(v store.View, user store.Key, c *im.Conversations, contacts bool, room budget) (*im.ConversationsRsp, error) {
	if _, err := epochOf(v, user); err != nil {
		return nil, err
	}
	limit, before := clamp(c.Limit, listDefault, listMost), c.BeforeVersion
	var found []store.Member
	rsp := &im.ConversationsRsp{}
	for range listPages {
		page, err := v.Members(user, before, limit)
		if err != nil {
			return nil, fmt.Errorf("read the conversations of %q: %w", user.ID, err)
		}
		rsp.More = len(page) == limit
		for i := range page {
			if len(found) == limit {
				rsp.More = true
				break
			}
			before = page[i].Version
			if listed(&page[i], c.Hidden, contacts) {
				found = append(found, page[i])
			}
		}
		if !rsp.More || len(found) == limit {
			break
		}
	}
	var err error
	rsp.Conversations, err = tellRows(v, user, found, clamp(c.Messages, listMessages, listMessagesMost), &room)
	if n := len(rsp.Conversations); n < len(found) {
		rsp.More, before = true, found[n-1].Version
	}
	if rsp.More {
		rsp.NextBeforeVersion = before
	}
	return rsp, err
}

func listed(m *store.Member, hidden, contacts bool) bool {
	if m.Hidden && !hidden {
		return false
	}
	return !contacts || m.Conv[0] == conv.KindPrivate
}

// Unread implements tier.Das: what a user has not read, of one conversation or of all. It
// is derived from two ordinals of each row (R24).
func (d *Das) Unread(ctx context.Context, req *tier.UnreadRequest) (*im.UnreadRsp, error) {
	user, err := userKey(req.Tenant, req.Uid)
	if err != nil {
		return nil, err
	}
	if req.Conv != "" {
		if _, _, err := convKey(req.Tenant, req.Uid, req.Conv); err != nil {
			return nil, err
		}
	}
	return reading(ctx, d, d.lanes.contact, "unread", func(v store.View) (*im.UnreadRsp, error) {
		if _, err := epochOf(v, user); err != nil {
			return nil, err
		}
		if req.Conv != "" {
			return unreadOf(v, user, req.Conv)
		}
		return unreadOfAll(v, user)
	})
}

func unreadOf(v store.View, user store.Key, convID string) (*im.UnreadRsp, error) {
	m, err := v.Member(user, convID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notMember(convID)
	}
	if err != nil {
		return nil, fmt.Errorf("read the row of %q for %q: %w", convID, user.ID, err)
	}
	n := m.Unread()
	return &im.UnreadRsp{Total: n, Conversations: []*im.ConvUnread{{Conv: convID, Unread: n}}}, nil
}

func unreadOfAll(v store.View, user store.Key) (*im.UnreadRsp, error) {
	rsp := &im.UnreadRsp{}
	for before := uint64(0); ; {
		page, err := v.Members(user, before, unreadPage)
		if err != nil {
			return nil, fmt.Errorf("read the conversations of %q: %w", user.ID, err)
		}
		for i := range page {
			if n := page[i].Unread(); n > 0 {
				rsp.Total += n
				rsp.Conversations = append(rsp.Conversations, &im.ConvUnread{Conv: page[i].Conv, Unread: n})
			}
		}
		if len(page) < unreadPage {
			return rsp, nil
		}
		before = page[len(page)-1].Version
	}
}
