package httpentry

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"slices"
	"unicode/utf8"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/idl/im"
	"hongyan/internal/notice"
)

// The HTTP API proper: each route is one command of the client protocol, executed by the
// Logic of the caller's user.

const (
	tagMessages      = "messages"
	tagConversations = "conversations"
	tagContacts      = "contacts"
	tagSync          = "sync"
	tagCalls         = "calls"
	tagNotices       = "notices"
	tagPoll          = "long poll"
	tagOperation     = "operation"
)

var errNotUTF8 = errors.New("not UTF-8")

func unescapeQuery(s string) (string, error) {
	out, err := url.QueryUnescape(s)
	if err == nil && !utf8.ValidString(out) {
		err = errNotUTF8
	}
	return out, err
}

func convParam() param {
	return pathParam("conv", "Conversation id, such as `p:alice:bob`.")
}

// apiRoutes are the routes that Logic answers.
func apiRoutes() table {
	return slices.Concat(messageRoutes(), conversationRoutes(), contactRoutes())
}

const idempotencyNote = " Safe to repeat with the same `client_msg_id` (or `Idempotency-Key` header): the first result is returned."

func messageRoutes() table {
	return table{
		{
			method: "POST", path: "/v1/messages", id: "sendMessage", tag: tagMessages, title: "Send a message",
			detail: "To a user (`to`) or into a conversation (`conv`). Answered when the message is stored durably." + idempotencyNote,
			in:     "Send", inSkip: []string{"attempt", "after"}, out: "SendAck", cmd: im.Cmd_SEND, build: buildSend,
			errors: []code.Code{code.Denied, code.Blocked, code.NotFound, code.Conflict, code.TooLarge, code.RateLimited, code.UnknownOutcome},
		},
		{
			method: "POST", path: "/v1/messages/{conv}/{seq}/recall", id: "recallMessage", tag: tagMessages, title: "Recall a message",
			detail: "Takes text and data of one's own message back, on every device and in history. The body may be missing." + idempotencyNote,
			params: []param{convParam(), pathNumber("seq", "The message's number in the conversation.")},
			in:     "Modify", inSkip: []string{"conv", "seq", "text", "data", "attempt"}, inOpt: true,
			out: "SendAck", cmd: im.Cmd_RECALL, build: buildModify,
			errors: []code.Code{code.Denied, code.NotFound, code.Recalled, code.Conflict, code.UnknownOutcome},
		},
		{
			method: "POST", path: "/v1/messages/{conv}/{seq}/edit", id: "editMessage", tag: tagMessages, title: "Edit a message",
			detail: "Replaces text and data of one's own message." + idempotencyNote,
			params: []param{convParam(), pathNumber("seq", "The message's number in the conversation.")},
			in:     "Modify", inSkip: []string{"conv", "seq", "attempt"}, out: "SendAck", cmd: im.Cmd_EDIT, build: buildModify,
			errors: []code.Code{code.Denied, code.NotFound, code.Recalled, code.Conflict, code.TooLarge, code.UnknownOutcome},
		},
	}
}

func buildSend(c *call) (message, error) {
	m := new(im.Send)
	if err := m.Unmarshal(c.proto); err != nil {
		return nil, err
	}
	if (m.To == "") == (m.Conv == "") {
		return nil, code.Errorf(code.BadRequest, "exactly one of to and conv must be given")
	}
	id, err := c.messageID(m.ClientMsgId)
	m.ClientMsgId = id
	return m, err
}

func buildModify(c *call) (message, error) {
	m := new(im.Modify)
	if err := m.Unmarshal(c.proto); err != nil {
		return nil, err
	}
	m.Conv, m.Seq = c.text("conv"), c.num("seq")
	id, err := c.messageID(m.ClientMsgId)
	m.ClientMsgId = id
	return m, err
}

