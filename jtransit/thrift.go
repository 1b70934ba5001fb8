package jtransit

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/cloudwego/thriftgo/parser"

	"hongyan/internal/rpc"
)

// Types on the wire of thrift's binary protocol.
const (
	wireStop   = 0
	wireBool   = 2
	wireI8     = 3
	wireDouble = 4
	wireI16    = 6
	wireI32    = 8
	wireI64    = 10
	wireString = 11
	wireStruct = 12
	wireMap    = 13
	wireSet    = 14
	wireList   = 15
)

// thriftType is a type with typedefs and includes resolved.
type thriftType struct {
	wire      byte
	binary    bool         // of wireString
	enum      *thriftEnum  // of wireI32
	key, elem *thriftType  // of maps, sets, lists
	of        *thriftClass // of wireStruct
}

type thriftEnum struct {
	byName map[string]int32
	byNum  map[int32]string
}

// thriftClass is a struct, union or exception.
type thriftClass struct {
	name   string
	union  bool
	fields []*thriftField
	byName map[string]*thriftField
	byID   map[int16]*thriftField
}

type thriftField struct {
	id       int16
	name     string
	required bool
	typ      *thriftType
	standard []byte // JSON of its default; nil = none
	encoded  []byte // the same on the wire
}

// thriftFile is a compiled .thrift file.
type thriftFile struct {
	main  string
	tree  *parser.Thrift
	trees map[string]*parser.Thrift // by path
	at    map[*parser.Thrift]string // path of a tree

	classes map[*parser.StructLike]*thriftClass
	enums   map[*parser.Enum]*thriftEnum
}

// compileThrift parses a file and what it includes: beside the file that includes, or
// beside the main one. All types of it are resolved, so that a mistake shows now.
func compileThrift(main string, read texts) (idlFile, error) {
	f := &thriftFile{
		main: main, trees: map[string]*parser.Thrift{}, at: map[*parser.Thrift]string{},
		classes: map[*parser.StructLike]*thriftClass{}, enums: map[*parser.Enum]*thriftEnum{},
	}
	var err error
	if f.tree, err = f.parse(main, read, 0); err != nil {
		return nil, err
	}
	for _, svc := range f.tree.Services {
		for _, fn := range svc.Functions {
			if _, err := f.compileMethod(svc, fn, f.tree); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", svc.Name, fn.Name, err)
			}
		}
	}
	return f, nil
}

func (f *thriftFile) parse(name string, read texts, depth int) (*parser.Thrift, error) {
	if tree := f.trees[name]; tree != nil {
		return tree, nil
	}
	text, err := read(name)
	if err != nil {
		return nil, err
	}
	if depth > maxNesting || tooDeep(text) {
		return nil, fmt.Errorf("%s: nested deeper than %d", name, maxNesting)
	}
	tree, err := parser.ParseString(name, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", name, strings.Join(strings.Fields(err.Error()), " "))
	}
	f.trees[name], f.at[tree] = tree, name
	for _, in := range tree.Includes {
		beside := path.Join(path.Dir(name), in.Path)
		if in.Reference, err = f.parse(beside, read, depth+1); err == nil {
			continue
		}
		if top := path.Join(path.Dir(f.main), in.Path); top != beside {
			if ref, again := f.parse(top, read, depth+1); again == nil {
				in.Reference, err = ref, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s includes %s: %w", name, in.Path, err)
		}
	}
	return tree, nil
}

// tooDeep bounds the recursion of the parser, which has no bound of its own.
func tooDeep(text string) bool {
	depth := 0
	for _, c := range []byte(text) {
		switch c {
		case '<', '[', '{', '(':
			if depth++; depth > maxNesting {
				return true
			}
		case '>', ']', '}', ')':
			depth = max(0, depth-1)
		}
	}
	return false
}

func (f *thriftFile) method(service, name string) (method, error) {
	for _, svc := range f.tree.Services {
		if svc.Name == service {
			fn, in, err := f.function(svc, f.tree, name)
			if err != nil {
				return nil, err
			}
			if err := callable(fn); err != nil {
				return nil, fmt.Errorf("%s.%s is %w", service, name, err)
			}
			return f.compileMethod(svc, fn, in)
		}
	}
	return nil, fmt.Errorf("no service %s in %s", service, path.Base(f.main))
}

func callable(fn *parser.Function) error {
	if fn.Oneway {
		return errors.New("oneway, which cannot be called")
	}
	for _, a := range fn.Annotations {
		if strings.HasPrefix(a.Key, "streaming.") && !(len(a.Values) == 1 && a.Values[0] == "unary") {
			return errors.New("a stream, which cannot be called")
		}
	}
	return nil
}

// function finds one of a service or of those it extends, and the file it stands in.
func (f *thriftFile) function(svc *parser.Service, in *parser.Thrift, name string) (*parser.Function, *parser.Thrift, error) {
	first := svc.Name
	for range maxNesting {
		for _, fn := range svc.Functions {
			if fn.Name == name {
				return fn, in, nil
			}
		}
		if svc.Extends == "" {
			return nil, nil, fmt.Errorf("service %s has no method %s", first, name)
		}
		home, base, err := resolve(in, svc.Extends)
		if err != nil {
			return nil, nil, err
		}
		parent, ok := home.GetService(base)
		if !ok {
			return nil, nil, fmt.Errorf("service %s extends %s, which does not exist", svc.Name, svc.Extends)
		}
		svc, in = parent, home
	}
	return nil, nil, fmt.Errorf("service %s extends itself", first)
}

// resolve finds the file in which a name like shared.Item stands.
func resolve(in *parser.Thrift, name string) (home *parser.Thrift, short string, err error) {
	prefix, short, dotted := strings.Cut(name, ".")
	if !dotted {
		return in, name, nil
	}
	// A file's name may have dots too: the longest prefix that is included.
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '.' {
			continue
		}
		for _, inc := range in.Includes {
			if strings.TrimSuffix(path.Base(inc.Path), ".thrift") == name[:i] && inc.Reference != nil {
				return inc.Reference, name[i+1:], nil
			}
		}
	}
	return nil, short, fmt.Errorf("%s: no file %s.thrift is included", name, prefix)
}

