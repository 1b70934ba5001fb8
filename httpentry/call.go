package httpentry

import (
	"bytes"
	"encoding/json"
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"hongyan/idl/code"
)

// call is what a request of a route with parameters gave, checked against the route.
type call struct {
	x        *exchange
	endpoint *endpoint
	texts    map[string]string
	nums     map[string]uint64
	keys     []string // of the JSON body, as written
	proto    []byte   // the body as protobuf
	raw      []byte   // the body as it came, of a raw endpoint
}

func (c *call) text(name string) string { return c.texts[name] }
func (c *call) num(name string) uint64  { return c.nums[name] }
func (c *call) flag(name string) bool   { return c.nums[name] == 1 }

// list of a parameter given as a,b or several times.
func (c *call) list(name string) []string {
	var out []string
	for part := range strings.SplitSeq(c.texts[name], ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// parse checks path, query and body. Whatever the route does not know is an error that
// names it: a misspelt parameter must not be one that is ignored.
func (c *call) parse() error {
	c.texts, c.nums = map[string]string{}, map[string]uint64{}
	for _, p := range c.endpoint.params {
		if p.inPath {
			if err := c.take(p, c.x.rc.Param(p.name)); err != nil {
				return err
			}
		}
	}
	if c.endpoint.page {
		return nil
	}
	if err := c.parseQuery(string(c.x.rc.Request.URI().QueryString())); err != nil {
		return err
	}
	switch {
	case c.endpoint.raw:
		return c.takeBody()
	case c.endpoint.in != "":
		return c.parseBody()
	}
	return nil
}

func (c *call) parseQuery(raw string) error {
	values, err := queryValues(raw)
	if err != nil {
		return err
	}
	for _, v := range values {
		i := slices.IndexFunc(c.endpoint.params, func(p param) bool { return p.name == v.name && !p.inPath })
		if i < 0 {
			return code.Errorf(code.BadRequest, "unknown query parameter %.40q", v.name)
		}
		if err := c.take(c.endpoint.params[i], v.value); err != nil {
			return err
		}
	}
	for _, p := range c.endpoint.params {
		if _, given := c.texts[p.name]; p.required && !given {
			return code.Errorf(code.BadRequest, "the query parameter %s is missing", p.name)
		}
	}
	return nil
}

func (c *call) take(p param, value string) error {
	if _, twice := c.texts[p.name]; twice {
		if p.kind != list {
			return code.Errorf(code.BadRequest, "%s is given twice", p.name)
		}
		value = c.texts[p.name] + "," + value
	}
	c.texts[p.name] = value
	switch p.kind {
	case number:
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || (p.max > 0 && n > p.max) {
			return code.Errorf(code.BadRequest, "%s must be a whole number from 0 to %d, not %.40q", p.name, p.limit(), value)
		}
		c.nums[p.name] = n
	case flag:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return code.Errorf(code.BadRequest, "%s must be true or false, not %.40q", p.name, value)
		}
		if on {
			c.nums[p.name] = 1
		}
	}
	return nil
}

func (p *param) limit() uint64 {
	if p.max > 0 {
		return p.max
	}
	return 1<<64 - 1
}

// takeBody keeps a body that somebody else checks.
func (c *call) takeBody() error {
	c.raw = bytes.Clone(c.x.body())
	if len(c.raw) == 0 {
		return nil
	}
	return jsonContent(string(c.x.rc.Request.Header.ContentType()))
}

// parseBody checks the JSON body and makes it protobuf.
func (c *call) parseBody() error {
	body := c.x.body()
	if len(bytes.TrimSpace(body)) == 0 {
		if c.endpoint.inOpt {
			return nil
		}
		return code.Errorf(code.BadRequest, "the body is empty; it must be JSON of %s", c.endpoint.in)
	}
	if err := jsonContent(string(c.x.rc.Request.Header.ContentType())); err != nil {
		return err
	}
	keys, err := objectKeys(body)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if slices.Contains(c.endpoint.inSkip, snake(key)) {
			return code.Errorf(code.BadRequest, "%s is not part of the body", key)
		}
	}
	c.keys = keys
	c.proto, err = c.x.srv.json.ToProto("hongyan.im."+c.endpoint.in, body)
	return err
}

// jsonContent refuses bodies that do not say they are JSON: a form of a foreign page cannot.
func jsonContent(contentType string) error {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return code.Errorf(code.Unsupported, "send Content-Type: application/json, not %.60q", contentType)
	}
	if set := params["charset"]; set != "" && !strings.EqualFold(set, "utf-8") {
		return code.Errorf(code.Unsupported, "JSON is UTF-8, not %.20q", set)
	}
	return nil
}

// objectKeys lists the keys of a JSON object.
func objectKeys(body []byte) ([]string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, code.Errorf(code.BadRequest, "the body is not a JSON object: %v", err)
	}
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys, nil
}

// snake is a field's name as it stands in im.proto: clientMsgId -> client_msg_id.
func snake(key string) string {
	var b strings.Builder
	for _, r := range key {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// messageID is the client_msg_id of a write: the body's, or Idempotency-Key. Without either
// one is made, and a repetition of the request is another message.
func (c *call) messageID(inBody string) (string, error) {
	key := c.x.header(headerIdempotency)
	switch {
	case key == "" && inBody == "":
		id, err := uuid.NewV7()
		return id.String(), err
	case key == "":
		return inBody, nil
	case inBody != "" && inBody != key:
		return "", code.Errorf(code.BadRequest, "%s and client_msg_id differ", headerIdempotency)
	case len(key) > maxMessageID:
		return "", code.Errorf(code.BadRequest, "%s is over %d bytes", headerIdempotency, maxMessageID)
	}
	return key, nil
}

// maxMessageID in bytes; a UUID has 36.
const maxMessageID = 64

// queryValue is one name=value of a query.
type queryValue struct{ name, value string }

// queryValues splits a query. Unlike url.ParseQuery it keeps the order and tells what is wrong.
func queryValues(raw string) ([]queryValue, error) {
	var out []queryValue
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err1 := unescapeQuery(name)
		v, err2 := unescapeQuery(value)
		if err1 != nil || err2 != nil {
			return nil, code.Errorf(code.BadRequest, "the query is not percent-encoded UTF-8 near %.40q", pair)
		}
		out = append(out, queryValue{n, v})
	}
	return out, nil
}
