// Package das is the tier in front of the database: it owns every write and every read of
// the store, the queues before it, the group commits and the fences.
//
// It knows the invariants of the logs (dense sequences, one fan-out each, who may recall
// what), never a business rule: authorisation and routes are Logic's. It calls nobody but
// the store and, with results, the Logic that asked. Logic, extlogic and imui call it
// through tier.Das.
//
// # The flow of a write
//
//	Submit   refuses what cannot be taken now, and puts the rest into the queue of its business
//	gather   a writer takes what is there: at once when idle, else all that came during the last commit
//	plan     decides every item against what the writer remembers of heads, and numbers it
//	Commit   one transaction for all, fenced by the heads it believes
//	settle   the outcomes and the rows that moved go back, gathered per caller
//
// A writer is one goroutine with its own memory of heads, so nothing of it is locked. On a
// store that no other process writes (Exclusive), one writer serves all queues and assigns
// heads in commit order. On a shared one, several do: keys are split so that one key is
// always with one writer, and what other processes write is noticed by the fence: the
// keys it names are dropped, read again, and their items repeated.
//
// # The two forms
//
// One-commit: an append commits the message, the members' versions and the delivery rows
// at once; the rows that moved are SettledBatch.Changes. Two-stage: it commits the message
// and a fan-out row per calling Logic, and Appended.Order says who must now learn; the home
// of each submits a FanOut, which moves his version. A displayed_seq of an append is the
// sender's READ: the one-commit form applies it in the same transaction, in the two-stage
// form Logic submits a ReadMark to the das of the user.
//
// # What comes back
//
// Every row that a commit moved is told once, as a Change, to one of the callers of that
// commit: to the one that owns the delivery row if it is among them. Rows that did not move
// but are to be pushed again (a duplicate, a fan-out done before) are Changes with
// deliver = 0. A ReadMark of the two-stage form returns Appended with only conv and order:
// the peer's read position, to be fanned out.
//
// # Memory and truth
//
// What a writer remembers serves writes only, under the fence. Everything that is answered
// without writing (reads, denials, "already so") is read from the store, on a shared one
// in one snapshot with the bucket's row.
package das
