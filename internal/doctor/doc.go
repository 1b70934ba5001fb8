// Package doctor asks the servers under a Hongyan for the settings that its promises stand
// on, and says what to do about those that break one. Servers are only asked;
// nothing is written but a file for a moment, to time the disk. What cannot be asked is said
// to be unchecked, never passed over.
//
// Run goes through a Target: databases (sql_*.go), queue (rocketmq.go), presence (redis.go),
// control centre (etcd.go) and the machine it runs on (machine.go). A check is a name and a
// small function; the lists of them are what this package promises to look at.
package doctor
