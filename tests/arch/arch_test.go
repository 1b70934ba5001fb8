// Package arch holds the shape of the repository: dependencies point down only,
// cmd -> tiers -> internal -> idl, and the tiers never import each other.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// allowed: das/store is part of its tier, so only das, cmd and tests reach it.
func allowed(from, to string) bool {
	fromTop, _, _ := strings.Cut(from, "/")
	toTop, _, _ := strings.Cut(to, "/")
	switch {
	case fromTop == "tests", fromTop == toTop, toTop == "idl":
		return true
	case fromTop == "cmd":
		return toTop != "tests"
	case fromTop == "sdk":
		return to == "internal/wire"
	}
	return toTop == "internal" && fromTop != "idl" // a tier
}

// elsewhere are folders without code of ours.
var elsewhere = regexp.MustCompile(`^(tools|bin|data|\.git|.*node_modules)$`)

func TestDependenciesPointDown(t *testing.T) {
	for _, bad := range []string{"logic das", "entry das/store", "internal/mq das/store", "internal/rpc logic", "idl/im internal/wire", "sdk/go internal/route", "das cmd/hongyan", "cmd/hongyan tests/sim"} {
		if from, to, _ := strings.Cut(bad, " "); allowed(from, to) {
			t.Errorf("the rule would let %s import %s", from, to)
		}
	}
	vague := regexp.MustCompile(`^(utils?|common|base|model|helpers?)$`)
	prints := regexp.MustCompile(`\b(fmt|log)\.Print`)
	if err := fs.WalkDir(os.DirFS("../.."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && elsewhere.MatchString(file) {
			return fs.SkipDir
		} else if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		source, _ := os.ReadFile("../../" + file)
		f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.ImportsOnly)
		if err != nil || vague.MatchString(f.Name.Name) || !strings.HasPrefix(file, "cmd/") && prints.Match(source) {
			t.Errorf("%s: broken (%v), in a package named after nothing, or prints where it should use slog or an io.Writer", file, err)
		}
		for _, i := range f.Imports {
			if to, own := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "hongyan/"); own && !allowed(path.Dir(file), to) {
				t.Errorf("%s imports %s", file, to)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
