package logic

import (
	"context"
	"errors"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
	"hongyan/internal/presence"
	"hongyan/internal/route"
)

// readTries is how many instances of das a read is tried at.
const readTries = 3

// read makes one reading call to the das of a hash. An instance that cannot be reached is
// passed over.
func read[T any](l *Logic, ctx context.Context, hash uint64, call func(context.Context, tier.Das) (T, error)) (T, error) {
	var none T
	for try := 1; ; try++ {
		das, err := l.deps.Das.Pick(hash)
		if err != nil {
			return none, err
		}
		once, cancel := context.WithTimeout(ctx, l.cfg.CallTimeout)
		reply, err := call(once, das.Client)
		cancel()
		if err == nil {
			return reply, nil
		}
		if answered(err) || ctx.Err() != nil {
			return none, err
		}
		l.deps.Das.Failed(das)
		if try == readTries {
			return none, code.Errorf(code.Unavailable, "the store cannot be read just now: %w", err)
		}
	}
}

// answered tells that an error is the answer of a das, not a sign that it cannot be reached.
func answered(err error) bool {
	switch code.Of(err) {
	case code.Internal, code.Unavailable, code.Expired:
		return false
	}
	return true
}

// sync answers what has changed since the client's cursor, which is also an ack.
func (l *Logic) sync(ctx context.Context, r *request, req *im.Sync) (message, error) {
	if _, err := limit("limit", req.Limit, 0, maxSync); err != nil {
		return nil, err
	}
	if _, err := limit("messages", req.Messages, 0, maxMessages); err != nil {
		return nil, err
	}
	if err := checkMods(req.ModsKnown); err != nil {
		return nil, err
	}
	reply, err := l.readSync(ctx, r.up.Tenant, r.up.Uid, req)
	if err != nil {
		return nil, err
	}
	s, _ := l.users.lock(r.up.Tenant, r.up.Uid)
	defer s.Unlock()
	if u := s.all[presence.User{Tenant: r.up.Tenant, UID: r.up.Uid}]; u != nil {
		u.saw(position{reply.Epoch, reply.Head})
		if c := u.at(r.boot, r.up.Conn); c != nil && !reply.MustReset {
			l.cursorLocked(s, c, position{req.Epoch, req.Cursor})
		}
	}
	return reply, nil
}

func (l *Logic) readSync(ctx context.Context, tenant, uid string, req *im.Sync) (*im.SyncRsp, error) {
	ask := &tier.SyncRequest{Tenant: tenant, Uid: uid, Sync: req}
	return read(l, ctx, route.Hash(tenant, uid), func(ctx context.Context, das tier.Das) (*im.SyncRsp, error) {
		return das.Sync(ctx, ask)
	})
}

// history answers entries of one conversation.
func (l *Logic) history(ctx context.Context, r *request, req *im.History) (message, error) {
	if _, err := member(r, req.Conv); err != nil {
		return nil, err
	}
	if _, err := limit("limit", req.Limit, 0, maxHistory); err != nil {
		return nil, err
	}
	switch {
	case req.FromSeq == 0 && req.ToSeq == 0:
	case req.FromSeq == 0 || req.ToSeq < req.FromSeq:
		return nil, code.Errorf(code.BadRequest, "from_seq %d, to_seq %d is not a range", req.FromSeq, req.ToSeq)
	case req.BeforeSeq != 0:
		return nil, code.Errorf(code.BadRequest, "before_seq and a range exclude each other")
	}
	return l.reply(l.readHistory(ctx, r.up.Tenant, r.up.Uid, req))
}

