package rpc

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestKitexMayNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		k := &kitexLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		for range 1000 {
			k.Warnf("retry %d", 1)
			k.Errorf("dead %d", 1)
		}
		time.Sleep(time.Second)
		k.CtxErrorf(t.Context(), "again")
		got := out.String()
		if n := strings.Count(got, "\n"); n != linesPerSecond+1 || strings.Contains(got, "retry") || !strings.Contains(got, "dropped_lines=990") {
			t.Errorf("%d lines: %s", n, got)
		}
	})
}
