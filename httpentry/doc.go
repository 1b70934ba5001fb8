// Package httpentry is the gateway for whoever speaks HTTP: the API for servers and scripts,
// WebSocket for browsers, long poll for mini-programs and for networks that cut everything
// else (ZZ-06, DD-01, MF-02).
//
// It owns one listener, the HTTP/1 framing, WebSocket framing, polls that are held, and the
// sessions of its clients, through internal/gate. It authenticates callers. It never knows
// a business rule: a request of the API is a command of the client protocol that the Logic of
// the user executes; a frame is passed on as entry does it. TLS ends in front of it.
//
// Who calls it: clients; Logic, by tier.Gateway (Downlink). Whom it calls: Logic.
//
// The flow: conn.onData gathers requests, and a request holds a goroutine only once it is
// whole; conn.serve hands it to the router, whose table (routes.go, api.go, pollapi.go,
// pages.go) also makes the OpenAPI document; Server.execute asks the user's Logic.
// Server.upgrade makes a connection a socket; pollers.poll parks one until pollSession.Send
// has something for it. An idle connection, WebSocket or held poll has no goroutine.
package httpentry
