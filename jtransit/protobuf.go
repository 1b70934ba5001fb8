package jtransit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"hongyan/idl/code"
	"hongyan/internal/rpc"
)

// protoFile is a compiled .proto file.
type protoFile struct{ protoreflect.FileDescriptor }

// compileProto reads a .proto file and what it imports from its folder.
func compileProto(main string, read func(path string) (string, error)) (idlFile, error) {
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		ImportPaths: []string{path.Dir(main)},
		Accessor: func(path string) (io.ReadCloser, error) {
			text, err := read(path)
			return io.NopCloser(strings.NewReader(text)), err
		},
	}), MaxParallelism: 1}
	files, err := compiler.Compile(context.Background(), path.Base(main))
	if err != nil {
		return nil, err
	}
	return protoFile{files[0]}, nil
}

func (f protoFile) method(service, name string) (method, error) {
	pkg := string(f.Package())
	short := strings.TrimPrefix(service, pkg+".")
	svc := f.Services().ByName(protoreflect.Name(short))
	if svc == nil {
		return nil, fmt.Errorf("no service %s in %s", service, f.Path())
	}
	m := svc.Methods().ByName(protoreflect.Name(name))
	switch {
	case m == nil:
		return nil, fmt.Errorf("service %s has no method %s", service, name)
	case m.IsStreamingClient() || m.IsStreamingServer():
		return nil, fmt.Errorf("%s.%s is a stream, which cannot be called", service, name)
	}
	return &protoMethod{
		rpc.ForeignService{Encoding: rpc.Protobuf, Package: pkg, Service: short}, m.Input(), m.Output(),
	}, nil
}

// protoMethod turns JSON into the bodies of one method by the rules of protobuf JSON.
type protoMethod struct {
	of              rpc.ForeignService
	request, answer protoreflect.MessageDescriptor
}

func (m *protoMethod) service() rpc.ForeignService { return m.of }

func (m *protoMethod) encode(data []byte) ([]byte, error) {
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

func (m *protoMethod) decode(body []byte, most int) ([]byte, error) {
	msg := dynamicpb.NewMessage(m.answer)
	if err := (proto.UnmarshalOptions{RecursionLimit: 2 * maxNesting}).Unmarshal(body, msg); err != nil {
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
	if out.Len() > most {
		return nil, errTooLong
	}
	return out.Bytes(), nil
}
