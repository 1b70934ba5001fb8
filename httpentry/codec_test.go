package httpentry_test

import (
	"strings"
	"testing"

	"hongyan/idl/im"
	"hongyan/internal/wire"
)

func codec(t testing.TB) *wire.JSON {
	t.Helper()
	c, err := wire.NewJSON()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func bodyName(cmd im.Cmd) string {
	return strings.TrimPrefix(wire.RequestType(cmd), "hongyan.im.")
}
