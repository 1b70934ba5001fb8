package httpentry

import (
	"context"
	"encoding/json"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"

	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hongyan/httpentry/web"
	"hongyan/idl/code"
)

// routes is the one table of the server.
func (s *Server) routes() table {
	t := slices.Concat(apiRoutes(), s.callRoutes(), s.noticeRoutes(), s.pollRoutes(), s.operationRoutes())
	if s.cfg.Docs {
		t = append(t, s.docRoutes()...)
	}
	if s.cfg.Demo {
		t = append(t, s.demoRoutes()...)
	}
	return t
}

// operationRoutes are for those who run the system, and for upgrades that came without Upgrade.
func (s *Server) operationRoutes() table {
	t := table{
		{
			method: "GET", path: socketPath, id: "webSocket", tag: tagPoll, title: "Open a WebSocket", public: true,
			detail:  "With `Upgrade: websocket`. Binary messages are frames, text messages their JSON form. The token goes into AUTH, never into the URL.",
			outType: "upgrade",
			handle: func(_ context.Context, c *call) error {
				c.x.rc.Response.Header.Set("Upgrade", "websocket")
				writeError(&c.x.rc.Response, code.Errorf(code.BadRequest, "this is a WebSocket: ask with Upgrade: websocket"), c.x.id)
				c.x.rc.Response.SetStatusCode(http.StatusUpgradeRequired)
				return nil
			},
		},
		{
			method: "GET", path: "/healthz", id: "health", tag: tagOperation, title: "Is the process alive?", public: true, outType: "health",
			handle: func(_ context.Context, c *call) error {
				c.x.reply([]byte(`{"status":"ok"}`))
				return nil
			},
		},
		{
			method: "GET", path: "/readyz", id: "ready", tag: tagOperation, title: "Can it serve?", public: true, outType: "ready",
			detail: "503 with reasons when not.",
			handle: s.ready,
		},
	}
	if s.deps.Gatherer != nil && len(s.cfg.MetricsFrom) > 0 {
		t = append(t, &endpoint{
			method: "GET", path: "/metrics", id: "metrics", tag: tagOperation, title: "Prometheus metrics", public: true, outType: "text",
			detail: "Only for the networks in `metrics_from`, and not through a proxy.",
			handle: s.showMetrics,
		})
	}
	return t
}

func (s *Server) ready(_ context.Context, c *call) error {
	reasons := s.notReady()
	body, err := json.Marshal(struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}{len(reasons) == 0, append([]string{}, reasons...)})
	if err != nil {
		return err
	}
	c.x.reply(body)
	if len(reasons) > 0 {
		c.x.rc.Response.SetStatusCode(http.StatusServiceUnavailable)
	}
	return nil
}

func (s *Server) showMetrics(ctx context.Context, c *call) error {
	proxied := c.x.header("X-Forwarded-For") != "" || c.x.header("Forwarded") != ""
	if proxied || !s.metricsFrom.contain(c.x.conn.remote) {
		return code.Errorf(code.Denied, "metrics are not for %s", c.x.clientIP())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", c.x.header("Accept"))
	w := &recorder{rsp: &c.x.rc.Response, header: http.Header{}}
	promhttp.HandlerFor(s.deps.Gatherer, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(w, req)
	w.rsp.Header.SetContentType(w.header.Get("Content-Type"))
	return nil
}

// recorder lets a handler of net/http write a response of hertz.
type recorder struct {
	rsp    *protocol.Response
	header http.Header
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.rsp.SetStatusCode(status) }
func (r *recorder) Write(b []byte) (int, error) { r.rsp.AppendBody(b); return len(b), nil }

// demoRoutes serve the page of two users, and log in whom it asks for.
func (s *Server) demoRoutes() table {
	return append(pageRoutes("demo", "Demo page: two users side by side", web.Demo()),
		&endpoint{
			method: "POST", path: "/demo/session", id: "demoSession", tag: tagOperation, title: "Log a demo user in", public: true, outType: "demo",
			detail: "Demo mode only. Body: `{\"uid\": \"alice\"}`. Asked by this host's own pages.",
			handle: s.demoSession,
		})
}

// docRoutes serve the OpenAPI document and the page that shows it.
func (s *Server) docRoutes() table {
	return append(pageRoutes("docs", "This document, readable", web.Docs()),
		&endpoint{
			method: "GET", path: "/v1/openapi.json", id: "openapi", tag: tagOperation, title: "This document", public: true, outType: "object",
			handle: func(_ context.Context, c *call) error {
				c.x.reply(s.openapi)
				return nil
			},
		})
}

// pageRoutes serve one of our pages at /name and its files below.
func pageRoutes(name, title string, files fs.FS) table {
	return table{
		{
			method: "GET", path: "/" + name, id: name, tag: tagOperation, title: title, public: true, page: true, outType: "html",
			handle: func(_ context.Context, c *call) error { return c.x.file(files, "index.html") },
		},
		{
			method: "GET", path: "/" + name + "/{file}", id: name + "File", tag: tagOperation, title: "File of the page", public: true, page: true,
			params: []param{pathParam("file", "Name.")}, outType: "file",
			handle: func(_ context.Context, c *call) error { return c.x.file(files, c.text("file")) },
		},
	}
}

func (s *Server) demoSession(_ context.Context, c *call) error {
	if origin := c.x.header("Origin"); origin != "" && !sameHost(origin, string(c.x.rc.Request.Host())) {
		return code.Errorf(code.Denied, "only this host's own pages may log demo users in")
	}
	if err := jsonContent(string(c.x.rc.Request.Header.ContentType())); err != nil {
		return err
	}
	var req struct {
		UID string `json:"uid"`
	}
	if err := json.Unmarshal(c.x.body(), &req); err != nil {
		return code.Errorf(code.BadRequest, "the body is not {\"uid\": ...}: %v", err)
	}
	token, err := s.deps.Demo(req.UID)
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		UID   string `json:"uid"`
		Token string `json:"token"`
	}{req.UID, token})
	if err != nil {
		return err
	}
	c.x.reply(body)
	return nil
}

// pagePolicy lets our pages load their own files and talk to their own host, nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// file answers with a file of one of our pages.
func (x *exchange) file(files fs.FS, name string) error {
	content, err := fs.ReadFile(files, name)
	if err != nil {
		return code.Errorf(code.NotFound, "no file %.60q", name)
	}
	kind := mime.TypeByExtension(path.Ext(name))
	switch path.Ext(name) { // the same on every machine
	case ".html":
		kind = "text/html; charset=utf-8"
	case ".js":
		kind = "text/javascript; charset=utf-8"
	case ".css":
		kind = "text/css; charset=utf-8"
	case ".svg":
		kind = "image/svg+xml"
	}
	h := &x.rc.Response.Header
	h.SetContentType(kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", pagePolicy)
	x.rc.Response.SetStatusCode(200)
	x.rc.Response.SetBodyRaw(content)
	return nil
}

// encodeTimeout is the answer to a request that did not become whole in time.
func (s *Server) encodeTimeout() []byte {
	var rsp protocol.Response
	s.decorate(&rsp, "")
	writeError(&rsp, code.Errorf(code.Expired, "the request did not arrive in time"), newRequestID())
	var buf byteWriter
	_ = encodeResponse(&buf, &rsp, true, true) // into memory: cannot fail
	return buf.b
}
