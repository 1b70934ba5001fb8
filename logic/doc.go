// Package logic holds the IM rules: login, send, sync, history, read state, contacts,
// recall, who gets a push and where he is.
//
// It owns the routes of the users whose home it is (hash(uid)), the order of the pushes
// to them, and the outbox rows of what it sent. It never talks to a push vendor, never
// holds a client connection, and writes only through a das. Gateways call Uplink and
// Renew, dases call Settled, other Logics call Deliver and FannedOut, the HTTP API and
// imui call Execute.
//
// The flow of one message:
//
//	Uplink     takes a gateway's batch: SEND is checked and put into the batch to a das inline,
//	           everything else goes to the lane of its duty (session, message, query, open)
//	Settled    answers the sender as soon as the commit is known, and hands on what it moved
//	Deliver    takes changes and orders about users whose home this is
//	push       sends a user's changes to his connections, in the order of their versions
//	redrive    finds what a crash, a lost call or a full queue left undone
//
// After a commit nothing is given up (R04): calls are repeated with back-off, and what
// memory forgets stands in an outbox row, which Scan finds.
//
// Locks: a user's shard (users.go) may be held while a row of the outbox or a queue is
// touched, never the other way round, and no call to another tier is made under it.
package logic
