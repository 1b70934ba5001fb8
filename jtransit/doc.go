// Package jtransit is the way out to the platform: it calls services over Kitex by
// configured names, on behalf of a user, and turns JSON into their protobuf or thrift and
// back. What a name means is configuration, and may change while it runs: no new message
// type, no new release of a gateway.
//
// It owns no data and no rule, and never calls back into IM. Logic calls Call, for CALL
// commands of clients and for its own hooks.
//
// The flow of a call: the table says what the name is; the JSON becomes the method's
// request, or is refused as bad_request (protobuf.go, thriftjson.go); the limit and the
// breaker (breaker.go) admit it; then it goes to one instance after the other until one can
// be reached (call.go), and what comes back becomes JSON (thriftread.go) or one of our codes.
//
// The flow of a change: Run hears of live values, registered instances and changed files
// (live.go); rebuild makes a table of all that is known, taking over what stays the same:
// compiled IDLs (idl.go), clients (clients.go), and what was seen of a service (table.go).
// What cannot be made is refused and shown (status.go), and what was good stays. The table is
// one value, replaced as a whole: calls under way finish with the one they began with, and
// clients that nobody uses any more are closed.
//
// A client knows no IDL: Kitex forwards bodies as bytes, and the JSON is turned here. So a
// new IDL needs no new client, JSON has one set of rules for both kinds of IDL, unknown
// fields are refused, and no answer can make more than it may.
//
// A service learns who asks from Kitex's metainfo: HONGYAN_TENANT, HONGYAN_UID and
// HONGYAN_REQUEST_ID, transient values of the TTHeader.
package jtransit
