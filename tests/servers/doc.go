// Package servers gives tests the real servers that they run on.
//
//   - Shared: those of make servers, which all tests share, each under names of its own.
//   - EachSQL: a test over MySQL, MariaDB and TiDB of those.
//   - Start: a set of the test's own, by deploy/servers/servers.sh, which it may break.
//   - StartPair: a source and its replica, the same.
//   - Pairs: a source and its replica, which the tests of a package hand on.
//   - StartRedis: one redis-server of the test's own, with options of its own.
//
// A test whose server is not there is skipped, and says what is missing; with
// HONGYAN_TEST_REQUIRE_SERVERS, as make test-cluster sets it, it fails.
package servers
