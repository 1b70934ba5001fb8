package jtransit

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"hongyan/idl/code"
)

// everything is an IDL with all that thrift has.
const everything = `
namespace go everything
include "shared.thrift"

const i32 MANY = 7
typedef list<Node> Nodes
typedef i64 Id
enum Color { RED = 1, GREEN, BLUE = 9 }
union Choice { 1: string text, 2: i32 number }
exception Broken { 1: required i32 code, 2: string reason }
exception Odd { 1: list<string> parts }
struct Node {
  1: required Id id
  2: bool yes
  3: i8 small
  4: i16 short
  5: i32 number = MANY
  6: double real
  7: string text
  8: binary raw
  9: Color color = Color.BLUE
  10: list<string> names
  11: set<i32> numbers
  12: map<string, Node> by_name
  13: map<i64, string> by_number
  14: map<Color, bool> by_color
  15: optional Node next
  16: Choice choice
  17: Nodes nodes
  18: required string word = "hello"
  19: shared.Place place
  20: map<bool, double> by_bool
  21: list<list<i32>> grid = [[1, 2], [3]]
}
service Base extends shared.Root { void Nothing() }
service All extends Base {
  Node Echo(1: Node node) throws (1: Broken broken, 2: Odd odd)
  list<Color> Colors(1: i32 n, 2: required string s)
  oneway void Forget(1: Node node)
  Node Watch(1: Node node) (streaming.mode = "server")
}
`

const shared = `
struct Place { 1: string warehouse = "north" }
service Root { string Where(1: Place place) }
`

// in reads texts by path.
func in(files map[string]string) texts {
	return func(path string) (string, error) {
		text, ok := files[path]
		if !ok {
			return "", fs.ErrNotExist
		}
		return text, nil
	}
}

