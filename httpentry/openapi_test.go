package httpentry_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hongyan/httpentry"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

type doc struct {
	t          *testing.T
	OpenAPI    string `json:"openapi"`
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		SecuritySchemes map[string]any
	}
}

type operation struct {
	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   schema
	}
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]struct {
		Description string
		Content     map[string]media
	}
}

type media struct{ Schema schema }

type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Required   []string
	Properties map[string]schema
	Items      *schema
	Enum       []string
	Pattern    string
}

func (w *world) document() *doc {
	w.t.Helper()
	got := w.do("GET", "/v1/openapi.json", "")
	d := &doc{t: w.t}
	if err := json.Unmarshal(got.body, d); err != nil || got.status != 200 {
		w.t.Fatalf("%d, %v", got.status, err)
	}
	return d
}

func demoOn(c *httpentry.Config, _ *httpentry.Deps) { c.Demo = true }

// The document has the form of OpenAPI 3.1, and nothing in it points nowhere.
func TestOpenAPIDocumentIsWellFormed(t *testing.T) {
	d := newWorld(t, demoOn).document()
	if d.OpenAPI != "3.1.0" || d.Info.Title == "" || d.Info.Version == "" || len(d.Paths) < 15 {
		t.Fatalf("%s %+v, %d paths", d.OpenAPI, d.Info, len(d.Paths))
	}
	inPath := regexp.MustCompile(`\{([^}]+)\}`)
	seen := map[string]bool{}
	for path, item := range d.Paths {
		for method, op := range item {
			name := method + " " + path
			if op.OperationID == "" || seen[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 || len(op.Responses) == 0 {
				t.Errorf("%s: id %q, summary %q, tags %v", name, op.OperationID, op.Summary, op.Tags)
			}
			seen[op.OperationID] = true
			var params []string
			for _, p := range op.Parameters {
				d.check(name+" "+p.Name, p.Schema)
				if p.In == "path" {
					params = append(params, p.Name)
					if !p.Required {
						t.Errorf("%s: %s is in the path and not required", name, p.Name)
					}
				}
			}
			for _, m := range inPath.FindAllStringSubmatch(path, -1) {
				if !slices.Contains(params, m[1]) {
					t.Errorf("%s: {%s} is not described", name, m[1])
				}
			}
			if op.RequestBody != nil {
				for kind, m := range op.RequestBody.Content {
					d.check(name+" request "+kind, m.Schema)
				}
			}
			for status, r := range op.Responses {
				if r.Description == "" || len(status) != 3 {
					t.Errorf("%s %s: no description", name, status)
				}
				for kind, m := range r.Content {
					d.check(name+" "+status+" "+kind, m.Schema)
				}
			}
		}
	}
	for name, s := range d.Components.Schemas {
		d.check(name, s)
	}
}

func (d *doc) check(where string, s schema) {
	d.t.Helper()
	if s.Ref != "" {
		if _, ok := d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]; !ok {
			d.t.Errorf("%s: %s points nowhere", where, s.Ref)
		}
	} else if s.Type != "" && !slices.Contains([]string{"object", "array", "string", "integer", "boolean"}, s.Type) {
		d.t.Errorf("%s: type %q", where, s.Type)
	}
	for _, r := range s.Required {
		if _, ok := s.Properties[r]; !ok {
			d.t.Errorf("%s: %s is required and not described", where, r)
		}
	}
	for name, p := range s.Properties {
		d.check(where+"."+name, p)
	}
	if s.Type == "array" {
		if s.Items == nil {
			d.t.Errorf("%s: an array of what?", where)
		} else {
			d.check(where+"[]", *s.Items)
		}
	}
}

// fit holds a value against a schema.
func (d *doc) fit(where string, s schema, v any) {
	d.t.Helper()
	if s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	ok := true
	switch value := v.(type) {
	case map[string]any:
		ok = s.Type == "object" || s.Type == ""
		for name, inner := range value {
			p, known := s.Properties[name]
			if !known && len(s.Properties) > 0 {
				d.t.Errorf("%s: %s is not described", where, name)
			}
			d.fit(where+"."+name, p, inner)
		}
		for _, r := range s.Required {
			if _, there := value[r]; !there {
				d.t.Errorf("%s: %s is missing", where, r)
			}
		}
	case []any:
		ok = s.Type == "array"
		for i, inner := range value {
			d.fit(fmt.Sprint(where, i), *s.Items, inner)
		}
	case string:
		ok = s.Type == "string" && (s.Enum == nil || slices.Contains(s.Enum, value)) &&
			(s.Pattern == "" || regexp.MustCompile(s.Pattern).MatchString(value))
	case float64:
		ok = s.Type == "integer"
	case bool:
		ok = s.Type == "boolean"
	}
	if !ok && s.Type != "" {
		d.t.Errorf("%s: %v is not %+v", where, v, s)
	}
}

