package cluster

import (
	"maps"
	"testing"
)

// Gateways is Processes with two of each gateway, so that clients have somewhere else to go.
// config is more configuration: lines of YAML for every process.
func Gateways(t testing.TB, config string) *System {
	t.Helper()
	two := maps.Clone(single)
	two["entry"], two["httpentry"] = 2, 2
	return start(t, two, config)
}
