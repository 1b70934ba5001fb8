package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"hongyan/idl"
	"hongyan/idl/code"
)

// JSON turns bodies between protobuf and protobuf's canonical JSON: lowerCamelCase names,
// 64-bit numbers as strings, bytes as base64, defaults left out. Field names as they stand
// in the .proto are understood too. It is safe for concurrent use.
type JSON struct {
	messages map[string]protoreflect.MessageDescriptor // by full name
	lenient  bool
}

// Lenient is j for a client: fields that a newer server has added are skipped in ToProto
// instead of refused.
func (j *JSON) Lenient() *JSON { return &JSON{messages: j.messages, lenient: true} }

// NewJSON compiles the embedded contracts, some 10 ms of work: one JSON serves a process.
func NewJSON() (*JSON, error) {
	contracts := idl.Files()
	names, err := fs.Glob(contracts, "*.proto")
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		Accessor: func(name string) (io.ReadCloser, error) { return contracts.Open(name) },
	}}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, fmt.Errorf("compile the contracts: %w", err)
	}
	j := &JSON{messages: map[string]protoreflect.MessageDescriptor{}}
	for _, file := range files {
		messages := file.Messages()
		for i := range messages.Len() {
			j.messages[string(messages.Get(i).FullName())] = messages.Get(i)
		}
	}
	return j, nil
}

// maxNesting of a JSON body. The deepest message of the contracts has 5 levels.
const maxNesting = 16

// ToProto encodes a JSON body as protobuf. msgType is a full name like hongyan.im.Send.
// Empty input is an empty message. Malformed JSON, wrong types and unknown fields are
// BadRequest, with a message that names the place.
func (j *JSON) ToProto(msgType string, body []byte) ([]byte, error) {
	m, err := j.message(msgType)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, nil
	}
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxNesting, DiscardUnknown: j.lenient}).Unmarshal(body, m); err != nil {
		return nil, code.Errorf(code.BadRequest, "%s: %s", msgType, reason(err))
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// FromProto is the JSON of a protobuf body, without white space. Bytes that are not such a
// message, and strings that are not UTF-8, are an error.
func (j *JSON) FromProto(msgType string, body []byte) ([]byte, error) {
	m, err := j.message(msgType)
	if err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%s from protobuf: %w", msgType, err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", msgType, err)
	}
	// protojson puts spaces in at random, so that nobody depends on its bytes.
	var out bytes.Buffer
	out.Grow(len(text))
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", msgType, err)
	}
	return out.Bytes(), nil
}

func (j *JSON) message(msgType string) (*dynamicpb.Message, error) {
	d, ok := j.messages[msgType]
	if !ok {
		return nil, code.Errorf(code.Unsupported, "no message %q", msgType)
	}
	return dynamicpb.NewMessage(d), nil
}

// reason is a protobuf error without its prefix, whose space is at random a no-break one.
func reason(err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}
