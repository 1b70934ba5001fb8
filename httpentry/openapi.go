package httpentry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"hongyan/idl/code"
)

// object is a JSON object of the document. Keys come out sorted, so the document is the same
// at every start.
type object map[string]any

// document is the OpenAPI 3.1 description of the route table.
func (s *Server) document() ([]byte, error) {
	g := generator{schemas: s.schemas, components: object{}}
	paths := object{}
	for _, r := range s.table {
		if r.method == "GET" && r.tag == tagOperation && r.outType == "file" {
			continue // files of a page, not an interface
		}
		item, _ := paths[r.path].(object)
		if item == nil {
			item = object{}
			paths[r.path] = item
		}
		operation, err := g.operation(r)
		if err != nil {
			return nil, fmt.Errorf("describe %s %s: %w", r.method, r.path, err)
		}
		item[strings.ToLower(r.method)] = operation
	}
	g.components["Error"] = errorSchema()
	version := s.deps.Gate.Version
	if version == "" {
		version = "dev"
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Hongyan HTTP API", "version": version,
			"description": introduction,
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"tags":     tags(s.table),
		"paths":    paths,
		"security": []object{{"user": []string{}}, {"app": []string{}}},
		"components": object{
			"schemas": g.components,
			"securitySchemes": object{
				"user": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The user's own token."},
				"app": object{"type": "apiKey", "in": "header", "name": headerApp, "description": "A server-side caller, with " +
					headerTimestamp + ", " + headerNonce + ", " + headerOnBehalfOf + " and " + headerSignature + ": see above."},
			},
		},
	}, "", " ")
}

// tags in the order of the table.
func tags(t table) (out []object) {
	var seen []string
	for _, e := range t {
		if !slices.Contains(seen, e.tag) {
			seen = append(seen, e.tag)
			out = append(out, object{"name": e.tag})
		}
	}
	return out
}

const introduction = `Bodies are protobuf's canonical JSON mapping: 64-bit numbers are strings, bytes are base64, names are lowerCamelCase ` +
	`(snake_case is understood too). Unknown fields and query parameters are errors.

As a user: Authorization: Bearer with the user's JWT.

As a server-side caller: X-Hongyan-App, X-Hongyan-Timestamp (Unix seconds), X-Hongyan-Nonce (8-64 characters, used once), ` +
	`X-Hongyan-Tenant (where the app has several), X-Hongyan-On-Behalf-Of (the user), X-Hongyan-Signature = hex(HMAC-SHA256(key, s)), ` +
	`where s is, joined by line feeds: timestamp, nonce, method, request target as sent, tenant, on-behalf-of, Idempotency-Key, ` +
	`hex(SHA-256(body)); a header that is not sent is an empty line.

Every error has the form of the schema Error; its status is the HTTP status. X-Request-ID is taken over or made, and returned.`

// generator writes schemas once, however often they are referred to.
type generator struct {
	schemas    *schemas
	components object
}

