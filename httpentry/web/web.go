// Package web holds the pages that the tier serves itself: plain HTML, CSS and JavaScript
// modules, without a build step and without a file from elsewhere.
package web

import (
	"embed"
	"io/fs"
)

//go:embed demo docs
var files embed.FS

// Demo is the page of two users side by side; index.html is the page itself.
func Demo() fs.FS { return sub("demo") }

// Docs is the page that shows the OpenAPI document.
func Docs() fs.FS { return sub("docs") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is a constant above
	}
	return f
}
