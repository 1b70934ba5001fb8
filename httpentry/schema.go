package httpentry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"hongyan/idl"
)

// schemas holds the messages of the client protocol with their comments: the API's answers
// are written, and described, from them.
type schemas struct {
	messages map[string]protoreflect.MessageDescriptor // by short name, as in im.proto
	enums    map[string]protoreflect.EnumDescriptor
}

func newSchemas() (*schemas, error) {
	contracts := idl.Files()
	compiler := protocompile.Compiler{
		SourceInfoMode: protocompile.SourceInfoStandard,
		Resolver: &protocompile.SourceResolver{
			Accessor: func(name string) (io.ReadCloser, error) { return contracts.Open(name) },
		},
	}
	files, err := compiler.Compile(context.Background(), "im.proto")
	if err != nil {
		return nil, fmt.Errorf("compile im.proto: %w", err)
	}
	s := &schemas{
		messages: map[string]protoreflect.MessageDescriptor{},
		enums:    map[string]protoreflect.EnumDescriptor{},
	}
	for _, file := range files {
		for i := range file.Messages().Len() {
			m := file.Messages().Get(i)
			s.messages[string(m.Name())] = m
		}
		for i := range file.Enums().Len() {
			e := file.Enums().Get(i)
			s.enums[string(e.Name())] = e
		}
	}
	return s, nil
}

// json is a protobuf body in canonical JSON. Unlike frames, answers of the API name fields
// that have their default: who reads {"total":"0"} need not know what a missing total means.
func (s *schemas) json(message string, body []byte) ([]byte, error) {
	d, ok := s.messages[message]
	if !ok {
		return nil, fmt.Errorf("no message %q in im.proto", message)
	}
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", message, err)
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", message, err)
	}
	var out bytes.Buffer
	out.Grow(len(text))
	err = json.Compact(&out, text) // protojson puts spaces in at random
	return out.Bytes(), err
}