func (g *generator) operation(r *endpoint) (object, error) {
	op := object{"operationId": r.id, "summary": r.title, "tags": []string{r.tag}, "responses": nil}
	if r.detail != "" {
		op["description"] = r.detail
	}
	if r.public {
		op["security"] = []object{}
	}
	var params []object
	for _, p := range r.params {
		params = append(params, p.describe())
	}
	if r.in != "" && slices.Contains([]string{"Send", "Modify"}, r.in) || r.in == "" && !r.raw && r.method != "GET" && !r.public {
		params = append(params, object{
			"name": headerIdempotency, "in": "header", "schema": object{"type": "string", "maxLength": maxMessageID},
			"description": "Names this write: a repetition with the same key returns the first result. Best a UUIDv7.",
		})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	body, err := g.requestBody(r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		op["requestBody"] = body
	}
	op["responses"], err = g.responses(r)
	return op, err
}

func (p *param) describe() object {
	schema := object{"type": "string"}
	switch p.kind {
	case number:
		schema = object{"type": "integer", "minimum": 0}
		if p.max > 0 {
			schema["maximum"] = p.max
		}
	case flag:
		schema = object{"type": "boolean"}
	case list:
		schema = object{"type": "array", "items": object{"type": "string"}}
	}
	o := object{"name": p.name, "in": "query", "schema": schema, "description": p.doc}
	if p.kind == list {
		o["explode"] = false // style form: a,b,c
	}
	if p.inPath {
		o["in"] = "path"
	}
	if p.required {
		o["required"] = true
	}
	return o
}

func (g *generator) requestBody(r *endpoint) (object, error) {
	schema := extraRequests()[r.id]
	if r.in != "" {
		name := r.in
		if len(r.inSkip) > 0 {
			name = strings.ToUpper(r.id[:1]) + r.id[1:] + "Request"
		}
		if err := g.message(name, r.in, r.inSkip); err != nil {
			return nil, err
		}
		schema = reference(name)
	}
	if schema == nil {
		return nil, nil
	}
	return object{"required": !r.inOpt && !r.raw, "content": object{"application/json": object{"schema": schema}}}, nil
}

// extraRequests are bodies that are not messages of im.proto, by operationId.
func extraRequests() map[string]object {
	sid := object{"type": "string", "description": "From open."}
	return map[string]object{
		"callService": {"type": "object", "description": "The service's request; missing = an empty one."},
		"pollSend": {
			"type": "object", "required": []string{"sid", "command"}, "additionalProperties": false,
			"properties": object{"sid": sid, "command": frameSchema()},
		},
		"pollClose": {
			"type": "object", "required": []string{"sid"}, "additionalProperties": false,
			"properties": object{"sid": sid},
		},
		"demoSession": {
			"type": "object", "required": []string{"uid"},
			"properties": object{"uid": object{"type": "string"}},
		},
	}
}

func frameSchema() object {
	return object{
		"type":        "object",
		"description": "A frame of the client protocol in its text form. Its body is that of the command, or Error when status is not 0.",
		"properties": object{
			"cmd": object{"type": "string"}, "seq": object{"type": "integer"}, "status": object{"type": "integer"},
			"response": object{"type": "boolean"}, "oneWay": object{"type": "boolean"}, "critical": object{"type": "boolean"},
			"body": object{"type": "object"},
		},
	}
}

func (g *generator) responses(r *endpoint) (object, error) {
	out := object{}
	schema, contentType := object{}, "application/json"
	switch r.outType {
	case "":
		if err := g.message(r.out, r.out, nil); err != nil {
			return nil, err
		}
		schema = reference(r.out)
	case "frame":
		schema = frameSchema()
	case "close", "object":
		schema = object{"type": "object"}
	case "health":
		schema = object{"type": "object", "required": []string{"status"}, "properties": object{"status": object{"const": "ok"}}}
	case "ready":
		schema = object{"type": "object", "required": []string{"ready", "reasons"}, "properties": object{
			"ready": object{"type": "boolean"}, "reasons": object{"type": "array", "items": object{"type": "string"}},
		}}
	case "demo":
		schema = object{"type": "object", "required": []string{"uid", "token"}, "properties": object{
			"uid": object{"type": "string"}, "token": object{"type": "string"},
		}}
	case "html":
		contentType = "text/html"
	case "text":
		contentType = "text/plain"
	}
	good := object{"description": "Done.", "content": object{contentType: object{"schema": schema}}}
	switch {
	case r.outType == "upgrade":
		out["101"] = object{"description": "The connection is a WebSocket now."}
		out["426"] = failure("Ask with `Upgrade: websocket`.")
	case r.outType == "ready":
		out["503"] = object{"description": "Not ready.", "content": object{contentType: object{"schema": schema}}}
		fallthrough
	default:
		out["200"] = good
	}
	for status, meaning := range r.failures() {
		if out[status] == nil {
			out[status] = failure(meaning)
		}
	}
	return out, nil
}

// failures lists the statuses a route may answer with, and what codes they stand for.
func (r *endpoint) failures() map[string]string {
	codes := slices.Clone(r.errors)
	if r.tag != tagOperation && r.outType != "upgrade" {
		codes = append(codes, code.BadRequest, code.BadToken, code.Overloaded, code.Unavailable, code.Internal, code.Expired)
	}
	if r.in != "" || r.raw || r.outType == "frame" || r.outType == "close" || r.outType == "demo" {
		codes = append(codes, code.TooLarge, code.Unsupported, code.BadRequest)
	}
	if r.outType == "text" || r.outType == "demo" {
		codes = append(codes, code.Denied)
	}
	slices.Sort(codes)
	out := map[string]string{}
	for _, c := range slices.Compact(codes) {
		status := strconv.Itoa(c.HTTP())
		if out[status] != "" {
			out[status] += " "
		}
		out[status] += "`" + c.Name() + "` (" + strconv.Itoa(int(c)) + "): " + c.Meaning() + "."
	}
	return out
}

func failure(description string) object {
	return object{"description": description, "content": object{"application/json": object{"schema": reference("Error")}}}
}

func errorSchema() object {
	return object{
		"type":     "object",
		"required": []string{"code", "name", "message", "request_id", "retryable", "retry_after_ms"},
		"properties": object{
			"code": object{"type": "integer"}, "name": object{"type": "string"}, "message": object{"type": "string"},
			"request_id": object{"type": "string"}, "retryable": object{"type": "boolean"},
			"retry_after_ms": object{"type": "integer", "description": "0 = nothing better than back-off is known."},
		},
	}
}

func reference(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// message describes a message of im.proto, without the fields in skip, and what it refers to.
func (g *generator) message(name, of string, skip []string) error {
	if g.components[name] != nil {
		return nil
	}
	d, ok := g.schemas.messages[of]
	if !ok {
		return fmt.Errorf("no message %q in im.proto", of)
	}
	properties := object{}
	schema := object{"type": "object", "properties": properties}
	g.components[name] = schema
	if doc := comment(d); doc != "" {
		schema["description"] = doc
	}
	if len(skip) > 0 {
		schema["additionalProperties"] = false
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if slices.Contains(skip, string(f.Name())) {
			continue
		}
		property, err := g.field(f)
		if err != nil {
			return err
		}
		properties[f.JSONName()] = property
	}
	return nil
}

func (g *generator) field(f protoreflect.FieldDescriptor) (object, error) {
	one, err := g.value(f)
	if err != nil {
		return nil, err
	}
	if f.IsList() {
		one = object{"type": "array", "items": one}
	}
	if doc := comment(f); doc != "" {
		one["description"] = doc // beside a $ref too: OpenAPI 3.1 allows it
	}
	return one, nil
}

func (g *generator) value(f protoreflect.FieldDescriptor) (object, error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return object{"type": "string"}, nil
	case protoreflect.BytesKind:
		return object{"type": "string", "contentEncoding": "base64"}, nil
	case protoreflect.BoolKind:
		return object{"type": "boolean"}, nil
	case protoreflect.Uint64Kind:
		return object{"type": "string", "pattern": `^[0-9]+$`, "format": "uint64"}, nil
	case protoreflect.Int64Kind:
		return object{"type": "string", "pattern": `^-?[0-9]+$`, "format": "int64"}, nil
	case protoreflect.Uint32Kind:
		return object{"type": "integer", "minimum": 0}, nil
	case protoreflect.Int32Kind:
		return object{"type": "integer"}, nil
	case protoreflect.EnumKind:
		return enum(f.Enum()), nil
	case protoreflect.MessageKind:
		name := string(f.Message().Name())
		return reference(name), g.message(name, name, nil)
	}
	return nil, fmt.Errorf("no schema for %s of kind %s", f.FullName(), f.Kind())
}

func enum(d protoreflect.EnumDescriptor) object {
	var names []string
	for i := range d.Values().Len() {
		names = append(names, string(d.Values().Get(i).Name()))
	}
	return object{"type": "string", "enum": names}
}

// comment of a message or field in im.proto.
func comment(d protoreflect.Descriptor) string {
	at := d.ParentFile().SourceLocations().ByDescriptor(d)
	return strings.Join(strings.Fields(at.LeadingComments+" "+at.TrailingComments), " ")
}
