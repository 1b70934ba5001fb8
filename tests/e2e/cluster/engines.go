package cluster

import "testing"

// Engines are the real servers that a cluster stands on.
type Engines struct{}

func engineNames() []string { return nil }

func onEngines(t testing.TB, name, config string) *System { panic("none") }
