// Package rpc carries the generated interfaces of the tiers over Kitex: TTHeader framing,
// protobuf payloads, a pool of long connections for each peer.
//
//	NewServer(addr, opt, Logic(h), ...) -> Run     a port that hosts services
//	DialLogic, DialDas, ...                        the same interface, at the far end
//
// What a handler answers as *code.Error arrives as *code.Error. It never retries: who
// calls knows what may be repeated. Calls that did not reach a handler, or whose answer
// was lost, fail with an error that Down reports:
//
//	not connected            Unavailable      the handler did not run
//	connection lost          UnknownOutcome   it may have run
//	deadline passed          Expired          it may have run; not Down
//
// An address with a slash is the path of a Unix socket, any other is host:port.
package rpc