func methodOf(t testing.TB, service, name string) method {
	t.Helper()
	u := compile("idl/all.thrift", in(map[string]string{"idl/all.thrift": everything, "idl/shared.thrift": shared}))
	if u.err != nil {
		t.Fatal(u.err)
	}
	m, err := u.file.method(service, name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func orders(t testing.TB, name string) method {
	t.Helper()
	u := compile("../examples/orders/orders.proto", liveOrFile(nil))
	if u.err != nil {
		t.Fatal(u.err)
	}
	m, err := u.file.method("Orders", name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// echo is a request as the answer of a method that returns it.
func echo(m method, body []byte) []byte {
	if _, isThrift := m.(*thriftMethod); isThrift && len(body) > 3 {
		return append([]byte{body[0], 0, 0}, body[3:]...) // the only argument has id 1, the result 0
	}
	return body
}

// FuzzRequestJSON: whatever a client sends is a request or an error, and a request reads
// back as JSON.
func FuzzRequestJSON(f *testing.F) {
	cancel := orders(f, "Cancel").(*protoMethod)
	cancel.answer = cancel.request
	methods := []method{cancel, methodOf(f, "All", "Echo")}
	for _, seed := range []string{
		`{"id":"1","reason":"x"}`, `{"id":null}`, `{`, `{"a":{"b":[[[]]]}}`, `null`, `[]`, `{"id":1,"next":{"id":"2"},"choice":{"text":"x"}}`,
		`{"id":"7","raw":"aGk_","color":"RED","by_color":{"BLUE":true},"by_number":{"1":"x"},"real":"NaN","grid":[[1],[]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range methods {
			body, err := m.encode(data)
			if err != nil {
				if code.Of(err) != code.BadRequest {
					t.Fatalf("%v", err)
				}
				continue
			}
			text, err := m.decode(echo(m, body), 1<<20)
			if err != nil || !json.Valid(text) {
				t.Fatalf("%s -> %x -> %s, %v", data, body, text, err)
			}
		}
	})
}

// FuzzAnswer: whatever a service answers becomes JSON within the bound, or an error.
func FuzzAnswer(f *testing.F) {
	methods := []method{orders(f, "Get"), methodOf(f, "All", "Echo"), methodOf(f, "All", "Colors"), methodOf(f, "All", "Nothing")}
	for _, m := range methods {
		if body, err := m.encode([]byte(`{"id":"7","by_name":{"a":{"id":1}},"names":["x"]}`)); err == nil {
			f.Add(body)
			f.Add(echo(m, body))
		}
	}
	f.Add([]byte{15, 0, 0, 15, 0x7f, 0xff, 0xff, 0xff})
	f.Add([]byte{12, 0, 1, 8, 0, 1, 0, 0, 0, 9, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		const most = 4 << 10
		for _, m := range methods {
			text, err := m.decode(body, most)
			if err == nil && (!json.Valid(text) || len(text) > most) {
				t.Fatalf("%x -> %d bytes %.200s", body, len(text), text)
			}
		}
	})
}

// FuzzIDL: whatever somebody puts into the control centre compiles, or is an error.
func FuzzIDL(f *testing.F) {
	f.Add(everything, shared)
	f.Add("typedef A B typedef B A struct S { 1: A a } service X { S Get(1: S s) }", "")
	f.Add(`include "shared.thrift"`, `include "all.thrift"`)
	f.Add("struct S { 1: "+strings.Repeat("list<", 40)+"i32"+strings.Repeat(">", 40)+" x }", "")
	f.Add("const i32 A = B const i32 B = A struct S { 1: i32 x = A } service X { S Get(1: S s) }", "")
	f.Add("struct S { 1: optional S s = {\"s\": {}} } service X { S Get(1: S s) }", "")
	f.Fuzz(func(t *testing.T, main, other string) {
		u := compile("idl/all.thrift", in(map[string]string{"idl/all.thrift": main, "idl/shared.thrift": other}))
		if (u.err == nil) == (u.file == nil) {
			t.Fatalf("neither file nor error: %+v", u)
		}
		if u.err != nil {
			return
		}
		if m, err := u.file.method("All", "Echo"); err == nil {
			_, _ = m.encode([]byte(`{}`))
			_, _ = m.decode([]byte{12, 0, 0, 0, 0}, 1000)
		}
	})
}

func TestZZ11ThriftFollowsTheRulesOfProtobufJSON(t *testing.T) {
	m := methodOf(t, "All", "Echo")
	for in, want := range map[string]string{
		`{"id":1}`:                                                      `{"id":"1","number":7,"color":"BLUE","word":"hello","grid":[[1,2],[3]]}`,
		`{"id":"9007199254740993"}`:                                     `{"id":"9007199254740993",`,
		`{"id":1e3,"number":-5}`:                                        `"id":"1000","number":-5,"color"`,
		`{"id":1,"small":-128}`:                                         `"small":-128`,
		`{"id":1,"yes":true,"real":1.5}`:                                `"yes":true,"number":7,"real":1.5`,
		`{"id":1,"real":"Infinity"}`:                                    `"real":"Infinity"`,
		`{"id":1,"text":"<é\u0001>"}`:                                   `"text":"<é\u0001>"`,
		`{"id":1,"raw":"_-8"}`:                                          `"raw":"/+8="`,
		`{"id":1,"color":"RED"}`:                                        `"color":"RED"`,
		`{"id":1,"color":77}`:                                           `"color":77`,
		`{"id":1,"numbers":[1,2]}`:                                      `"numbers":[1,2]`,
		`{"id":1,"by_color":{"RED":true}}`:                              `"by_color":{"RED":true}`,
		`{"id":1,"by_number":{"-3":"x"}}`:                               `"by_number":{"-3":"x"}`,
		`{"id":1,"by_bool":{"true":2}}`:                                 `"by_bool":{"true":2}`,
		`{"id":1,"choice":{"number":4}}`:                                `"choice":{"number":4}`,
		`{"id":1,"place":{}}`:                                           `"place":{"warehouse":"north"}`,
		`{"id":1,"next":{"id":2},"word":"bye","nodes":[],"names":null}`: `"next":{"id":"2","number":7,"color":"BLUE","word":"hello","grid":[[1,2],[3]]},"nodes":[],"word":"bye"`,
	} {
		body, err := m.encode([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := m.decode(echo(m, body), 1<<20)
		if err != nil || !strings.Contains(string(got), want) || !json.Valid(got) {
			t.Errorf("%s -> %s, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		`{}`:                            `field "id" is missing`,
		``:                              `field "id" is missing`,
		`[]`:                            "is not an object",
		`{"id":1} {}`:                   "more than one value",
		`{"id":1,"idd":2}`:              `unknown field "idd"`,
		`{"id":true}`:                   "id: is not a whole number",
		`{"id":"x"}`:                    `id: "x" is not a whole number of 64 bits`,
		`{"id":1,"small":128}`:          "small: ",
		`{"id":1,"number":1.5}`:         "number: ",
		`{"id":1,"number":1e300}`:       "number: ",
		`{"id":1,"yes":1}`:              "yes: is not true or false",
		`{"id":1,"text":5}`:             "text: is not a string",
		`{"id":1,"raw":"!"}`:            "raw: is not base64",
		`{"id":1,"color":"PINK"}`:       `color: "PINK" is not one`,
		`{"id":1,"names":["a",7]}`:      "names.1: is not a string",
		`{"id":1,"names":[null]}`:       "names.0: is not a string",
		`{"id":1,"numbers":{}}`:         "numbers: is not an array",
		`{"id":1,"by_number":{"x":""}}`: "by_number.x: ",
		`{"id":1,"by_bool":{"1":2}}`:    "by_bool: key",
		`{"id":1,"next":{"next":{}}}`:   `next: field "id" is missing`,
		`{"id":1,"choice":{}}`:          "choice: 0 fields of the union",
		`{"id":1,"choice":{"text":"a","number":1}}`:                                  "2 fields",
		strings.Repeat(`{"id":1,"next":`, 80) + `{"id":1}` + strings.Repeat("}", 80): "nested deeper",
	} {
		if body, err := m.encode([]byte(in)); err == nil || code.Of(err) != code.BadRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s -> %x, %v; want %s", in, body, err, want)
		}
	}
}

func TestZZ11ThriftResultsExceptionsAndInheritance(t *testing.T) {
	colors := methodOf(t, "All", "Colors")
	if _, err := colors.encode([]byte(`{"n":1}`)); err == nil || !strings.Contains(err.Error(), `"s" is missing`) {
		t.Errorf("a missing argument: %v", err)
	}
	if body, err := colors.encode([]byte(`{"n":1,"s":"x"}`)); err != nil || len(body) != 7+8+1 {
		t.Errorf("two arguments: %x, %v", body, err)
	}
	got, err := colors.decode([]byte{15, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 9, 0}, 100)
	if err != nil || string(got) != `["GREEN","BLUE"]` {
		t.Errorf("a list: %s, %v", got, err)
	}
	where := methodOf(t, "All", "Where") // of a service in another file, extended twice
	if where.service().Service != "All" {
		t.Errorf("called as %+v", where.service())
	}
	if got, err := methodOf(t, "All", "Nothing").decode([]byte{0}, 100); err != nil || string(got) != "{}" {
		t.Errorf("void: %s, %v", got, err)
	}
	node := methodOf(t, "All", "Echo")
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"declared":       {[]byte{12, 0, 1, 8, 0, 1, 0, 0, 0, 5, 11, 0, 2, 0, 0, 0, 2, 'n', 'o', 0, 0}, "Broken: no"},
		"second":         {[]byte{12, 0, 2, 15, 0, 1, 11, 0, 0, 0, 1, 0, 0, 0, 1, 'x', 0, 0}, `Odd: {"parts":["x"]}`},
		"nothing":        {[]byte{0}, "neither a result nor an exception"},
		"empty":          {nil, "ends early"},
		"required":       {[]byte{12, 0, 0, 0, 0}, "no Node.id"},
		"other type":     {[]byte{12, 0, 0, 11, 0, 1, 0, 0, 0, 0, 0, 0}, "type 11, not 10"},
		"huge list":      {[]byte{12, 0, 0, 15, 0, 10, 11, 0x7f, 0xff, 0xff, 0xff, 0}, "ends early"},
		"unknown to IDL": {[]byte{13, 0, 9, 11, 11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "neither a result"},
	} {
		if got, err := node.decode(c.body, 1000); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
	body, err := node.encode([]byte(`{"id":1,"text":"` + strings.Repeat("\\u0001", 100) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.decode(echo(node, body), 200); !errors.Is(err, errTooLong) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestZZ11BadThriftIsRefused(t *testing.T) {
	with := func(text string) string { return text + " service All { S Echo(1: S s) }" }
	for want, main := range map[string]string{
		"nested deeper than 64, or":   with("typedef A B typedef B A struct S { 1: A a }"),
		"nested deeper":               with("struct S { 1: " + strings.Repeat("list<", 100) + "i32" + strings.Repeat(">", 100) + " x }"),
		"type Other does not exist":   with("struct S { 1: Other x }"),
		"no file other.thrift":        with("struct S { 1: other.X x }"),
		"includes none.thrift":        with(`include "none.thrift" struct S { }`),
		"S: field 1 b is there twice": with("struct S { 1: i32 a, 1: i32 b }"),
		"a map by anything but":       with("struct S { 1: map<S, i32> a }"),
		"default: ":                   with(`struct S { 1: i32 a = "x" }`),
		"is no constant":              with("const i32 A = B const i32 B = A struct S { 1: i32 x = A }"),
		"parse error":                 "struct {",
		"id 40000 is out of range":    with("struct S { 40000: i32 a }"),
	} {
		u := compile("idl/all.thrift", in(map[string]string{"idl/all.thrift": main}))
		if u.err == nil || !strings.Contains(u.err.Error(), want) || strings.Contains(u.err.Error(), "\n") {
			t.Errorf("%s: %v", want, u.err)
		}
	}
	u := compile("idl/all.thrift", in(map[string]string{"idl/all.thrift": everything, "idl/shared.thrift": shared}))
	for name, want := range map[string]string{"Forget": "oneway", "Watch": "a stream", "None": "no method None"} {
		if _, err := u.file.method("All", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := u.file.method("Nobody", "Echo"); err == nil || !strings.Contains(err.Error(), "no service Nobody in all.thrift") {
		t.Errorf("%v", err)
	}
}
