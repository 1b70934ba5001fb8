package rocketmq

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
)

// Commands of the remoting protocol.
const (
	cmdPull        = 11
	cmdUpdateTopic = 17
	cmdMaxOffset   = 30
	cmdMinOffset   = 31
	cmdRoute       = 105
	cmdCluster     = 106
	cmdUpdateGroup = 200
	cmdDeleteGroup = 207
	cmdDropTopic   = 215 // at a broker
	cmdForgetTopic = 216 // at a name server
)

// Answers.
const (
	ansOK            = 0
	ansTopicNotExist = 17
	ansPullNotFound  = 19
	ansPullRetry     = 20
	ansPullMoved     = 21
)

// caller makes single calls to name servers and brokers, each on a connection of its own:
// for what is asked at a start or by an operator.
type caller struct{ accessKey, secretKey string }

// answer of a call.
type answer struct {
	Code      int               `json:"code"`
	Remark    string            `json:"remark"`
	ExtFields map[string]string `json:"extFields"`
	body      []byte
}

// answerError is an answer that is not OK.
type answerError struct {
	code   int
	remark string
}

func (e *answerError) Error() string {
	first, _, _ := strings.Cut(e.remark, "\n")
	return fmt.Sprintf("answer %d: %s", e.code, first)
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

// call sends one command. An answer other than those of ok is an *answerError.
func (c *caller) call(ctx context.Context, addr string, command int, fields map[string]string, body []byte, ok ...int) (*answer, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, has := ctx.Deadline(); has {
		_ = conn.SetDeadline(deadline)
	}
	frame, err := c.encode(command, fields, body)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	a, err := readAnswer(conn)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", addr, err)
	}
	if a.Code != ansOK && !slices.Contains(ok, a.Code) {
		return nil, &answerError{a.Code, a.Remark}
	}
	return a, nil
}

// encode: size, size of the header, header in JSON, body.
func (c *caller) encode(command int, fields map[string]string, body []byte) ([]byte, error) {
	header, err := json.Marshal(map[string]any{
		"code": command, "language": "GO", "version": 317, "opaque": 1, "flag": 0, "remark": "",
		"extFields": c.signed(fields, body),
	})
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)+len(body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
	return append(append(frame, header...), body...), nil
}

// signed adds the signature of RocketMQ's ACL: the values in the order of their names, then
// the body.
func (c *caller) signed(fields map[string]string, body []byte) map[string]string {
	if c.accessKey == "" {
		return fields
	}
	out := maps.Clone(fields)
	if out == nil {
		out = map[string]string{}
	}
	out["AccessKey"] = c.accessKey
	mac := hmac.New(sha1.New, []byte(c.secretKey))
	for _, name := range slices.Sorted(maps.Keys(out)) {
		mac.Write([]byte(out[name]))
	}
	mac.Write(body)
	out["Signature"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return out
}

func readAnswer(r io.Reader) (*answer, error) {
	var sizes [8]byte
	if _, err := io.ReadFull(r, sizes[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(sizes[:4])
	header := binary.BigEndian.Uint32(sizes[4:])
	if form := header >> 24; form != 0 {
		return nil, fmt.Errorf("header of form %d, want JSON", form)
	}
	if size < 4 || size > maxAnswer || header > size-4 {
		return nil, fmt.Errorf("%d bytes with a header of %d", size, header)
	}
	rest := make([]byte, size-4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	a := &answer{body: rest[header:]}
	if err := json.Unmarshal(rest[:header], a); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return a, nil
}

// bareKey is how the servers write numeric keys of objects: without quotes.
var bareKey = regexp.MustCompile(`([{,])(\d+):`)

func decodeLoose(body []byte, into any) error {
	return json.Unmarshal(bareKey.ReplaceAll(body, []byte(`$1"$2":`)), into)
}
