package e2e

import (
	"bufio"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
	"hongyan/tests/e2e/cluster"
)

// rawConn speaks frames by hand.
type rawConn struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func dialRaw(t testing.TB, s *cluster.System) *rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", s.TCP[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &rawConn{t, nc, bufio.NewReader(nc)}
}

func (c *rawConn) write(cmd im.Cmd, seq uint32, body interface{ Marshal([]byte) ([]byte, error) }) {
	c.t.Helper()
	encoded, err := body.Marshal(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.nc.Write(wire.Append(nil, &wire.Frame{Cmd: cmd, Seq: seq, Body: encoded})); err != nil {
		c.t.Fatal(err)
	}
}

// answer is the next response or ERROR; io.EOF when the server has closed.
func (c *rawConn) answer() (wire.Frame, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	var buf []byte
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return wire.Frame{}, err
		}
		buf = append(buf, b)
		f, _, err := wire.Decode(buf, 1<<20)
		if err == wire.ErrShort {
			continue
		}
		if err != nil {
			return f, err
		}
		if f.Flags&wire.FlagResponse != 0 || f.Cmd == im.Cmd_ERROR {
			return f, nil
		}
		buf = buf[:0]
	}
}

func (c *rawConn) login(token string) {
	c.t.Helper()
	c.write(im.Cmd_AUTH, 1, &im.Auth{Token: token, Device: "raw", ConnectionCounter: 1})
	if f, err := c.answer(); err != nil || f.Status != code.OK {
		c.t.Fatalf("login: %v %v", f.Status, err)
	}
}

// refused checks that a command is answered with the code and that the connection lives on.
func (c *rawConn) refused(want code.Code, cmd im.Cmd, body interface{ Marshal([]byte) ([]byte, error) }) {
	c.t.Helper()
	c.write(cmd, 7, body)
	f, err := c.answer()
	if err != nil || f.Status != want {
		c.t.Fatalf("%v: got %v, %v; want %v", cmd, f.Status, err, want)
	}
	var e im.Error
	if err := e.Unmarshal(f.Body); err != nil || e.Message == "" || e.RequestId == "" {
		c.t.Errorf("%v: error body %+v, %v", cmd, e, err)
	}
}

// TestBadFrames: P21, P22 over a real socket. The connection ends with a code, nothing else does.
func TestBadFrames(t *testing.T) {
	s := cluster.Dev(t)
	for name, c := range map[string]struct {
		bytes string
		want  code.Code
	}{
		"not our magic":          {"474554202f20485454502f312e310d0a0d0a", code.CloseProtocolError},
		"too large":              {"a7140000" + "00020000" + "00000001" + "7fffffff", code.CloseTooLarge},
		"over 4 KiB before AUTH": {"a7140000" + "00020000" + "00000001" + "00001001", code.CloseTooLarge},
		"command before AUTH":    {"a7140000" + "00040000" + "00000001" + "00000000", code.CloseProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := hex.DecodeString(c.bytes)
			if err != nil {
				t.Fatal(err)
			}
			conn := dialRaw(t, s)
			if _, err := conn.nc.Write(raw); err != nil {
				t.Fatal(err)
			}
			f, err := conn.answer()
			var e im.Error
			if err != nil || e.Unmarshal(f.Body) != nil || code.Code(e.Code) != c.want {
				t.Fatalf("got %+v %+v, %v; want %v", f, e, err, c.want)
			}
			if _, err := conn.answer(); err == nil {
				t.Fatal("the connection was not closed")
			}
		})
	}
	conn := dialRaw(t, s)
	conn.login(s.Token(t, "alice"))
}

func TestBadTokens(t *testing.T) {
	s := cluster.Dev(t)
	good := s.Token(t, "alice")
	for name, token := range map[string]string{
		"none": "", "nonsense": "x.y.z", "cut": good[:len(good)-5], "changed": strings.Replace(good, ".", "A.", 1),
	} {
		conn := dialRaw(t, s)
		conn.write(im.Cmd_AUTH, 1, &im.Auth{Token: token, Device: "raw"})
		f, err := conn.answer()
		if err != nil || (f.Status != code.BadToken && f.Status != code.CloseBadToken) {
			t.Errorf("%s: got %v, %v", name, f.Status, err)
		}
		for err == nil {
			_, err = conn.answer()
		}
		if err != io.EOF && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: not closed: %v", name, err)
		}
		status, body := request(t, s, "GET", "/v1/unread", "Bearer "+token, nil)
		if status != 401 || body["name"] != "bad_token" || body["request_id"] == "" {
			t.Errorf("%s by HTTP: %d %v", name, status, body)
		}
	}
}

