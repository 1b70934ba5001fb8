// Command reference writes docs/configuration.md: every key with its environment variable,
// its default and its meaning. Keys and meanings are read from the sources (the koanf tags
// and the comments of the configuration structs), defaults from the program itself. Its
// output depends on nothing else.
//
//	go run ./internal/config/reference [root of the repository]
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"hongyan/internal/config"
)

const page = "docs/configuration.md"

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	text, err := generate(root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, page), text, 0o644)
}

// generate makes the page from the root struct, Config of cmd/hongyan.
func generate(root string) ([]byte, error) {
	s, err := newSources(root)
	if err != nil {
		return nil, err
	}
	fields, err := s.root("cmd/hongyan", "Config")
	if err != nil {
		return nil, err
	}
	printed, err := printDefaults(root)
	if err != nil {
		return nil, err
	}
	if err := addDefaults(fields, printed); err != nil {
		return nil, err
	}
	return render(fields), nil
}

// printDefaults asks the program for its configuration, with nothing given.
func printDefaults(root string) ([]byte, error) {
	cmd := exec.Command("go", "run", "./cmd/hongyan", "config", "print")
	cmd.Dir = root
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, config.EnvPrefix) {
			cmd.Env = append(cmd.Env, pair)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go run ./cmd/hongyan config print: %w\n%s", err, stderr.String())
	}
	return out, nil
}
