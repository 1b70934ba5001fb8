// Package bench is the engine of 'hongyan bench': a load generator that behaves like
// conforming clients but costs as little as it can, because it shares the machine with the
// server it measures. Every message carries its number, its time and a checksum, and the
// receivers check each one: loss, duplicates and order are seen, not assumed.
//
//	Pairs   senders and receivers in pairs, closed loop or at a fixed rate
//	Idle    authenticated connections that do nothing
//	Login   users who log in and leave, over and over
//
// A conn (conn.go) is one authenticated connection over a link (link.go); its reader writes
// everything that one read of the socket caused with one write.
package bench
