package jtransit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"hongyan/idl/code"
	"hongyan/internal/rpc"
)

// thriftMethod turns JSON into the bodies of one method. The rules are those of protobuf
// JSON, so that a client need not know what a service is written in: names of fields as in
// the IDL, i64 as a string (a number is taken too), enums by name, binary as base64, keys of
// maps as strings, null as absent. A required field that is absent takes its default, or is
// an error; in answers, absent fields show their default.
type thriftMethod struct {
	of           rpc.ForeignService
	args, result *thriftClass
	single       bool // the one argument is the request
	void         bool
}

func (m *thriftMethod) service() rpc.ForeignService { return m.of }

func (m *thriftMethod) encode(data []byte) ([]byte, error) {
	tree := any(map[string]any{})
	if len(data) > 0 {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&tree); err != nil {
			return nil, code.Errorf(code.BadRequest, "data: %s", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, code.Errorf(code.BadRequest, "data: more than one value")
		}
	}
	if m.single {
		if tree == nil {
			tree = map[string]any{}
		}
		tree = map[string]any{m.args.fields[0].name: tree}
	}
	body, err := appendThrift(nil, &thriftType{wire: wireStruct, of: m.args}, tree, place{bare: m.single})
	if err != nil {
		return nil, code.Errorf(code.BadRequest, "data: %s", err)
	}
	return body, nil
}

// place is where in the JSON something stands, for errors; it costs nothing without one.
type place struct {
	in    *place
	name  string
	depth int
	bare  bool // has no name of its own, and the member below it neither
}

func (p *place) below(name string) place { return place{in: p, name: name, depth: p.depth + 1} }

func (p *place) errorf(format string, a ...any) error {
	var names []string
	for at := p; at != nil && at.in != nil && !at.in.bare; at = at.in {
		names = append(names, at.name)
	}
	slices.Reverse(names)
	reason := fmt.Sprintf(format, a...)
	if len(names) == 0 {
		return errors.New(reason)
	}
	return fmt.Errorf("%.200s: %s", strings.Join(names, "."), reason)
}

// appendThrift appends one value in the binary protocol.
func appendThrift(dst []byte, t *thriftType, v any, at place) ([]byte, error) {
	if at.depth > maxNesting {
		return nil, at.errorf("nested deeper than %d", maxNesting)
	}
	switch t.wire {
	case wireBool:
		b, ok := v.(bool)
		if !ok {
			return nil, at.errorf("is not true or false")
		}
		if b {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case wireI8, wireI16, wireI32, wireI64:
		return appendInt(dst, t, v, at)
	case wireDouble:
		f, ok := double(v)
		if !ok {
			return nil, at.errorf("is not a number")
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), nil
	case wireString:
		return appendString(dst, t, v, at)
	case wireList, wireSet:
		return appendList(dst, t, v, at)
	case wireMap:
		return appendMap(dst, t, v, at)
	}
	return appendStruct(dst, t.of, v, at)
}

func bits(wire byte) int {
	switch wire {
	case wireI8:
		return 8
	case wireI16:
		return 16
	case wireI32:
		return 32
	}
	return 64
}

func appendInt(dst []byte, t *thriftType, v any, at place) ([]byte, error) {
	text, isText := v.(string)
	if number, ok := v.(json.Number); ok {
		text = number.String()
	} else if !isText {
		return nil, at.errorf("is not a whole number")
	}
	var n int64
	if t.enum != nil && isText {
		num, ok := t.enum.byName[text]
		if !ok {
			return nil, at.errorf("%.64q is not one of its values", text)
		}
		n = int64(num)
	} else {
		var err error
		if n, err = strconv.ParseInt(text, 10, bits(t.wire)); err != nil {
			f, bad := strconv.ParseFloat(text, 64) // 1e3 is whole too
			if bad != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 || int64(f)<<(64-bits(t.wire))>>(64-bits(t.wire)) != int64(f) {
				return nil, at.errorf("%.64q is not a whole number of %d bits", text, bits(t.wire))
			}
			n = int64(f)
		}
	}
	switch t.wire {
	case wireI8:
		return append(dst, byte(n)), nil
	case wireI16:
		return binary.BigEndian.AppendUint16(dst, uint16(n)), nil
	case wireI32:
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	}
	return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
}

func double(v any) (float64, bool) {
	text, ok := v.(string)
	if number, isNumber := v.(json.Number); isNumber {
		text = number.String()
	} else if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

func appendString(dst []byte, t *thriftType, v any, at place) ([]byte, error) {
	text, ok := v.(string)
	if !ok {
		return nil, at.errorf("is not a string")
	}
	if t.binary {
		clean := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
		raw, err := base64.RawStdEncoding.DecodeString(clean)
		if err != nil {
			return nil, at.errorf("is not base64")
		}
		text = string(raw)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(text))), text...), nil
}

func appendList(dst []byte, t *thriftType, v any, at place) ([]byte, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, at.errorf("is not an array")
	}
	dst = binary.BigEndian.AppendUint32(append(dst, t.elem.wire), uint32(len(list)))
	for i, e := range list {
		var err error
		if dst, err = appendThrift(dst, t.elem, e, at.below(strconv.Itoa(i))); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendMap(dst []byte, t *thriftType, v any, at place) ([]byte, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, at.errorf("is not an object")
	}
	dst = binary.BigEndian.AppendUint32(append(dst, t.key.wire, t.elem.wire), uint32(len(object)))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		key := any(name)
		if t.key.wire == wireBool {
			if key = name == "true"; name != "true" && name != "false" {
				return nil, at.errorf("key %.64q is not true or false", name)
			}
		}
		var err error
		if dst, err = appendThrift(dst, t.key, key, at.below(name)); err != nil {
			return nil, err
		}
		if dst, err = appendThrift(dst, t.elem, object[name], at.below(name)); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendStruct(dst []byte, c *thriftClass, v any, at place) ([]byte, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, at.errorf("is not an object")
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if c.byName[name] == nil {
			return nil, at.errorf("unknown field %.64q", name)
		}
	}
	set := 0
	for _, f := range c.fields {
		value := object[f.name]
		if value == nil && !f.required {
			continue
		}
		set++
		dst = binary.BigEndian.AppendUint16(append(dst, f.typ.wire), uint16(f.id))
		var err error
		switch {
		case value != nil:
			dst, err = appendThrift(dst, f.typ, value, at.below(f.name))
		case f.encoded != nil:
			dst = append(dst, f.encoded...)
		default:
			err = at.errorf("field %q is missing", f.name)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.union && set != 1 {
		return nil, at.errorf("%d fields of the union %s are set, it takes one", set, c.name)
	}
	return append(dst, wireStop), nil
}
