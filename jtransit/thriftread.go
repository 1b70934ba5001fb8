package jtransit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// decode reads the struct of the result: one field, the value or what was thrown.
func (m *thriftMethod) decode(body []byte, most int) ([]byte, error) {
	r := thriftReader{in: body, most: most}
	for {
		f, wire, err := r.field(m.result)
		switch {
		case err != nil:
			return nil, err
		case wire == wireStop && m.void:
			return []byte("{}"), nil
		case wire == wireStop:
			return nil, errors.New("the answer has neither a result nor an exception")
		case f == nil:
			if err := r.skip(wire, 0); err != nil {
				return nil, err
			}
			continue
		}
		if err := r.value(f.typ, 0); err != nil {
			return nil, err
		}
		if f.id == 0 && !m.void {
			return r.out, nil
		}
		return nil, thrown(f.typ, r.out)
	}
}

// thrown is an exception as its user sees it: what it calls its message, else all of it.
func thrown(t *thriftType, text []byte) error {
	e := &exception{message: string(text)}
	if t.of == nil {
		return e
	}
	e.name = t.of.name
	var members map[string]any
	if json.Unmarshal(text, &members) != nil {
		return e
	}
	for _, name := range []string{"message", "msg", "reason", "error_message", "errorMessage"} {
		if m, ok := members[name].(string); ok && m != "" {
			e.message = m
			break
		}
	}
	return e
}

// thriftReader turns the binary protocol into JSON. It trusts nothing of what it reads.
type thriftReader struct {
	in   []byte
	out  []byte
	most int // bytes of out
}

var errShort = errors.New("the answer ends early")

// take gives the next n bytes.
func (r *thriftReader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.in) {
		return nil, errShort
	}
	b := r.in[:n]
	r.in = r.in[n:]
	return b, nil
}

func (r *thriftReader) uint(size int) (n uint64, err error) {
	b, err := r.take(size)
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n, err
}

// count reads how many elements follow, each of which takes a byte at least.
func (r *thriftReader) count() (int, error) {
	n, err := r.uint(4)
	if err != nil {
		return 0, err
	}
	if n > uint64(len(r.in)) {
		return 0, errShort
	}
	return int(n), nil
}

func (r *thriftReader) write(text string) error {
	if len(r.out)+len(text) > r.most {
		return errTooLong
	}
	r.out = append(r.out, text...)
	return nil
}

// field reads the head of a field; nil where the IDL does not know it.
func (r *thriftReader) field(c *thriftClass) (f *thriftField, wire byte, err error) {
	head, err := r.take(1)
	if err != nil || head[0] == wireStop {
		return nil, wireStop, err
	}
	id, err := r.uint(2)
	if err != nil {
		return nil, 0, err
	}
	f = c.byID[int16(id)]
	if f != nil && f.typ.wire != head[0] {
		return nil, 0, fmt.Errorf("field %s.%s has type %d, not %d as in the IDL", c.name, f.name, head[0], f.typ.wire)
	}
	return f, head[0], nil
}

func (r *thriftReader) value(t *thriftType, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("the answer is nested deeper than %d", maxNesting)
	}
	switch t.wire {
	case wireStruct:
		return r.object(t.of, depth)
	case wireList, wireSet:
		return r.list(t, depth)
	case wireMap:
		return r.mapping(t, depth)
	}
	text, err := r.scalar(t)
	if err != nil {
		return err
	}
	return r.write(text)
}

// scalar reads a value without parts, as JSON.
func (r *thriftReader) scalar(t *thriftType) (string, error) {
	switch t.wire {
	case wireString:
		n, err := r.count()
		if err != nil {
			return "", err
		}
		b, err := r.take(n)
		if err != nil {
			return "", err
		}
		if len(b) > r.most {
			return "", errTooLong
		}
		if t.binary {
			return strconv.Quote(base64.StdEncoding.EncodeToString(b)), nil
		}
		return quote(string(b))
	case wireBool:
		n, err := r.uint(1)
		return strconv.FormatBool(n != 0), err
	case wireDouble:
		n, err := r.uint(8)
		return formatDouble(math.Float64frombits(n)), err
	case wireI64:
		n, err := r.uint(8)
		return strconv.Quote(strconv.FormatInt(int64(n), 10)), err
	}
	size := bits(t.wire) / 8
	n, err := r.uint(size)
	num := int64(n) << (64 - size*8) >> (64 - size*8) // its sign
	if t.enum != nil {
		if name := t.enum.byNum[int32(num)]; name != "" {
			return strconv.Quote(name), err
		}
	}
	return strconv.FormatInt(num, 10), err
}