// TestBadRequests: every answer has a code, and the connection goes on.
func TestBadRequests(t *testing.T) {
	s := cluster.Dev(t)
	newDevice(t, s, "alice", "app", "tcp").say("bob", "private")
	conn := dialRaw(t, s)
	conn.login(s.Token(t, "mallory"))
	send := func(change func(*im.Send)) *im.Send {
		m := &im.Send{ClientMsgId: "m1", Attempt: 1, To: "bob", Text: "x"}
		change(m)
		return m
	}
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.To = "" }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.To = "no such uid!" }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.ClientMsgId = "" }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.ClientMsgId = strings.Repeat("x", 1000) }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.Kind = im.Kind_EVENT_RECALL }))
	conn.refused(code.TooLarge, im.Cmd_SEND, send(func(m *im.Send) { m.Text = strings.Repeat("x", 200<<10) }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.Text = "\xff\xfe" }))
	conn.refused(code.BadRequest, im.Cmd_SEND, send(func(m *im.Send) { m.To = "mallory" }))
	conn.refused(code.OutOfOrder, im.Cmd_SEND, send(func(m *im.Send) { m.After = "never-sent" }))
	for _, other := range []struct {
		cmd  im.Cmd
		body interface{ Marshal([]byte) ([]byte, error) }
	}{
		{im.Cmd_HISTORY, &im.History{Conv: conv}},
		{im.Cmd_READ, &im.Read{Conv: conv, Seq: 1}},
		{im.Cmd_RECALL, &im.Modify{ClientMsgId: "r1", Conv: conv, Seq: 1}},
		{im.Cmd_SEND, send(func(m *im.Send) { m.To, m.Conv = "", conv })},
		{im.Cmd_SETTINGS, &im.Settings{Conv: conv, Pinned: true, Fields: []string{"pinned"}}},
	} { // P25: another's conversation
		conn.write(other.cmd, 9, other.body)
		if f, err := conn.answer(); err != nil || (f.Status != code.NotFound && f.Status != code.Denied) {
			t.Errorf("%v of another's conversation: %v, %v", other.cmd, f.Status, err)
		}
	}
	conn.refused(code.BadRequest, im.Cmd_HISTORY, &im.History{Conv: "nonsense"})
	conn.refused(code.NotFound, im.Cmd_HISTORY, &im.History{Conv: "p:mallory:nobody"})
	conn.refused(code.Unsupported, im.Cmd(999), &im.Ping{})
	conn.write(im.Cmd_SYNC, 11, &im.Sync{Epoch: 99, Cursor: 1 << 60})
	f, err := conn.answer()
	var sync im.SyncRsp
	if err != nil || f.Status != code.OK || sync.Unmarshal(f.Body) != nil || !sync.MustReset {
		t.Errorf("a cursor beyond the head: %v %+v, %v", f.Status, sync, err)
	}
}

func TestBadHTTP(t *testing.T) {
	s := cluster.Dev(t)
	auth := bearer(t, s, "alice")
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		want         string
	}{
		"no route":          {"GET", "/v1/nothing", nil, 404, "not_found"},
		"wrong method":      {"DELETE", "/v1/messages", nil, 405, ""},
		"empty body":        {"POST", "/v1/messages", "", 400, "bad_request"},
		"not JSON":          {"POST", "/v1/messages", "{", 400, "bad_request"},
		"unknown field":     {"POST", "/v1/messages", map[string]any{"to": "bob", "txt": "x"}, 400, "bad_request"},
		"wrong type":        {"POST", "/v1/messages", map[string]any{"to": 5}, 400, "bad_request"},
		"huge body":         {"POST", "/v1/messages", map[string]any{"to": "bob", "text": strings.Repeat("x", 2<<20)}, 413, "too_large"},
		"negative cursor":   {"POST", "/v1/sync", map[string]any{"cursor": -1}, 400, "bad_request"},
		"negative limit":    {"GET", "/v1/conversations?limit=-1", nil, 400, "bad_request"},
		"another's history": {"GET", "/v1/conversations/p:bob:carol/messages", nil, 403, "denied"},
		"unknown query":     {"GET", "/v1/unread?sky=blue", nil, 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := request(t, s, c.method, c.path, auth, c.body)
			if status != c.status || (c.want != "" && body["name"] != c.want) || body["request_id"] == nil || body["retryable"] == nil {
				t.Fatalf("got %d %v, want %d %s", status, body, c.status, c.want)
			}
		})
	}
}
