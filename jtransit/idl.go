package jtransit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"hongyan/idl/code"
)

// compile reads a .proto file and what it imports from its folder.
func compile(path string) (protoreflect.FileDescriptor, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("idl: %w", err)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(
		&protocompile.SourceResolver{ImportPaths: []string{filepath.Dir(path)}})}
	files, err := compiler.Compile(context.Background(), filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("idl %s: %w", path, err)
	}
	return files[0], nil
}

// method is one method of a service, with what turns JSON into its bodies.
type method struct {
	pkg, service, name string
	request, answer    protoreflect.MessageDescriptor
}

func findMethod(file protoreflect.FileDescriptor, service, name string) (*method, error) {
	pkg := string(file.Package())
	short := strings.TrimPrefix(service, pkg+".")
	svc := file.Services().ByName(protoreflect.Name(short))
	if svc == nil {
		return nil, fmt.Errorf("no service %s in %s", service, file.Path())
	}
	m := svc.Methods().ByName(protoreflect.Name(name))
	switch {
	case m == nil:
		return nil, fmt.Errorf("service %s has no method %s", service, name)
	case m.IsStreamingClient() || m.IsStreamingServer():
		return nil, fmt.Errorf("%s.%s is a stream, which cannot be called", service, name)
	}
	return &method{pkg, short, name, m.Input(), m.Output()}, nil
}

// maxNesting of the JSON of a request.
const maxNesting = 64

// encode turns the JSON of a client into the request. Empty is the empty request.
// Unknown fields and wrong types are bad_request, with the place.
func (m *method) encode(data []byte) ([]byte, error) {
	msg := dynamicpb.NewMessage(m.request)
	if len(data) == 0 {
		return nil, nil
	}
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxNesting}).Unmarshal(data, msg); err != nil {
		// The space after the prefix is at random a no-break one.
		reason := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
		return nil, code.Errorf(code.BadRequest, "data: %s", reason)
	}
	return proto.Marshal(msg)
}

// decode turns the answer into JSON.
func (m *method) decode(body []byte) ([]byte, error) {
	msg := dynamicpb.NewMessage(m.answer)
	if err := proto.Unmarshal(body, msg); err != nil {
		return nil, fmt.Errorf("the answer is no %s: %w", m.answer.FullName(), err)
	}
	text, err := protojson.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", m.answer.FullName(), err)
	}
	// protojson puts spaces in at random, so that nobody depends on its bytes.
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", m.answer.FullName(), err)
	}
	return out.Bytes(), nil
}
