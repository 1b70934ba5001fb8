// Package shards makes one store of several databases: a map says in which of them each of
// the 1024 buckets is, and every database is a primary with copies, of which the store follows
// whichever takes writes.
//
//	Store    routes commits and reads by the map of the moment (Apply changes it)
//	shard    knows its members, looks at their roles, and switches to a promoted one (ZZ-20, DD-08)
//	part     is one database as a store of its own: what a writer of das commits to
//	view     opens a snapshot of each database at its first read
//	Move     takes buckets from one database to another while they are used
//
// Map and roles are hints; the bucket rows of the databases are the fence (R17): whoever acts
// by an old map, or on a database that was demoted, can commit nothing.
package shards
