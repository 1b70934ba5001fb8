package httpentry

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/protocol"

	"hongyan/idl/code"
)

// exchange is one request and its answer. It lives as long as its handler runs; what is
// answered later is a held.
type exchange struct {
	srv     *Server
	conn    *conn
	rc      *app.RequestContext
	started time.Time
	close   bool // the connection ends with the answer

	endpoint *endpoint // nil: no such route
	id       string    // request id
	caller   caller
	held     *held // set when the handler left the answer for later
}

type exchangeKey struct{}

// exchangeOf is set by the connection for every request.
func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

func (x *exchange) header(name string) string { return string(x.rc.Request.Header.Peek(name)) }

// body of the request; valid until the handler returns.
func (x *exchange) body() []byte { return x.rc.Request.Body() }

// clientIP is the caller's address: the connection's, or what trusted proxies say it was.
func (x *exchange) clientIP() string {
	return x.srv.clientIP(x.conn.remote, forwardedFor(&x.rc.Request.Header))
}

// forwardedFor is all that proxies said, whether they added to the line or a line of their own.
func forwardedFor(h *protocol.RequestHeader) string {
	return string(bytes.Join(h.PeekAll("X-Forwarded-For"), []byte(",")))
}

// direct tells that the request came from this machine, through no proxy.
func (x *exchange) direct() bool {
	addr, err := netip.ParseAddr(x.conn.remote)
	return err == nil && addr.IsLoopback() && x.header("X-Forwarded-For") == "" && x.header("Forwarded") == ""
}

// clientIP walks X-Forwarded-For from the right, past the proxies that are trusted.
func (s *Server) clientIP(remote, forwarded string) string {
	ip := remote
	for forwarded != "" && s.proxies.contain(ip) {
		at := strings.LastIndexByte(forwarded, ',')
		next := strings.TrimSpace(forwarded[at+1:])
		if _, err := netip.ParseAddr(next); err != nil {
			break
		}
		ip, forwarded = next, forwarded[:max(at, 0)]
	}
	return ip
}

// reply answers with a JSON body.
func (x *exchange) reply(body []byte) {
	x.rc.Response.SetStatusCode(200)
	x.rc.Response.Header.SetContentType(jsonType)
	x.rc.Response.Header.Set("Cache-Control", "no-store")
	x.rc.Response.SetBodyRaw(body)
}

// fail answers with an error and logs, here and only here, what is our own fault.
func (x *exchange) fail(err error) {
	if code.From(err).Code == code.Internal {
		x.srv.log.Error("request failed", "err", err, "request_id", x.id,
			"path", string(x.rc.Request.URI().Path()), "uid", x.caller.uid)
	}
	writeError(&x.rc.Response, err, x.id)
}

// observe wraps every request, 404s included: request id, headers, log and counters.
func (s *Server) observe(ctx context.Context, rc *app.RequestContext) {
	x := exchangeOf(ctx)
	x.id = requestID(rc.Request.Header.Peek("X-Request-ID"))
	rc.Response.Header.Set("X-Request-ID", x.id)
	s.decorate(&rc.Response, x.header("Origin"))
	x.serve(ctx)
	if x.held == nil {
		x.done(rc.Response.StatusCode())
	}
}

// serve runs the handlers. One that panics is a fault of ours, never of the caller.
func (x *exchange) serve(ctx context.Context) {
	defer func() {
		reason := recover()
		if reason == nil {
			return
		}
		x.srv.log.Error("panic while serving a request", "reason", reason, "request_id", x.id,
			"path", string(x.rc.Request.URI().Path()), "stack", string(debug.Stack()))
		if x.held != nil {
			_ = x.conn.nc.Close() // whoever holds it may have answered or not
			return
		}
		writeError(&x.rc.Response, code.Errorf(code.Internal, "internal error"), x.id)
	}()
	x.rc.Next(ctx)
}

// done counts and logs an answered request.
func (x *exchange) done(status int) {
	name := "none"
	if x.endpoint != nil {
		name = x.endpoint.id
	}
	x.srv.metrics.observe(name, status, time.Since(x.started))
	if x.srv.log.Enabled(context.Background(), slog.LevelDebug) {
		x.srv.log.Debug("request", "method", string(x.rc.Request.Method()), "path", string(x.rc.Request.URI().Path()),
			"status", status, "took", time.Since(x.started), "ip", x.clientIP(), "uid", x.caller.uid,
			"app", x.caller.app, "request_id", x.id)
	}
}

// decorate sets the headers that every answer carries. origin is the request's, may be empty.
func (s *Server) decorate(rsp *protocol.Response, origin string) {
	h := &rsp.Header
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	if origin == "" {
		return
	}
	h.Add("Vary", "Origin")
	if s.originListed(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "X-Request-ID, Retry-After")
	}
}

// originListed tells whether the configuration opens the server to pages of origin.
func (s *Server) originListed(origin string) bool {
	for _, o := range s.cfg.Origins {
		if o == "*" || strings.EqualFold(o, origin) {
			return true
		}
	}
	return false
}

// preflight answers a browser's question whether a page may call the API.
func (s *Server) preflight(x *exchange) {
	h := &x.rc.Response.Header
	if s.originListed(x.header("Origin")) {
		h.Set("Access-Control-Allow-Methods", strings.Join(s.table.methods(), ", "))
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, X-Request-ID, "+
			"X-Hongyan-App, X-Hongyan-Timestamp, X-Hongyan-Nonce, X-Hongyan-Signature, X-Hongyan-Tenant, X-Hongyan-On-Behalf-Of")
		h.Set("Access-Control-Max-Age", strconv.Itoa(int((10 * time.Minute).Seconds())))
	}
	x.rc.Response.SetStatusCode(204)
}