// compileMethod resolves the types of one method. A single argument that is a struct is the
// request itself; of several, the request is an object with a member for each.
func (f *thriftFile) compileMethod(svc *parser.Service, fn *parser.Function, in *parser.Thrift) (*thriftMethod, error) {
	m := &thriftMethod{of: rpc.ForeignService{Encoding: rpc.Thrift, Service: svc.Name}, void: fn.Void}
	var err error
	if m.args, err = f.class(&parser.StructLike{Name: fn.Name + " arguments", Fields: fn.Arguments}, in); err != nil {
		return nil, err
	}
	m.single = len(m.args.fields) == 1 && m.args.fields[0].typ.wire == wireStruct
	// The result is a struct too: 0 = the value, the others are what may be thrown.
	results := fn.Throws
	if !fn.Void {
		results = append([]*parser.Field{{ID: 0, Name: "the result", Type: fn.FunctionType}}, results...)
	}
	if m.result, err = f.class(&parser.StructLike{Name: fn.Name + " result", Fields: results}, in); err != nil {
		return nil, err
	}
	return m, nil
}

// class resolves a struct. It is known before its fields are, because it may hold itself.
func (f *thriftFile) class(s *parser.StructLike, in *parser.Thrift) (*thriftClass, error) {
	if c := f.classes[s]; c != nil {
		return c, nil
	}
	c := &thriftClass{
		name: s.Name, union: s.Category == "union",
		byName: map[string]*thriftField{}, byID: map[int16]*thriftField{},
	}
	f.classes[s] = c
	for _, field := range s.Fields {
		if field.ID < math.MinInt16 || field.ID > math.MaxInt16 {
			return nil, fmt.Errorf("%s.%s: id %d is out of range", s.Name, field.Name, field.ID)
		}
		t, err := f.resolveType(field.Type, in, 0)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", s.Name, field.Name, err)
		}
		made := &thriftField{
			id: int16(field.ID), name: field.Name, typ: t,
			required: field.Requiredness == parser.FieldType_Required && !c.union,
		}
		if c.byName[made.name] != nil || c.byID[made.id] != nil {
			return nil, fmt.Errorf("%s: field %d %s is there twice", s.Name, made.id, made.name)
		}
		c.fields = append(c.fields, made)
		c.byName[made.name], c.byID[made.id] = made, made
	}
	for i, field := range s.Fields {
		if field.Default == nil {
			continue
		}
		if err := f.setDefault(c.fields[i], field, in); err != nil {
			return nil, fmt.Errorf("%s.%s: default: %w", s.Name, field.Name, err)
		}
	}
	return c, nil
}

func (f *thriftFile) setDefault(made *thriftField, field *parser.Field, in *parser.Thrift) error {
	tree, err := constant(field.Default, made.typ, in, 0)
	if err != nil {
		return err
	}
	if made.encoded, err = appendThrift(nil, made.typ, tree, place{name: field.Name}); err != nil {
		return err
	}
	r := thriftReader{in: made.encoded, most: maxIDL}
	if err := r.value(made.typ, 0); err != nil {
		return err
	}
	made.standard = r.out
	return nil
}

var scalars = map[string]thriftType{
	"bool": {wire: wireBool}, "byte": {wire: wireI8}, "i8": {wire: wireI8}, "i16": {wire: wireI16}, "i32": {wire: wireI32},
	"i64": {wire: wireI64}, "double": {wire: wireDouble}, "string": {wire: wireString}, "binary": {wire: wireString, binary: true},
}

