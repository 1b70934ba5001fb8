package httpentry

import (
	"context"
	"slices"
	"strings"

	"github.com/cloudwego/hertz/pkg/app"
	hertz "github.com/cloudwego/hertz/pkg/route"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// endpoint is one row of the table from which the router, the OpenAPI document and the counters
// are made.
type endpoint struct {
	method string
	path   string // with {name} for path parameters
	id     string // operationId, and the label of the metrics
	tag    string
	title  string
	detail string
	public bool // needs no credential
	app    bool // only for apps; they need not name a user
	page   bool // a query is for the page itself

	params []param // of the path and of the query
	in     string  // message of im.proto that the JSON body is; empty = no body
	inSkip []string
	inOpt  bool   // the body may be missing
	raw    bool   // the body is JSON of somebody else, taken as it is; it may be missing
	out    string // message of im.proto that the JSON answer is; empty = see outType
	errors []code.Code

	// Exactly one of these. build makes the protobuf body of a command that the caller's Logic
	// executes; handle does everything on its own.
	cmd    im.Cmd
	build  func(*call) (message, error)
	handle func(context.Context, *call) error

	outType string // content type of an answer that is not JSON of out
}

// message is a generated body.
type message interface {
	Marshal([]byte) ([]byte, error)
}

// param of a path or a query.
type param struct {
	name     string
	inPath   bool
	kind     paramKind
	required bool
	max      uint64 // of a number; 0 = no limit of its own
	doc      string
}

type paramKind uint8

const (
	text   paramKind = iota
	number           // unsigned 64-bit
	flag             // true or false
	list             // comma-separated, may be given several times
)

func pathParam(name, doc string) param {
	return param{name: name, inPath: true, required: true, doc: doc}
}

func pathNumber(name, doc string) param {
	return param{name: name, inPath: true, kind: number, required: true, doc: doc}
}

func queryNumber(name string, limit uint64, doc string) param {
	return param{name: name, kind: number, max: limit, doc: doc}
}

// table is all routes of the server.
type table []*endpoint

// register puts the table into the router.
func (t table) register(s *Server, engine *hertz.Engine) {
	for _, r := range t {
		serve := func(ctx context.Context, _ *app.RequestContext) {
			x := exchangeOf(ctx)
			x.endpoint = r
			if err := r.serve(ctx, x); err != nil {
				x.fail(err)
			}
		}
		engine.Handle(r.method, r.pattern(), serve)
		if r.method == "GET" {
			engine.Handle("HEAD", r.pattern(), serve) // the connection leaves the body out
		}
	}
	engine.NoRoute(func(ctx context.Context, rc *app.RequestContext) {
		x := exchangeOf(ctx)
		if string(rc.Request.Method()) == "OPTIONS" {
			s.preflight(x)
			return
		}
		x.fail(code.Errorf(code.NotFound, "no route %.100q; see /v1/openapi.json", x.rc.Request.URI().Path()))
	})
	engine.NoMethod(func(ctx context.Context, rc *app.RequestContext) {
		x := exchangeOf(ctx)
		if string(rc.Request.Method()) == "OPTIONS" {
			s.preflight(x)
			return
		}
		allow := t.allowed(string(rc.Request.URI().Path()))
		x.fail(code.Errorf(code.BadRequest, "%.20q is not one of the methods of this path: %s", rc.Request.Method(), allow))
		rc.Response.Header.Set("Allow", allow)
		rc.Response.SetStatusCode(405)
	})
}

// pattern is the path as hertz writes it.
func (r *endpoint) pattern() string {
	return strings.NewReplacer("{", ":", "}", "").Replace(r.path)
}

// methods of the table, each once.
func (t table) methods() []string {
	var out []string
	for _, r := range t {
		if !slices.Contains(out, r.method) {
			out = append(out, r.method)
		}
	}
	slices.Sort(out)
	return out
}

// allowed lists the methods of a path.
func (t table) allowed(path string) string {
	var out []string
	for _, r := range t {
		if r.matches(path) && !slices.Contains(out, r.method) {
			out = append(out, r.method)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (r *endpoint) matches(path string) bool {
	want, got := strings.Split(r.path, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i, part := range want {
		if part != got[i] && !strings.HasPrefix(part, "{") {
			return false
		}
	}
	return true
}

// serve authenticates, checks what was given, and answers.
func (r *endpoint) serve(ctx context.Context, x *exchange) error {
	if !r.public {
		who, err := x.authenticate()
		if err != nil {
			return err
		}
		if r.app && who.app == "" {
			return code.Errorf(code.Denied, "only apps may ask for this")
		}
		x.caller = who
	}
	c := &call{x: x, endpoint: r}
	if err := c.parse(); err != nil {
		return err
	}
	if r.handle != nil {
		return r.handle(ctx, c)
	}
	m, err := r.build(c)
	if err != nil {
		return err
	}
	body, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	answer, err := x.srv.execute(ctx, x.caller, r.cmd, body, x.id)
	if err != nil {
		return err
	}
	json, err := x.srv.schemas.json(r.out, answer)
	if err != nil {
		return err
	}
	x.reply(json)
	return nil
}