// What every route answers, good or bad, fits the document.
func TestOpenAPIDescribesWhatIsAnswered(t *testing.T) {
	w := newWorld(t, demoOn)
	w.logic.answers(nil, fullAnswers(t))
	d := w.document()
	sid := w.openPoll("alice/phone")
	values := strings.NewReplacer("{conv}", "p:alice:bob", "{seq}", "7", "{uid}", "bob", "{name}", "order.get")
	bodies := map[string]string{
		"sendMessage": `{"to":"bob","text":"x"}`, "editMessage": `{"text":"y"}`, "markRead": `{"seq":"1"}`,
		"setConversation": `{"pinned":true}`, "sync": `{}`, "pollOpen": `{"token":"alice/phone"}`,
		"pollPoll": `{"sid":"` + sid + `","n":"1"}`, "pollSend": `{"sid":"` + sid + `","command":{"cmd":"PING","seq":1}}`,
		"callService": `{"id":"o-1"}`,
		"pollClose":   `{"sid":"` + sid + `"}`, "demoSession": `{"uid":"alice"}`,
	}
	for path, item := range d.Paths {
		for method, op := range item {
			target := values.Replace(path)
			if op.OperationID == "presence" {
				target += "?uids=bob"
			}
			if op.OperationID == "pollClose" {
				continue // it would end the others' session
			}
			for _, headers := range [][]string{nil, {"Authorization", ""}, {"Content-Type", "text/plain"}} {
				got := w.do(strings.ToUpper(method), target, bodies[op.OperationID], headers...)
				where := fmt.Sprintf("%s %s: %d", method, path, got.status)
				described, ok := op.Responses[fmt.Sprint(got.status)]
				if !ok {
					t.Errorf("%s is not described: %s", where, got.body)
					continue
				}
				var value any
				if strings.HasPrefix(got.header.Get("Content-Type"), "application/json") && op.OperationID != "openapi" {
					if err := json.Unmarshal(got.body, &value); err != nil {
						t.Errorf("%s: %v", where, err)
					}
					d.fit(where, described.Content["application/json"].Schema, value)
				}
			}
		}
	}
}

// fullAnswers answers every command with every field set.
func fullAnswers(t *testing.T) func(*tier.ExecuteRequest) (*tier.ExecuteReply, error) {
	message := &im.Message{Conv: "p:alice:bob", Seq: 1, Sender: "bob", ClientMsgId: "m", Kind: im.Kind_TEXT, Text: "x", Data: []byte("y"), CreatedMs: 1, ModSeq: 2, Recalled: true, TargetSeq: 3, Ord: 4}
	row := &im.Conversation{Conv: "p:alice:bob", Version: 1, LastSeq: 1, ReadSeq: 1, PeerReadSeq: 1, Unread: 1, Peer: "bob", Pinned: true, UpdatedMs: -1, Messages: []*im.Message{message}}
	answers := map[im.Cmd]interface{ Marshal([]byte) ([]byte, error) }{
		im.Cmd_SEND: &im.SendAck{Conv: "p:alice:bob", Seq: 1, CreatedMs: 1, Duplicate: true, Version: 1}, im.Cmd_EDIT: &im.SendAck{}, im.Cmd_RECALL: &im.SendAck{},
		im.Cmd_CONVERSATIONS: &im.ConversationsRsp{Conversations: []*im.Conversation{row}, More: true, NextBeforeVersion: 1},
		im.Cmd_HISTORY:       &im.HistoryRsp{Messages: []*im.Message{message}, Modified: []*im.Message{message}, ReadAtSeq: 1, More: true},
		im.Cmd_READ:          &im.ReadAck{Conv: "p:alice:bob", ReadSeq: 1}, im.Cmd_SETTINGS: &im.SettingsAck{Epoch: 1, Conversation: row},
		im.Cmd_UNREAD:   &im.UnreadRsp{Total: 1, Conversations: []*im.ConvUnread{{Conv: "p:alice:bob", Unread: 1}}},
		im.Cmd_CONTACTS: &im.ContactsRsp{Contacts: []*im.Contact{{Uid: "bob", Online: true}}}, im.Cmd_BLOCK: &im.BlockAck{Conv: "p:alice:bob", Seq: 1},
		im.Cmd_PRESENCE: &im.PresenceRsp{Users: []*im.UserPresence{{Uid: "bob", Online: true, Platforms: []string{"web"}}}},
		im.Cmd_SYNC:     &im.SyncRsp{MustReset: true, Epoch: 1, Changes: []*im.Conversation{row}, Modified: []*im.Message{message}},
	}
	answers[im.Cmd_CALL] = &im.CallRsp{Data: []byte(`{"status":"PAID"}`)}
	return func(req *tier.ExecuteRequest) (*tier.ExecuteReply, error) {
		body, err := answers[im.Cmd(req.Cmd)].Marshal(nil)
		if err != nil {
			t.Error(err)
		}
		return &tier.ExecuteReply{Body: body}, nil
	}
}