func (f *thriftFile) resolveType(t *parser.Type, in *parser.Thrift, depth int) (*thriftType, error) {
	if t == nil {
		return nil, errors.New("has no type")
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("type %s is nested deeper than %d, or defined by itself", t.Name, maxNesting)
	}
	if s, ok := scalars[t.Name]; ok {
		return &s, nil
	}
	switch t.Name {
	case "list", "set":
		elem, err := f.resolveType(t.ValueType, in, depth+1)
		wire := byte(wireList)
		if t.Name == "set" {
			wire = wireSet
		}
		return &thriftType{wire: wire, elem: elem}, err
	case "map":
		key, err := f.resolveType(t.KeyType, in, depth+1)
		if err != nil {
			return nil, err
		}
		if key.wire >= wireStruct || key.binary {
			return nil, errors.New("a map by anything but numbers, strings and enums has no JSON")
		}
		elem, err := f.resolveType(t.ValueType, in, depth+1)
		return &thriftType{wire: wireMap, key: key, elem: elem}, err
	}
	home, name, err := resolve(in, t.Name)
	if err != nil {
		return nil, err
	}
	if def, ok := home.GetTypedef(name); ok {
		return f.resolveType(def.Type, home, depth+1)
	}
	if enum, ok := home.GetEnum(name); ok {
		return &thriftType{wire: wireI32, enum: f.enum(enum)}, nil
	}
	for _, s := range home.GetStructLikes() {
		if s.Name == name {
			of, err := f.class(s, home)
			return &thriftType{wire: wireStruct, of: of}, err
		}
	}
	return nil, fmt.Errorf("type %s does not exist", t.Name)
}

func (f *thriftFile) enum(e *parser.Enum) *thriftEnum {
	if made := f.enums[e]; made != nil {
		return made
	}
	made := &thriftEnum{byName: map[string]int32{}, byNum: map[int32]string{}}
	for _, v := range e.Values {
		made.byName[v.Name] = int32(v.Value)
		made.byNum[int32(v.Value)] = cmp.Or(made.byNum[int32(v.Value)], v.Name)
	}
	f.enums[e] = made
	return made
}

// constant is what a default says, as JSON decodes it.
func constant(v *parser.ConstValue, t *thriftType, in *parser.Thrift, depth int) (any, error) {
	if v == nil || v.TypedValue == nil || depth > maxNesting {
		return nil, errors.New("is no constant")
	}
	switch v.Type {
	case parser.ConstType_ConstInt:
		n := v.TypedValue.GetInt()
		if t.wire == wireBool {
			return n != 0, nil
		}
		return json.Number(fmt.Sprint(n)), nil
	case parser.ConstType_ConstDouble:
		return json.Number(fmt.Sprint(v.TypedValue.GetDouble())), nil
	case parser.ConstType_ConstLiteral:
		return literal(v.TypedValue.GetLiteral(), t), nil
	case parser.ConstType_ConstIdentifier:
		return identifier(v.TypedValue.GetIdentifier(), t, in, depth)
	case parser.ConstType_ConstList:
		if t.wire == wireMap && len(v.TypedValue.GetList()) == 0 {
			return map[string]any{}, nil
		}
		if t.wire != wireList && t.wire != wireSet {
			return nil, errors.New("is a list")
		}
		list := []any{}
		for _, e := range v.TypedValue.GetList() {
			made, err := constant(e, t.elem, in, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, made)
		}
		return list, nil
	case parser.ConstType_ConstMap:
		return constantMap(v.TypedValue.GetMap(), t, in, depth)
	}
	return nil, errors.New("is no constant")
}

func literal(text string, t *thriftType) string {
	if t.binary {
		return base64.StdEncoding.EncodeToString([]byte(text))
	}
	return text
}

func constantMap(pairs []*parser.MapConstValue, t *thriftType, in *parser.Thrift, depth int) (any, error) {
	made := map[string]any{}
	for _, p := range pairs {
		keyType, elem := t.key, t.elem
		if t.wire == wireStruct {
			keyType = &thriftType{wire: wireString}
		} else if t.wire != wireMap {
			return nil, errors.New("is a map")
		}
		key, err := constant(p.Key, keyType, in, depth+1)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprint(key)
		if t.wire == wireStruct {
			field := t.of.byName[name]
			if field == nil {
				return nil, fmt.Errorf("%s has no field %s", t.of.name, name)
			}
			elem = field.typ
		}
		if made[name], err = constant(p.Value, elem, in, depth+1); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// identifier is true, false, a value of an enum, or another constant.
func identifier(name string, t *thriftType, in *parser.Thrift, depth int) (any, error) {
	if name == "true" || name == "false" {
		return name == "true", nil
	}
	if t.enum != nil {
		last := name[strings.LastIndexByte(name, '.')+1:]
		if _, ok := t.enum.byName[last]; ok {
			return last, nil
		}
	}
	home, short, err := resolve(in, name)
	if err != nil {
		return nil, err
	}
	if c, ok := home.GetConstant(short); ok {
		return constant(c.Value, t, home, depth+1)
	}
	return nil, fmt.Errorf("%s does not exist", name)
}
