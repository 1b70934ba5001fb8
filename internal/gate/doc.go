// Package gate is what the gateways share, whatever carries the bytes: sessions, the way
// up to Logic, the way down to connections, pending acknowledgements, heartbeats. entry
// (TCP) and httpentry (WebSocket, long poll) own listeners and sockets; they hand frames
// in and implement Transport to get frames out.
//
// It knows no business rule and reads no body except HELLO, AUTH, PING, PUSH_ACK and the
// cursor of SYNC.
//
// The flow: Gate.Open makes a Conn of a new client connection; Conn.Receive takes its
// frames and queues them for the user's home Logic (lane.send calls it); Gate.Downlink takes
// what a Logic has for connections; Conn.deliver joins it into frames and remembers what the
// client must acknowledge (pending); Conn.tick sends it again, and closes what is idle,
// slow or silent.
//
// How a connection ends: the last frame is ERROR, or KICK, with a close code (43xx: come
// back with back-off, 44xx: final, 45xx: protocol error), then Transport.Close with the same
// code.
package gate
