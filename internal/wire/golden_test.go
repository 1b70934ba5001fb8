package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/internal/wire"
)

var update = flag.Bool("update", false, "write the encoded forms into testdata/frames.json")

// vector is one entry of testdata/frames.json and grown.json.
type vector struct {
	Name   string          `json:"name"`
	Cmd    string          `json:"cmd"`
	Flags  wire.Flags      `json:"flags"`
	Codec  wire.Codec      `json:"codec"`
	Status code.Code       `json:"status"`
	Seq    uint32          `json:"seq"`
	Type   string          `json:"type"`
	Body   json.RawMessage `json:"body"`
	Frame  string          `json:"frame"`
	Text   string          `json:"text,omitempty"`
}

// frame is the frame that the vector describes.
func (v *vector) frame(t *testing.T, j *wire.JSON) wire.Frame {
	t.Helper()
	f := wire.Frame{Flags: v.Flags, Codec: v.Codec, Cmd: im.Cmd(im.Cmd_value[v.Cmd]), Status: v.Status, Seq: v.Seq}
	if got := wire.BodyType(&f); got != v.Type {
		t.Fatalf("body type %q, want %q", got, v.Type)
	}
	var err error
	switch {
	case v.Codec == wire.CodecJSON:
		f.Body = compact(t, v.Body)
	case v.Type != "":
		f.Body, err = j.ToProto(v.Type, v.Body)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGoldenFrames(t *testing.T) {
	j := newJSON(t)
	vectors := load[vector](t, "frames.json")
	seen := map[string]bool{}
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.Name, func(t *testing.T) {
			f := v.frame(t, j)
			if *update {
				v.fill(t, j, &f)
			}
			if got := hex.EncodeToString(wire.Append(nil, &f)); got != v.Frame {
				t.Errorf("encoded to %s, want %s", got, v.Frame)
			}
			v.checkDecode(t, j)
			if v.Codec == wire.CodecProto {
				v.checkText(t, j, &f)
				checkStruct(t, v.Type, f.Body)
			}
		})
		seen[v.Cmd] = true
	}
	for name := range im.Cmd_value {
		if !seen[name] && name != "NONE" {
			t.Errorf("no vector of command %s", name)
		}
	}
	if *update {
		save(t, "frames.json", vectors)
	}
}

func TestGoldenGrownFrames(t *testing.T) {
	j := newJSON(t)
	for _, v := range load[vector](t, "grown.json") {
		t.Run(v.Name, func(t *testing.T) { v.checkDecode(t, j) })
	}
}

func (v *vector) fill(t *testing.T, j *wire.JSON, f *wire.Frame) {
	t.Helper()
	v.Frame = hex.EncodeToString(wire.Append(nil, f))
	if v.Codec == wire.CodecProto {
		text, err := j.EncodeText(f)
		if err != nil {
			t.Fatal(err)
		}
		v.Text = string(text)
	}
}

// checkDecode reads the binary form, with something behind it.
func (v *vector) checkDecode(t *testing.T, j *wire.JSON) {
	t.Helper()
	raw := fromHex(t, v.Frame)
	f, n, err := wire.Decode(append(raw, "next"...), 256<<10)
	if err != nil || n != len(raw) {
		t.Fatalf("decoded %d of %d bytes, %v", n, len(raw), err)
	}
	if f.Flags != v.Flags || f.Codec != v.Codec || f.Cmd.String() != v.Cmd || f.Status != v.Status || f.Seq != v.Seq {
		t.Errorf("decoded to %+v", f)
	}
	body := f.Body
	if v.Codec == wire.CodecProto && v.Type != "" {
		if body, err = j.FromProto(v.Type, f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if want := compact(t, v.Body); !bytes.Equal(body, want) {
		t.Errorf("body %s, want %s", body, want)
	}
}

func (v *vector) checkText(t *testing.T, j *wire.JSON, f *wire.Frame) {
	t.Helper()
	text, err := j.EncodeText(f)
	if err != nil || string(text) != v.Text {
		t.Errorf("text %s, want %s (%v)", text, v.Text, err)
	}
	got, err := j.DecodeText([]byte(v.Text), 256<<10)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Body, f.Body) || got.Cmd != f.Cmd || got.Seq != f.Seq || got.Status != f.Status || got.Flags != f.Flags {
		t.Errorf("text decoded to %+v, want %+v", got, f)
	}
}

// checkStruct holds the generated structs against the descriptors: same bytes.
func checkStruct(t *testing.T, msgType string, body []byte) {
	t.Helper()
	m := newStruct(msgType)
	if m == nil {
		if msgType != "" {
			t.Errorf("no struct of %s", msgType)
		}
		return
	}
	if err := m.Unmarshal(body); err != nil {
		t.Fatal(err)
	}
	again, err := m.Marshal(nil)
	if err != nil || !bytes.Equal(again, body) {
		t.Errorf("struct encodes to %x, descriptor to %x (%v)", again, body, err)
	}
}

func TestGoldenBadFrames(t *testing.T) {
	for _, v := range load[struct {
		Name, Frame, Code string
		MaxBody           int `json:"max_body"`
	}](t, "bad.json") {
		t.Run(v.Name, func(t *testing.T) {
			raw := fromHex(t, v.Frame)
			f, n, err := wire.Decode(raw, v.MaxBody)
			switch {
			case v.Code == "short":
				if !errors.Is(err, wire.ErrShort) || n != 0 {
					t.Errorf("%d, %v", n, err)
				}
			case code.Of(err).Name() != v.Code:
				t.Errorf("%v, want %s", err, v.Code)
			case v.Code == "unsupported":
				if n != len(raw) || f.Seq != 1 || f.Cmd != im.Cmd_PING || f.Body != nil {
					t.Errorf("%d bytes, %+v: the frame cannot be answered", n, f)
				}
			case n != 0:
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

func TestGoldenBadTexts(t *testing.T) {
	j := newJSON(t)
	for _, v := range load[struct {
		Name, Text, Code, Says string
		Seq                    uint32
		MaxBody                int `json:"max_body"`
	}](t, "bad_text.json") {
		t.Run(v.Name, func(t *testing.T) {
			f, err := j.DecodeText([]byte(v.Text), v.MaxBody)
			if code.Of(err).Name() != v.Code || f.Seq != v.Seq {
				t.Errorf("%v with seq %d, want %s with %d", err, f.Seq, v.Code, v.Seq)
			}
			if err != nil && !strings.Contains(err.Error(), v.Says) {
				t.Errorf("%q does not name %q", err, v.Says)
			}
		})
	}
}

func newJSON(t testing.TB) *wire.JSON {
	t.Helper()
	j, err := wire.NewJSON()
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func load[T any](t testing.TB, name string) (all []T) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(all), err)
	}
	return all
}

func save(t *testing.T, name string, v any) {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/"+name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compact is JSON without white space; null, the body of a frame without one, is nothing.
func compact(t testing.TB, b json.RawMessage) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	if out.String() == "null" {
		return nil
	}
	return out.Bytes()
}