func conversationRoutes() table {
	return table{
		{
			method: "GET", path: "/v1/conversations", id: "listConversations", tag: tagConversations, title: "List conversations",
			detail: "Most recently changed first.",
			params: []param{
				queryNumber("limit", 200, "How many; 0 = the default."),
				queryNumber("before_version", 0, "Those below this version: `nextBeforeVersion` of the page before."),
				queryNumber("messages", 100, "Newest messages of each to include."),
				{name: "hidden", kind: flag, doc: "Hidden ones too."},
			},
			out: "ConversationsRsp", cmd: im.Cmd_CONVERSATIONS,
			build: func(c *call) (message, error) {
				return &im.Conversations{
					Limit: uint32(c.num("limit")), BeforeVersion: c.num("before_version"),
					Messages: uint32(c.num("messages")), Hidden: c.flag("hidden"),
				}, nil
			},
		},
		{
			method: "GET", path: "/v1/conversations/{conv}/messages", id: "listMessages", tag: tagConversations, title: "Read history",
			detail: "Either the newest `limit` below `before_seq` (0 = from the end), or the range `from_seq`..`to_seq`. Ascending.",
			params: []param{
				convParam(),
				queryNumber("before_seq", 0, "Newest below this."),
				queryNumber("limit", 200, "How many; 0 = 50."),
				queryNumber("from_seq", 0, "First of a range."),
				queryNumber("to_seq", 0, "Last of a range."),
			},
			out: "HistoryRsp", cmd: im.Cmd_HISTORY, build: buildHistory, errors: []code.Code{code.NotFound, code.Denied},
		},
		{
			method: "POST", path: "/v1/conversations/{conv}/read", id: "markRead", tag: tagConversations, title: "Mark as read",
			detail: "Up to and including `seq`. Never goes back.",
			params: []param{convParam()},
			in:     "Read", inSkip: []string{"conv"}, out: "ReadAck", cmd: im.Cmd_READ,
			build: func(c *call) (message, error) {
				m := new(im.Read)
				err := m.Unmarshal(c.proto)
				m.Conv = c.text("conv")
				return m, err
			},
			errors: []code.Code{code.NotFound, code.Denied},
		},
		{
			method: "PUT", path: "/v1/conversations/{conv}/settings", id: "setConversation", tag: tagConversations, title: "Change settings",
			detail: "`pinned`, `muted`, `hidden`, `remark`: those that the body names are set, the others stay.",
			params: []param{convParam()},
			in:     "Settings", inSkip: []string{"conv"}, out: "SettingsAck", cmd: im.Cmd_SETTINGS, build: buildSettings,
			errors: []code.Code{code.NotFound, code.Denied},
		},
		{
			method: "GET", path: "/v1/unread", id: "unread", tag: tagConversations, title: "Count unread messages",
			params: []param{{name: "conv", doc: "Of one conversation; missing = of all."}},
			out:    "UnreadRsp", cmd: im.Cmd_UNREAD,
			build: func(c *call) (message, error) { return &im.Unread{Conv: c.text("conv")}, nil },
		},
		{
			method: "POST", path: "/v1/sync", id: "sync", tag: tagSync, title: "Catch up",
			detail: "What changed after a cursor. `mustReset` = take the list anew, from cursor 0.",
			in:     "Sync", out: "SyncRsp", cmd: im.Cmd_SYNC,
			build: func(c *call) (message, error) {
				m := new(im.Sync)
				return m, m.Unmarshal(c.proto)
			},
		},
	}
}

func buildHistory(c *call) (message, error) {
	m := &im.History{
		Conv: c.text("conv"), BeforeSeq: c.num("before_seq"), Limit: uint32(c.num("limit")),
		FromSeq: c.num("from_seq"), ToSeq: c.num("to_seq"),
	}
	switch ranged := m.FromSeq > 0 || m.ToSeq > 0; {
	case ranged && m.BeforeSeq > 0:
		return nil, code.Errorf(code.BadRequest, "before_seq goes with limit, not with from_seq and to_seq")
	case ranged && (m.FromSeq == 0 || m.ToSeq < m.FromSeq):
		return nil, code.Errorf(code.BadRequest, "a range needs 0 < from_seq <= to_seq")
	}
	return m, nil
}

func buildSettings(c *call) (message, error) {
	m := new(im.Settings)
	if err := m.Unmarshal(c.proto); err != nil {
		return nil, err
	}
	m.Conv = c.text("conv")
	if len(m.Fields) == 0 { // JSON says what it sets by naming it
		m.Fields = c.keys
	}
	if len(m.Fields) == 0 {
		return nil, code.Errorf(code.BadRequest, "the body names nothing to set")
	}
	return m, nil
}

