package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// field is one key, or a section of keys, as its struct declares it.
type field struct {
	name     string // last part of the key
	key      string // whole
	doc      string
	secret   bool
	live     bool // may change while a process runs
	kind     kind
	fields   []*field // of a section; of an element of a list or table
	fallback string   // default, as it is written in a file
}

type kind uint8

const (
	leaf    kind = iota
	section      // a struct
	list         // a slice of structs
	table        // a map of structs
)

// sources finds types of the module by the import paths of the files that name them.
type sources struct {
	dir      string
	module   string
	files    *token.FileSet
	packages map[string]*source // by directory below dir
}

// source is a package, parsed.
type source struct {
	dir      string
	synopsis string
	types    map[string]*declared
}

// declared is a type with the file that declares it, whose imports give its names a meaning.
type declared struct {
	spec *ast.TypeSpec
	doc  string
	file *ast.File
}

func newSources(dir string) (*sources, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	module, ok := strings.CutPrefix(first, "module ")
	if !ok {
		return nil, fmt.Errorf("go.mod begins with %q, not with the module", first)
	}
	return &sources{dir, strings.TrimSpace(module), token.NewFileSet(), map[string]*source{}}, nil
}

// root returns the keys of a struct, with everything below them.
func (s *sources) root(dir, name string) ([]*field, error) {
	pkg, err := s.load(dir)
	if err != nil {
		return nil, err
	}
	d := pkg.types[name]
	if d == nil {
		return nil, fmt.Errorf("%s has no type %s", dir, name)
	}
	return s.fields(pkg, d, "")
}

// load parses a package of the module, once.
func (s *sources) load(dir string) (*source, error) {
	if pkg := s.packages[dir]; pkg != nil {
		return pkg, nil
	}
	pkg := &source{dir: dir, types: map[string]*declared{}}
	paths, err := filepath.Glob(filepath.Join(s.dir, dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(s.files, p, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if f.Doc != nil {
			pkg.synopsis = new(doc.Package).Synopsis(f.Doc.Text())
		}
		pkg.declare(f)
	}
	s.packages[dir] = pkg
	return pkg, nil
}

func (p *source) declare(f *ast.File) {
	for _, d := range f.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.TYPE {
			continue
		}
		for _, spec := range group.Specs {
			t := spec.(*ast.TypeSpec)
			comment := t.Doc
			if comment == nil {
				comment = group.Doc
			}
			p.types[t.Name.Name] = &declared{t, oneLine(comment), f}
		}
	}
}

// fields lists the keys of a struct in the order of its fields.
func (s *sources) fields(pkg *source, d *declared, prefix string) ([]*field, error) {
	st, ok := d.spec.Type.(*ast.StructType)
	if !ok {
		return nil, fmt.Errorf("%s.%s is no struct", pkg.dir, d.spec.Name.Name)
	}
	keys := map[string]string{} // by the name of the field
	for _, f := range st.Fields.List {
		for _, n := range f.Names {
			keys[n.Name] = keyOf(f)
		}
	}
	var out []*field
	comments := comments{files: s.files, keys: keys}
	for _, f := range st.Fields.List {
		comment := comments.next(f)
		name := keyOf(f)
		if name == "" {
			continue
		}
		one := &field{name: name, key: name, doc: comment, secret: tagOf(f).Get("secret") == "true", live: tagOf(f).Get("live") == "true"}
		if prefix != "" {
			one.key = prefix + "." + name
		}
		if err := s.describe(pkg, d.file, f.Type, one); err != nil {
			return nil, fmt.Errorf("%s: %w", one.key, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func tagOf(f *ast.Field) reflect.StructTag {
	if f.Tag == nil {
		return ""
	}
	text, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return ""
	}
	return reflect.StructTag(text)
}

// keyOf is the last part of a field's key; empty = it has none.
func keyOf(f *ast.Field) string {
	name, _, _ := strings.Cut(tagOf(f).Get("koanf"), ",")
	return strings.TrimPrefix(name, "-")
}

// describe finds out what the type of a field is.
func (s *sources) describe(pkg *source, file *ast.File, expr ast.Expr, f *field) error {
	below := f.key
	f.kind = section
	switch t := expr.(type) {
	case *ast.ArrayType:
		expr, f.kind, below = t.Elt, list, f.key+"[]"
	case *ast.MapType:
		expr, f.kind, below = t.Value, table, f.key+".<name>"
	}
	home, d, err := s.resolve(pkg, file, expr)
	if err != nil {
		return err
	}
	if d == nil {
		f.kind = leaf
		return nil
	}
	if _, ok := d.spec.Type.(*ast.StructType); !ok {
		f.kind = leaf
		return nil
	}
	if f.doc == "" && f.kind == section {
		f.doc = d.doc
		if home != pkg {
			f.doc = strings.TrimPrefix(home.synopsis, "Package ")
		}
		if _, rest, ok := strings.Cut(f.doc, " "); ok {
			f.doc = code(f.name) + " " + rest // instead of the name of the type or package
		}
	}
	f.fields, err = s.fields(home, d, below)
	return err
}

// resolve finds a type of the module; nil for any other.
func (s *sources) resolve(pkg *source, file *ast.File, expr ast.Expr) (*source, *declared, error) {
	switch t := expr.(type) {
	case *ast.Ident:
		return pkg, pkg.types[t.Name], nil
	case *ast.SelectorExpr:
		name := t.X.(*ast.Ident).Name
		dir, ok := s.imported(file, name)
		if !ok {
			return nil, nil, nil
		}
		home, err := s.load(dir)
		if err != nil {
			return nil, nil, err
		}
		d := home.types[t.Sel.Name]
		if d == nil {
			return nil, nil, fmt.Errorf("%s has no type %s", dir, t.Sel.Name)
		}
		return home, d, nil
	}
	return nil, nil, nil
}

// imported is the directory of the module's package that a file calls name.
func (s *sources) imported(file *ast.File, name string) (string, bool) {
	for _, i := range file.Imports {
		dir, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), s.module+"/")
		if !ok {
			continue
		}
		if i.Name != nil && i.Name.Name == name || i.Name == nil && path.Base(dir) == name {
			return dir, true
		}
	}
	return "", false
}
