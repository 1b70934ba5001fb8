package servers

import (
	"os"
	"testing"
)

// Required tells that a server that is not there is a failure.
func Required() bool { return os.Getenv("HONGYAN_TEST_REQUIRE_SERVERS") != "" }

// Missing ends a test that lacks something: skipped, or failed where servers are required.
func Missing(t testing.TB, why string) {
	t.Helper()
	if Required() {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Shared is the value of a variable of servers.env that names a server which tests share:
// HONGYAN_TEST_MYSQL, HONGYAN_TEST_ETCD and so on.
func Shared(t testing.TB, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		Missing(t, variable+" is not set: make servers, and its servers.env in the environment")
	}
	return value
}