func contactRoutes() table {
	return table{
		{
			method: "GET", path: "/v1/contacts", id: "listContacts", tag: tagContacts, title: "List contacts",
			detail: "The other sides of one's private conversations, most recent first.",
			params: []param{
				queryNumber("limit", 200, "How many; 0 = the default."),
				queryNumber("before_version", 0, "`nextBeforeVersion` of the page before."),
			},
			out: "ContactsRsp", cmd: im.Cmd_CONTACTS,
			build: func(c *call) (message, error) {
				return &im.Contacts{Limit: uint32(c.num("limit")), BeforeVersion: c.num("before_version")}, nil
			},
		},
		{
			method: "PUT", path: "/v1/contacts/{uid}/block", id: "blockContact", tag: tagContacts, title: "Block a user",
			detail: "His messages are refused from now on.",
			params: []param{pathParam("uid", "The user to block.")},
			out:    "BlockAck", cmd: im.Cmd_BLOCK, build: buildBlock(true), errors: []code.Code{code.NotFound, code.UnknownOutcome},
		},
		{
			method: "DELETE", path: "/v1/contacts/{uid}/block", id: "unblockContact", tag: tagContacts, title: "Unblock a user",
			params: []param{pathParam("uid", "The user to take messages from again.")},
			out:    "BlockAck", cmd: im.Cmd_BLOCK, build: buildBlock(false), errors: []code.Code{code.NotFound, code.UnknownOutcome},
		},
		{
			method: "GET", path: "/v1/presence", id: "presence", tag: tagContacts, title: "Ask who is online",
			params: []param{{name: "uids", kind: list, required: true, doc: "At most 100, separated by commas."}},
			out:    "PresenceRsp", cmd: im.Cmd_PRESENCE, build: buildPresence,
		},
	}
}

// callRoutes reach services of the platform, as CALL does (ZZ-11).
func (s *Server) callRoutes() table {
	return table{{
		method: "POST", path: "/v1/calls/{name}", id: "callService", tag: tagCalls, title: "Call a service of the platform",
		detail: "The body is the JSON of the service's request, the answer that of its reply: what is configured for the name in jtransit says which. " +
			"It is not repeated here, nor deduplicated: after `expired` and `unknown_outcome` it may have run.",
		params: []param{pathParam("name", "The call, as jtransit has it: `order.get`.")},
		raw:    true, outType: "object", handle: s.callService,
		errors: []code.Code{code.CallRefused, code.UnknownOutcome},
	}}
}

func (s *Server) callService(ctx context.Context, c *call) error {
	body, err := (&im.Call{Name: c.text("name"), Data: c.raw}).Marshal(nil)
	if err != nil {
		return err
	}
	answer, err := s.execute(ctx, c.x.caller, im.Cmd_CALL, body, c.x.id)
	if err != nil {
		return err
	}
	var rsp im.CallRsp
	if err := rsp.Unmarshal(answer); err != nil {
		return err
	}
	c.x.reply(bytes.Clone(rsp.Data))
	return nil
}

// noticeRoutes go through the queue to every gateway (JT-13).
func (s *Server) noticeRoutes() table {
	return table{{
		method: "POST", path: "/v1/notices", id: "announce", tag: tagNotices, title: "Tell everybody online", app: true,
		detail: "Apps only. Every session of the tenant that is connected now gets an ANNOUNCE, at most once: nothing is stored, and who is " +
			"offline or does not read fast enough goes without. Repeating an `id` tells it once.",
		in: "Announce", out: "AnnounceRsp", handle: s.announce, errors: []code.Code{code.Denied, code.Unsupported, code.UnknownOutcome},
	}}
}

func (s *Server) announce(ctx context.Context, c *call) error {
	var a im.Announce
	if err := a.Unmarshal(c.proto); err != nil {
		return err
	}
	queue := s.deps.Gate.Queue
	if queue == nil {
		return code.Errorf(code.Unsupported, "no queue is configured here")
	}
	n := &event.OnlineNotice{
		Id: a.Id, Tenant: c.x.caller.tenant, Platforms: a.Platforms, Classes: a.Classes,
		Text: a.Text, Data: a.Data, TtlMs: int64(a.TtlMs),
	}
	m, err := notice.Message(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	if err := queue.Publish(ctx, m); err != nil {
		return err
	}
	answer, err := (&im.AnnounceRsp{Id: n.Id}).Marshal(nil)
	if err != nil {
		return err
	}
	json, err := s.schemas.json("AnnounceRsp", answer)
	if err != nil {
		return err
	}
	c.x.reply(json)
	return nil
}

func buildBlock(on bool) func(*call) (message, error) {
	return func(c *call) (message, error) {
		id, err := c.messageID("")
		return &im.Block{Uid: c.text("uid"), On: on, ClientMsgId: id}, err
	}
}

// maxPresence is how many users one question may name.
const maxPresence = 100

func buildPresence(c *call) (message, error) {
	uids := c.list("uids")
	if len(uids) == 0 || len(uids) > maxPresence {
		return nil, code.Errorf(code.BadRequest, "uids must name 1 to %d users", maxPresence)
	}
	return &im.Presence{Uids: uids}, nil
}
