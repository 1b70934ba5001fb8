package jtransit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"hongyan/internal/rpc"
)

// idlFile is a compiled IDL: a .proto or a .thrift file with all it imports.
type idlFile interface {
	// method finds a method that can be called.
	method(service, name string) (method, error)
}

// method turns JSON into the bodies of one method of a service, and back.
type method interface {
	service() rpc.ForeignService
	// encode turns the JSON of a client into a request; empty is the empty request. Unknown
	// fields and wrong types are bad_request, with the place.
	encode(data []byte) ([]byte, error)
	// decode turns an answer into JSON of at most so many bytes, else errTooLong. What the
	// service declared as an exception is an *exception.
	decode(body []byte, most int) ([]byte, error)
}

var errTooLong = errors.New("the answer is over the limit")

// exception is a refusal that the IDL declares: a thrift exception.
type exception struct{ name, message string }

func (e *exception) Error() string { return e.name + ": " + e.message }

const (
	// maxNesting of JSON and of bodies.
	maxNesting = 64
	// maxIDL bounds one file of an IDL, in bytes.
	maxIDL = 1 << 20
	// maxImports bounds the files of one IDL.
	maxImports = 256
)

// unit is an IDL and what it was made of. One that does not compile has err.
type unit struct {
	main string
	file idlFile
	err  error
	made map[string]string // path -> digest of what was read; "" where there was nothing
}

// texts says what is in a file. An error is fs.ErrNotExist where there is none.
type texts func(path string) (string, error)

// compile reads the file at main and what it imports. A parser that panics has met a
// mistake in its input.
func compile(main string, read texts) (u *unit) {
	u = &unit{main: main, made: map[string]string{}}
	defer func() {
		if p := recover(); p != nil {
			u.file, u.err = nil, fmt.Errorf("idl %s: the parser failed: %v", main, p)
		}
	}()
	noting := func(path string) (string, error) {
		if len(u.made) >= maxImports {
			return "", fmt.Errorf("more than %d files", maxImports)
		}
		text, err := read(path)
		u.made[path] = digest(text, err)
		return text, err
	}
	if _, err := noting(main); err != nil {
		u.err = fmt.Errorf("idl: %w", err)
		return u
	}
	var err error
	if strings.HasSuffix(main, ".thrift") {
		u.file, err = compileThrift(main, noting)
	} else {
		u.file, err = compileProto(main, noting)
	}
	if err != nil {
		u.file, u.err = nil, fmt.Errorf("idl %s: %w", main, err)
	}
	return u
}

// fresh tells whether compiling again would read the same.
func (u *unit) fresh(read texts) bool {
	for path, was := range u.made {
		if digest(read(path)) != was {
			return false
		}
	}
	return true
}

func digest(text string, err error) string {
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return string(sum[:])
}

// liveOrFile reads live texts, and files where there is none.
func liveOrFile(live map[string]string) texts {
	live = maps.Clone(live)
	return func(name string) (string, error) {
		name = path.Clean(filepath.ToSlash(name))
		if text, ok := live[name]; ok {
			return text, nil
		}
		info, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if info.Size() > maxIDL || !info.Mode().IsRegular() {
			return "", fmt.Errorf("%s: %w: no file of at most %d bytes", name, fs.ErrInvalid, maxIDL)
		}
		text, err := os.ReadFile(name)
		return string(text), err
	}
}
