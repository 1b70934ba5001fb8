package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
)

// comments turns what a struct says about its fields into what the page says about keys,
// field by field.
type comments struct {
	files *token.FileSet
	keys  map[string]string // key by the name of the field
	owner string            // the field whose comment those right below it share
	end   int               // line of the last field
}

// next is the meaning of a field. One without a comment, right below one with a comment,
// shares that: the page refers to it.
func (c *comments) next(f *ast.Field) string {
	if len(f.Names) == 0 {
		return ""
	}
	name := f.Names[0].Name
	begin := c.files.Position(f.Pos()).Line
	above, beside := oneLine(f.Doc), oneLine(f.Comment)
	switch {
	case above != "":
		c.owner = name
	case beside != "" || begin != c.end+1:
		c.owner = ""
	}
	c.end = c.files.Position(f.End()).Line
	if above == "" && c.owner != "" {
		return "see " + code(c.keys[c.owner])
	}
	return c.rename(name, strings.TrimSpace(above+" "+beside))
}

var word = regexp.MustCompile(`[A-Za-z][A-Za-z0-9]*`)

// rename speaks of keys where the source speaks of fields: "MaxBody is the most text" of the
// field MaxBody becomes "the most text", MaxBody elsewhere `max_body`.
func (c *comments) rename(own, text string) string {
	for _, verb := range []string{" is ", " are "} {
		if rest, ok := strings.CutPrefix(text, own+verb); ok {
			text = rest
		}
	}
	text = word.ReplaceAllStringFunc(text, func(w string) string {
		if key := c.keys[w]; key != "" {
			return code(key)
		}
		return w
	})
	return strings.TrimSuffix(text, ".")
}

func oneLine(comment *ast.CommentGroup) string {
	return strings.Join(strings.Fields(comment.Text()), " ")
}