// reply keeps a nil pointer from becoming a message.
func (l *Logic) reply(m *im.HistoryRsp, err error) (message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (l *Logic) readHistory(ctx context.Context, tenant, uid string, req *im.History) (*im.HistoryRsp, error) {
	ask := &tier.HistoryRequest{Tenant: tenant, Uid: uid, History: req}
	return read(l, ctx, route.Hash(tenant, req.Conv), func(ctx context.Context, das tier.Das) (*im.HistoryRsp, error) {
		return das.History(ctx, ask)
	})
}

// conversations lists the user's conversations, the last changed first.
func (l *Logic) conversations(ctx context.Context, r *request, req *im.Conversations) (message, error) {
	if _, err := limit("limit", req.Limit, 0, maxSync); err != nil {
		return nil, err
	}
	if _, err := limit("messages", req.Messages, 0, maxMessages); err != nil {
		return nil, err
	}
	reply, err := l.readConversations(ctx, r, req, false)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (l *Logic) readConversations(ctx context.Context, r *request, req *im.Conversations, contacts bool) (*im.ConversationsRsp, error) {
	ask := &tier.ConversationsRequest{Tenant: r.up.Tenant, Uid: r.up.Uid, Conversations: req, Contacts: contacts}
	return read(l, ctx, r.user(), func(ctx context.Context, das tier.Das) (*im.ConversationsRsp, error) {
		return das.Conversations(ctx, ask)
	})
}

// contacts lists whom the user has private conversations with, and who of them is online.
func (l *Logic) contacts(ctx context.Context, r *request, req *im.Contacts) (message, error) {
	if _, err := limit("limit", req.Limit, 0, maxSync); err != nil {
		return nil, err
	}
	list, err := l.readConversations(ctx, r, &im.Conversations{BeforeVersion: req.BeforeVersion, Limit: req.Limit, Hidden: true}, true)
	if err != nil {
		return nil, err
	}
	reply := &im.ContactsRsp{More: list.More, NextBeforeVersion: list.NextBeforeVersion}
	var uids []string
	for _, row := range list.Conversations {
		id, err := conv.Parse(row.Conv)
		if err != nil || id.Kind != conv.KindPrivate {
			continue
		}
		peer := id.Peer(r.up.Uid)
		uids = append(uids, peer)
		reply.Contacts = append(reply.Contacts, &im.Contact{
			Uid: peer, Conv: row.Conv, Remark: row.Remark, Blocked: row.Blocked, LastMs: row.UpdatedMs,
		})
	}
	for i, p := range l.online(ctx, r.up.Tenant, uids) {
		reply.Contacts[i].Online = p.Online
	}
	return reply, nil
}

// unread counts what the user has not read, in all and by conversation.
func (l *Logic) unread(ctx context.Context, r *request, req *im.Unread) (message, error) {
	if req.Conv != "" {
		if _, err := member(r, req.Conv); err != nil {
			return nil, err
		}
	}
	ask := &tier.UnreadRequest{Tenant: r.up.Tenant, Uid: r.up.Uid, Conv: req.Conv}
	reply, err := read(l, ctx, r.user(), func(ctx context.Context, das tier.Das) (*im.UnreadRsp, error) {
		return das.Unread(ctx, ask)
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// presence tells who is online.
func (l *Logic) presence(ctx context.Context, r *request, req *im.Presence) (message, error) {
	if len(req.Uids) == 0 || len(req.Uids) > maxUIDs {
		return nil, code.Errorf(code.BadRequest, "uids names %d users, 1 to %d are allowed", len(req.Uids), maxUIDs)
	}
	for _, uid := range req.Uids {
		if err := conv.ValidUID(uid); err != nil {
			return nil, code.Errorf(code.BadRequest, "uids: %w", err)
		}
	}
	return &im.PresenceRsp{Users: l.online(ctx, r.up.Tenant, req.Uids)}, nil
}

// online tells of each user whether and where he is: from memory for whom this is home,
// from the presence cache for the others. One that cannot be asked about counts as offline.
func (l *Logic) online(ctx context.Context, tenant string, uids []string) []*im.UserPresence {
	out := make([]*im.UserPresence, len(uids))
	var ask []presence.User
	var at []int
	for i, uid := range uids {
		out[i] = &im.UserPresence{Uid: uid, Platforms: l.platforms(tenant, uid)}
		if out[i].Online = len(out[i].Platforms) > 0; !out[i].Online {
			ask, at = append(ask, presence.User{Tenant: tenant, UID: uid}), append(at, i)
		}
	}
	if len(ask) == 0 {
		return out
	}
	entries, err := l.deps.Presence.Get(ctx, ask)
	if err != nil || len(entries) != len(ask) {
		if !errors.Is(err, presence.ErrDown) {
			l.log.Warn("presence cache cannot be read", "users", len(ask), "err", err)
		}
		return out
	}
	for j, e := range entries {
		p := out[at[j]]
		for _, r := range e.Routes {
			p.Online, p.Platforms = true, append(p.Platforms, r.Platform)
		}
	}
	return out
}

// platforms of the connections that are known here.
func (l *Logic) platforms(tenant, uid string) []string {
	s, _ := l.users.lock(tenant, uid)
	defer s.Unlock()
	var out []string
	if u := s.all[presence.User{Tenant: tenant, UID: uid}]; u != nil {
		for _, c := range u.conns {
			out = append(out, c.Platform)
		}
	}
	return out
}

// typing tells the other side of a private conversation that the user writes. It is never
// stored, and dropped under load.
func (l *Logic) typing(_ context.Context, r *request, req *im.Typing) (message, error) {
	id, err := member(r, req.Conv)
	if err != nil {
		return nil, err
	}
	if id.Kind != conv.KindPrivate {
		return nil, code.Errorf(code.BadRequest, "conv %s is not a private conversation", req.Conv)
	}
	to := &tier.TypingTo{
		Tenant: r.up.Tenant, Uid: id.Peer(r.up.Uid),
		Typing: &im.Typing{Conv: req.Conv, Uid: r.up.Uid, Stopped: req.Stopped},
	}
	home, here := l.home(route.Hash(to.Tenant, to.Uid))
	switch {
	case here:
		l.pushTyping(to)
	case l.peers.backlog(lineKey{home.Addr, home.Boot}) < typingBacklog:
		l.pass(home, parcel{typing: to})
	}
	return &im.Typing{}, nil
}

// typingBacklog is how many items may wait for an instance before typing is dropped.
const typingBacklog = 512

// pushTyping sends a typing notice down to the connections of a user whose home this is.
func (l *Logic) pushTyping(t *tier.TypingTo) {
	if t.Typing == nil {
		return
	}
	body, err := t.Typing.Marshal(nil)
	if err != nil {
		return
	}
	s, _ := l.users.lock(t.Tenant, t.Uid)
	defer s.Unlock()
	u := s.all[presence.User{Tenant: t.Tenant, UID: t.Uid}]
	if u == nil {
		return
	}
	for _, c := range u.conns {
		if !c.syncing && l.gateways.backlog(c.line()) < typingBacklog {
			l.down(c.line(), &tier.Down{Conn: c.Conn, Cmd: uint32(im.Cmd_TYPING), Body: body}, nil)
		}
	}
}

// call runs a business command of the platform, whose services jtransit reaches. It is not
// repeated here: whether it may run twice is known there.
func (l *Logic) call(ctx context.Context, r *request, req *im.Call) (message, error) {
	if l.deps.Jtransit == nil {
		return nil, code.Errorf(code.Unsupported, "business command %.64q is not configured", req.Name)
	}
	reply, err := l.deps.Jtransit.Call(ctx, &tier.CallRequest{
		Tenant: r.up.Tenant, Uid: r.up.Uid, Name: req.Name, Data: req.Data, RequestId: r.up.RequestId,
		TimeoutMs: max(1, time.Until(r.deadline).Milliseconds()),
	})
	if err != nil {
		return nil, err
	}
	if c := code.Code(reply.Code); c != code.OK {
		refused := code.Errorf(c, "%s", reply.Message)
		refused.RetryAfter = time.Duration(reply.RetryAfterMs) * time.Millisecond
		return nil, refused
	}
	return &im.CallRsp{Data: reply.Data}, nil
}
