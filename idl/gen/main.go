// Command gen reads idl/errors.tsv, the one table of codes, and writes the Go package
// idl/code and the page docs/errors.md from it. Its output depends on the table alone.
//
//	go run ./idl/gen [root of the repository]
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// outputs are the files that gen writes, relative to the root.
var outputs = []struct {
	path   string
	render func([]row) ([]byte, error)
}{
	{"idl/code/code_gen.go", renderGo},
	{"docs/errors.md", renderMarkdown},
}

func run(root string) error {
	f, err := os.Open(filepath.Join(root, "idl", "errors.tsv"))
	if err != nil {
		return err
	}
	defer f.Close()
	rows, err := parse(f)
	if err != nil {
		return fmt.Errorf("idl/errors.tsv: %w", err)
	}
	for _, out := range outputs {
		text, err := out.render(rows)
		if err != nil {
			return fmt.Errorf("%s: %w", out.path, err)
		}
		path := filepath.Join(root, out.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
