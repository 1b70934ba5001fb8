package httpentry

import (
	"bytes"
	"context"
	"encoding/json"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

// pollRoutes are the long poll's. They carry no credential of the API: open has a token in
// its body, the others a sid.
func (s *Server) pollRoutes() table {
	return table{
		{
			method: "POST", path: "/v1/lp/open", id: "pollOpen", tag: tagPoll, title: "Open a long-poll session", public: true,
			detail: "Logs in, and answers with a sid and what changed after the cursor. `holdS` is what polls are held from now on, 5 to 50 s.",
			in:     "LpOpen", out: "LpOpenRsp", handle: s.pollOpen,
			errors: []code.Code{code.Denied, code.StaleLogin, code.TooManySessions},
		},
		{
			method: "POST", path: "/v1/lp/poll", id: "pollPoll", tag: tagPoll, title: "Poll", public: true,
			detail: "Held until something is there for the user, or the hold is over. The cursor confirms everything up to it; " +
				"what it does not confirm is answered again. `n` counts up: a newer poll ends the older one with `superseded`. " +
				"`sync` = send SYNC; `kick` = the session has ended for good. Poll again at once after every 200.",
			in: "LpPoll", out: "LpPollRsp", handle: s.pollPoll,
		},
		{
			method: "POST", path: "/v1/lp/send", id: "pollSend", tag: tagPoll, title: "Send a command", public: true,
			detail: "`command` is a frame in its text form, such as `{\"cmd\":\"SEND\",\"seq\":7,\"body\":{...}}`. Answers with the " +
				"response frame; one-way commands with `{}`.",
			outType: "frame", handle: s.pollSend,
			errors: []code.Code{code.Denied, code.Blocked, code.NotFound, code.Conflict, code.RateLimited, code.UnknownOutcome},
		},
		{
			method: "POST", path: "/v1/lp/close", id: "pollClose", tag: tagPoll, title: "Close a session", public: true,
			detail:  "The user is not online here any more. The sid stays good until the token's expiry.",
			outType: "close", handle: s.pollClose,
		},
	}
}

func (s *Server) pollOpen(ctx context.Context, c *call) error {
	req := new(im.LpOpen)
	if err := req.Unmarshal(c.proto); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	rsp, err := s.pollers.open(ctx, req, c.x.clientIP())
	if err != nil {
		return err
	}
	encoded, err := rsp.Marshal(nil)
	if err != nil {
		return err
	}
	body, err := s.json.FromProto("hongyan.im.LpOpenRsp", encoded)
	if err != nil {
		return err
	}
	c.x.reply(body)
	return nil
}

func (s *Server) pollPoll(_ context.Context, c *call) error {
	req := new(im.LpPoll)
	if err := req.Unmarshal(c.proto); err != nil {
		return err
	}
	h := c.x.hold()
	session, err := s.pollers.poll(req, c.x.clientIP(), h)
	switch {
	case err != nil:
		h.answer(nil, err, false)
	case session != nil:
		h.belongsTo(session)
	}
	return nil
}

// pollCommand is the body of /v1/lp/send and, without command, of /v1/lp/close.
type pollCommand struct {
	Sid     string          `json:"sid"`
	Command json.RawMessage `json:"command"`
}

func (c *call) pollCommand() (pollCommand, error) {
	var req pollCommand
	if err := jsonContent(string(c.x.rc.Request.Header.ContentType())); err != nil {
		return req, err
	}
	d := json.NewDecoder(bytes.NewReader(c.x.body()))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, code.Errorf(code.BadRequest, "the body is not {\"sid\": ..., \"command\": ...}: %v", err)
	}
	if d.More() {
		return req, code.Errorf(code.BadRequest, "something follows the body")
	}
	return req, nil
}

func (s *Server) pollSend(ctx context.Context, c *call) error {
	req, err := c.pollCommand()
	if err != nil {
		return err
	}
	f, err := s.json.DecodeText(req.Command, s.cfg.Gate.MaxBody)
	if err != nil {
		return requestError(err)
	}
	session, id, err := s.pollers.find(req.Sid)
	if err != nil {
		return err
	}
	if !pollable(f.Cmd) {
		return code.Errorf(code.Unsupported, "%s is not sent this way", f.Cmd)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	answer, err := s.pollCall(ctx, session, id, f, c.x.id)
	if err != nil || answer == nil {
		if err == nil {
			c.x.reply([]byte("{}"))
		}
		return err
	}
	body, err := s.json.EncodeText(answer)
	if err != nil {
		return err
	}
	c.x.reply(body)
	return nil
}

// pollCall runs a command in its session or, where the session does not live here, for its
// user as the HTTP API does. nil: there is no response.
func (s *Server) pollCall(ctx context.Context, session *pollSession, id sid, f wire.Frame, requestID string) (*wire.Frame, error) {
	asked := f.Seq
	if f.Cmd == im.Cmd_TYPING || f.Cmd == im.Cmd_PUSH_ACK || f.Flags&wire.FlagOneWay != 0 {
		if session != nil {
			f.Flags |= wire.FlagOneWay
			session.receive(f)
		} else if f.Cmd == im.Cmd_TYPING {
			_, err := s.execute(ctx, caller{tenant: id.tenant, uid: id.uid}, f.Cmd, f.Body, requestID)
			return nil, err
		}
		return nil, nil
	}
	if session == nil {
		if f.Cmd == im.Cmd_LOGOUT || f.Cmd == im.Cmd_PING {
			return nil, code.Errorf(code.Unavailable, "the session does not live here: poll first")
		}
		body, err := s.execute(ctx, caller{tenant: id.tenant, uid: id.uid}, f.Cmd, f.Body, requestID)
		return &wire.Frame{Cmd: f.Cmd, Flags: wire.FlagResponse, Seq: asked, Body: body}, err
	}
	rsp, err := session.roundTrip(ctx, f)
	if err != nil {
		return nil, err
	}
	rsp.Cmd, rsp.Seq = f.Cmd, asked
	return &rsp, nil
}

// pollable tells the commands that have a meaning within a session that is open.
func pollable(cmd im.Cmd) bool {
	switch cmd {
	case im.Cmd_HELLO, im.Cmd_AUTH, im.Cmd_PUSH, im.Cmd_NOTICE, im.Cmd_KICK, im.Cmd_GOAWAY, im.Cmd_ERROR:
		return false
	}
	return true
}

// requestError is why a frame in the body of a request cannot be read.
func requestError(err error) error {
	if e := code.From(err); e.Code == code.CloseTooLarge {
		return code.Errorf(code.TooLarge, "%s", e.Message)
	}
	return err
}

func (s *Server) pollClose(_ context.Context, c *call) error {
	req, err := c.pollCommand()
	if err != nil {
		return err
	}
	if len(req.Command) > 0 {
		return code.Errorf(code.BadRequest, "command is not part of the body")
	}
	session, _, err := s.pollers.find(req.Sid)
	if err != nil {
		return err
	}
	if session != nil {
		session.end("closed by the client")
	}
	c.x.reply([]byte("{}"))
	return nil
}
