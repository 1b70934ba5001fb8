// Package sqlstore keeps one database of das in MySQL, MariaDB or TiDB: one layer of SQL,
// with all differences in dialect.go. Which buckets a database holds, and which database
// holds a bucket, is settled above it.
//
// A commit is one transaction in one packet, one round trip: script.go gathers statements,
// statements.go makes them of a batch, commit.go runs them. The fences are part of it: a
// statement that finds a belief wrong fails with "out of range", and the server leaves the
// rest of the packet alone, its COMMIT included. Only then fence.go reads which beliefs were
// wrong. A view (view.go) is one transaction with a snapshot.
package sqlstore
