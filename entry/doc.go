// Package entry is the TCP gateway: it holds apps' connections and forwards their packets
// unread (ZZ-05). It owns sockets, frames and the codec of each connection; sessions,
// acknowledgements, heartbeats and the ways to and from Logic are internal/gate's. It knows
// no business rule and touches no store, so a business release never drops a connection.
//
// Called by clients over TCP, and by Logic through tier.Gateway.
//
// The flow: Server.prepare takes a new connection; conn.onReadable cuts what has arrived
// into frames (conn.next) and hands them to gate.Conn.Receive; what the gate sends comes
// back through conn.Send, one write for all frames of a batch.
package entry
