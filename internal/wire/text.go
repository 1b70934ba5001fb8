package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// TextOverhead is what a frame as text may be longer than the limit of its body.
const TextOverhead = 256

// text is a frame as JSON: {"cmd":"SEND","seq":7,"status":0,"response":true,"body":{...}}.
// What has its default may be left out.
type text struct {
	Cmd      string          `json:"cmd"`
	Seq      uint32          `json:"seq"`
	Status   uint16          `json:"status"`
	Response bool            `json:"response"`
	OneWay   bool            `json:"oneWay"`
	Critical bool            `json:"critical"`
	Body     json.RawMessage `json:"body"`
}

// EncodeText is the text form of a frame whose body is protobuf, or JSON already.
func (j *JSON) EncodeText(f *Frame) ([]byte, error) {
	name, known := im.Cmd_name[int32(f.Cmd)]
	if !known || f.Cmd == im.Cmd_NONE {
		return nil, code.Errorf(code.Unsupported, "no command %d", f.Cmd)
	}
	body, err := j.jsonBody(f)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(body)+TextOverhead)
	out = append(out, `{"cmd":"`...)
	out = append(out, name...)
	out = append(out, '"')
	out = appendNumber(out, "seq", f.Seq)
	out = appendNumber(out, "status", uint32(f.Status))
	out = appendTrue(out, "response", f.Flags&FlagResponse != 0)
	out = appendTrue(out, "oneWay", f.Flags&FlagOneWay != 0)
	out = appendTrue(out, "critical", f.Flags&FlagCritical != 0)
	if len(body) > 0 {
		out = append(out, `,"body":`...)
		out = append(out, body...)
	}
	return append(out, '}'), nil
}

func appendNumber(out []byte, name string, v uint32) []byte {
	if v == 0 {
		return out
	}
	return strconv.AppendUint(appendName(out, name), uint64(v), 10)
}

func appendTrue(out []byte, name string, v bool) []byte {
	if !v {
		return out
	}
	return append(appendName(out, name), "true"...)
}

func appendName(out []byte, name string) []byte {
	out = append(out, `,"`...)
	out = append(out, name...)
	return append(out, `":`...)
}

func (j *JSON) jsonBody(f *Frame) ([]byte, error) {
	msgType := BodyType(f)
	switch {
	case msgType == "" && len(f.Body) > 0:
		return nil, code.Errorf(code.BadRequest, "%s carries no body", f.Cmd)
	case msgType == "" || f.Codec == CodecJSON:
		return f.Body, nil
	}
	return j.FromProto(msgType, f.Body)
}

// DecodeText reads the text form of a frame; its body becomes protobuf. A text longer than
// maxBody + TextOverhead bytes is CloseTooLarge. Any other *code.Error refuses this frame
// only: BadRequest for malformed JSON, unknown fields and wrong types, Unsupported for an
// unknown command. f has the seq then, where it could be read, so that it can be answered.
func (j *JSON) DecodeText(b []byte, maxBody int) (f Frame, err error) {
	if len(b) > max(0, maxBody)+TextOverhead {
		return f, code.Errorf(code.CloseTooLarge, "frame of %d bytes, the limit is %d", len(b), max(0, maxBody)+TextOverhead)
	}
	var t text
	if err := strictJSON(b, &t); err != nil {
		return Frame{Seq: t.Seq}, code.Errorf(code.BadRequest, "frame: %v", err)
	}
	f = Frame{Flags: t.flags(), Seq: t.Seq, Status: code.Code(t.Status)}
	cmd, known := im.Cmd_value[t.Cmd]
	if !known || cmd == 0 {
		return f, code.Errorf(code.Unsupported, "no command %.40q", t.Cmd)
	}
	f.Cmd = im.Cmd(cmd)
	f.Body, err = j.protoBody(&f, t.Body)
	return f, err
}

func (j *JSON) protoBody(f *Frame, body json.RawMessage) ([]byte, error) {
	if msgType := BodyType(f); msgType != "" {
		return j.ToProto(msgType, body)
	}
	if len(body) > 0 && strictJSON(body, &struct{}{}) != nil {
		return nil, code.Errorf(code.BadRequest, "%s carries no body", f.Cmd)
	}
	return nil, nil
}

func (t *text) flags() (flags Flags) {
	if t.Response {
		flags |= FlagResponse
	}
	if t.OneWay {
		flags |= FlagOneWay
	}
	if t.Critical {
		flags |= FlagCritical
	}
	return flags
}

var errTrailing = errors.New("something follows the frame")

// strictJSON reads exactly one value without unknown fields.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errTrailing
	}
	return nil
}
