// Package jtransit is the way out to the platform: it calls services over Kitex by
// configured names, on behalf of a user, and turns JSON into their protobuf and back.
// What a name means is configuration: no new message type, no new release of a gateway.
//
// It owns no data and no rule, and never calls back into IM. Logic calls Call, for CALL
// commands of clients.
//
// The flow of a call: the table (table.go) says what the name is; the JSON becomes the
// method's request, or is refused as bad_request (idl.go); the limit and the breaker
// (breaker.go) admit it; then it goes to one address after the other until one can be
// reached (call.go), and what comes back becomes JSON or one of our codes. The table is one
// value, replaced as a whole: calls under way finish with the one they began with.
//
// A service learns who asks from Kitex's metainfo: HONGYAN_TENANT, HONGYAN_UID and
// HONGYAN_REQUEST_ID, transient values of the TTHeader.
package jtransit
