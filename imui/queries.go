package imui

import (
	"context"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/platform"
)

// MaxOnline is how many users one Online may ask for.
const MaxOnline = 100

// Unread implements platform.IMUI.
func (s *Service) Unread(ctx context.Context, req *platform.UnreadRequest) (*platform.UnreadReply, error) {
	var rsp im.UnreadRsp
	status := s.query(ctx, "Unread", req.Caller, req.Uid, im.Cmd_UNREAD, &im.Unread{Conv: req.Conv}, &rsp)
	reply := &platform.UnreadReply{Status: status, Total: rsp.Total}
	for _, c := range rsp.Conversations {
		reply.Conversations = append(reply.Conversations, &platform.ConversationUnread{Conv: c.Conv, Unread: c.Unread})
	}
	return reply, nil
}

// Conversations implements platform.IMUI.
func (s *Service) Conversations(ctx context.Context, req *platform.ConversationsRequest) (*platform.ConversationsReply, error) {
	var rsp im.ConversationsRsp
	status := s.query(ctx, "Conversations", req.Caller, req.Uid, im.Cmd_CONVERSATIONS,
		&im.Conversations{BeforeVersion: req.BeforeVersion, Limit: req.Limit, Messages: 1}, &rsp)
	reply := &platform.ConversationsReply{Status: status, More: rsp.More, NextBeforeVersion: rsp.NextBeforeVersion}
	for _, c := range rsp.Conversations {
		reply.Conversations = append(reply.Conversations, conversation(c))
	}
	return reply, nil
}

// History implements platform.IMUI.
func (s *Service) History(ctx context.Context, req *platform.HistoryRequest) (*platform.HistoryReply, error) {
	var rsp im.HistoryRsp
	status := s.query(ctx, "History", req.Caller, req.Uid, im.Cmd_HISTORY,
		&im.History{Conv: req.Conv, BeforeSeq: req.BeforeSeq, Limit: req.Limit}, &rsp)
	reply := &platform.HistoryReply{Status: status, More: rsp.More}
	for _, m := range rsp.Messages {
		reply.Messages = append(reply.Messages, message(m))
	}
	return reply, nil
}

// Contacts implements platform.IMUI.
func (s *Service) Contacts(ctx context.Context, req *platform.ContactsRequest) (*platform.ContactsReply, error) {
	var rsp im.ContactsRsp
	status := s.query(ctx, "Contacts", req.Caller, req.Uid, im.Cmd_CONTACTS,
		&im.Contacts{BeforeVersion: req.BeforeVersion, Limit: req.Limit}, &rsp)
	reply := &platform.ContactsReply{Status: status, More: rsp.More, NextBeforeVersion: rsp.NextBeforeVersion}
	for _, c := range rsp.Contacts {
		reply.Contacts = append(reply.Contacts, &platform.Contact{
			Uid: c.Uid, Conv: c.Conv, Remark: c.Remark, Blocked: c.Blocked, Online: c.Online, LastMs: c.LastMs,
		})
	}
	return reply, nil
}

// Online implements platform.IMUI.
func (s *Service) Online(ctx context.Context, req *platform.OnlineRequest) (*platform.OnlineReply, error) {
	var rsp im.PresenceRsp
	status := s.call("Online", req.Caller, func() error {
		if len(req.Uids) == 0 || len(req.Uids) > MaxOnline {
			return code.Errorf(code.BadRequest, "uids: %d users; must be 1 to %d", len(req.Uids), MaxOnline)
		}
		for _, uid := range req.Uids {
			if err := checkUID("uids", uid); err != nil {
				return err
			}
		}
		// Who asks does not matter for a system: the first of them stands for it.
		return s.run(ctx, req.Caller, req.Uids[0], im.Cmd_PRESENCE, &im.Presence{Uids: req.Uids}, &rsp)
	})
	reply := &platform.OnlineReply{Status: status}
	for _, u := range rsp.Users {
		reply.Users = append(reply.Users, &platform.UserOnline{Uid: u.Uid, Online: u.Online, Platforms: u.Platforms})
	}
	return reply, nil
}

// query runs a reading command for one user.
func (s *Service) query(ctx context.Context, method string, from *platform.Caller, uid string, cmd im.Cmd, req, rsp body) *platform.Status {
	return s.call(method, from, func() error {
		if err := checkUID("uid", uid); err != nil {
			return err
		}
		return s.run(ctx, from, uid, cmd, req, rsp)
	})
}

func conversation(c *im.Conversation) *platform.Conversation {
	out := &platform.Conversation{
		Conv: c.Conv, Peer: c.Peer, LastSeq: c.LastSeq, ReadSeq: c.ReadSeq, PeerReadSeq: c.PeerReadSeq, Unread: c.Unread,
		Pinned: c.Pinned, Muted: c.Muted, Remark: c.Remark, Blocked: c.Blocked, UpdatedMs: c.UpdatedMs,
	}
	if n := len(c.Messages); n > 0 {
		out.Last = message(c.Messages[n-1])
	}
	return out
}

func message(m *im.Message) *platform.Message {
	return &platform.Message{
		Conv: m.Conv, Seq: m.Seq, Sender: m.Sender, ClientMsgId: m.ClientMsgId, Kind: uint32(m.Kind), Text: m.Text, Data: m.Data,
		CreatedMs: m.CreatedMs, Recalled: m.Recalled, TargetSeq: m.TargetSeq, ModSeq: m.ModSeq,
	}
}
