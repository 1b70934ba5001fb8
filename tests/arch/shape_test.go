package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

// Longer than this is two things. A test may be longer than what it tests: one world, many cases.
const (
	mostLines     = 600
	mostTestLines = 800
	mostFunction  = 100
)

// eachFile parses what was written by hand.
func eachFile(t *testing.T, look func(file string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	if err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && elsewhere.MatchString(file) {
			return fs.SkipDir
		}
		if path.Ext(file) != ".go" || strings.Contains(file, "/gen/") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path.Join(root, file), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		} else if !ast.IsGenerated(f) {
			look(file, fset, f)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	eachFile(t, func(file string, fset *token.FileSet, f *ast.File) {
		lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1 }
		most := mostLines
		if strings.HasSuffix(file, "_test.go") {
			most = mostTestLines
		}
		if n := fset.Position(f.FileEnd).Line; n > most {
			t.Errorf("%s has %d lines, want at most %d: it holds more than one thing", file, n, most)
		}
		for _, d := range f.Decls {
			if fn, is := d.(*ast.FuncDecl); is && lines(fn) > mostFunction {
				t.Errorf("%s: %s has %d lines, want at most %d", file, fn.Name.Name, lines(fn), mostFunction)
			}
		}
	})
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	said := map[string]int{} // by folder, how often
	eachFile(t, func(file string, _ *token.FileSet, f *ast.File) {
		said[path.Dir(file)] += 0
		if text := f.Doc.Text(); strings.HasPrefix(text, "Package "+f.Name.Name+" ") || f.Name.Name == "main" && text != "" {
			said[path.Dir(file)]++
		}
	})
	for folder, n := range said {
		if n != 1 {
			t.Errorf("%s has %d package comments, want one that says what it is", folder, n)
		}
	}
}