func formatDouble(f float64) string {
	switch {
	case math.IsNaN(f):
		return `"NaN"`
	case math.IsInf(f, 1):
		return `"Infinity"`
	case math.IsInf(f, -1):
		return `"-Infinity"`
	}
	text, _ := json.Marshal(f) // never fails for such a number
	return string(text)
}

// quote is s as JSON; what is not UTF-8 in it is replaced.
func quote(s string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// object reads a struct. Services write the fields in any order; the JSON has that of the IDL.
func (r *thriftReader) object(c *thriftClass, depth int) error {
	start := len(r.out)
	found := make(map[*thriftField]string, len(c.fields))
	for {
		f, wire, err := r.field(c)
		if err != nil {
			return err
		}
		if wire == wireStop {
			break
		}
		if f == nil || found[f] != "" {
			err = r.skip(wire, depth)
		} else {
			from := len(r.out)
			err = r.value(f.typ, depth+1)
			found[f] = string(r.out[from:])
		}
		if err != nil {
			return err
		}
	}
	r.out = r.out[:start]
	open := "{"
	for _, f := range c.fields {
		value := found[f]
		if value == "" && !c.union {
			value = string(f.standard)
		}
		switch {
		case value != "":
			if err := r.write(open + strconv.Quote(f.name) + ":" + value); err != nil {
				return err
			}
			open = ","
		case f.required:
			return fmt.Errorf("the answer has no %s.%s, which is required", c.name, f.name)
		}
	}
	if open == "{" {
		return r.write("{}")
	}
	return r.write("}")
}

func (r *thriftReader) list(t *thriftType, depth int) error {
	elem, err := r.take(1)
	if err != nil {
		return err
	}
	n, err := r.count()
	if err != nil {
		return err
	}
	if n > 0 && elem[0] != t.elem.wire {
		return fmt.Errorf("a list has elements of type %d, not %d as in the IDL", elem[0], t.elem.wire)
	}
	if err := r.write("["); err != nil {
		return err
	}
	for i := range n {
		if i > 0 {
			if err := r.write(","); err != nil {
				return err
			}
		}
		if err := r.value(t.elem, depth+1); err != nil {
			return err
		}
	}
	return r.write("]")
}

func (r *thriftReader) mapping(t *thriftType, depth int) error {
	types, err := r.take(2)
	if err != nil {
		return err
	}
	n, err := r.count()
	if err != nil {
		return err
	}
	if n > 0 && (types[0] != t.key.wire || types[1] != t.elem.wire) {
		return fmt.Errorf("a map is of types %d and %d, not %d and %d as in the IDL", types[0], types[1], t.key.wire, t.elem.wire)
	}
	open := "{"
	for range n {
		key, err := r.scalar(t.key)
		if err != nil {
			return err
		}
		if key[0] != '"' {
			key = strconv.Quote(key)
		}
		if err := r.write(open + key + ":"); err != nil {
			return err
		}
		open = ","
		if err := r.value(t.elem, depth+1); err != nil {
			return err
		}
	}
	if n == 0 {
		return r.write("{}")
	}
	return r.write("}")
}

// skip passes over a value that the IDL does not know.
func (r *thriftReader) skip(wire byte, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("the answer is nested deeper than %d", maxNesting)
	}
	var err error
	switch wire {
	case wireBool, wireI8:
		_, err = r.take(1)
	case wireI16:
		_, err = r.take(2)
	case wireI32:
		_, err = r.take(4)
	case wireI64, wireDouble:
		_, err = r.take(8)
	case wireString:
		var n int
		if n, err = r.count(); err == nil {
			_, err = r.take(n)
		}
	case wireStruct:
		for {
			head, err := r.take(1)
			if err != nil || head[0] == wireStop {
				return err
			}
			if _, err := r.take(2); err != nil {
				return err
			}
			if err := r.skip(head[0], depth+1); err != nil {
				return err
			}
		}
	case wireList, wireSet:
		return r.skipMany(1, depth)
	case wireMap:
		return r.skipMany(2, depth)
	default:
		return fmt.Errorf("the answer has a type %d", wire)
	}
	return err
}

// skipMany passes over a list, or over the pairs of a map.
func (r *thriftReader) skipMany(types, depth int) error {
	wires, err := r.take(types)
	if err != nil {
		return err
	}
	n, err := r.count()
	if err != nil {
		return err
	}
	for range n {
		for _, wire := range wires {
			if err := r.skip(wire, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
