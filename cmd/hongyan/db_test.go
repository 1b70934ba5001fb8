package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"hongyan/tests/servers"
)

func TestParseBuckets(t *testing.T) {
	for in, want := range map[string][]uint32{
		"0-3":          {0, 1, 2, 3},
		"7, 5-6 ,5":    {5, 6, 7},
		"1023":         {1023},
		"":             nil,
		"3-1":          nil,
		"1024":         nil,
		"0-4294967296": nil,
		"-1":           nil,
		"a":            nil,
	} {
		got, err := parseBuckets(in)
		if !slices.Equal(got, want) || (err != nil) != (want == nil) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestR18StatusNamesOutdatedPrimaries(t *testing.T) {
	server := func(role string, epoch uint64) dbServer {
		return dbServer{Address: "h:1", Role: role, Epoch: epoch, Replicating: true}
	}
	for name, c := range map[string]struct {
		list []dbServer
		want string
	}{
		"as it should be": {[]dbServer{server(rolePrimary, 2), server(roleReplica, 2)}, ""},
		"two primaries":   {[]dbServer{server(rolePrimary, 2), server(rolePrimary, 2)}, "has 2 primaries"},
		"none":            {[]dbServer{server(roleReplica, 2)}, "has 0 primaries"},
		"left behind":     {[]dbServer{server(rolePrimary, 2), server(rolePrimary, 3)}, "takes writes at epoch 2, 3 is reached"},
		"gone":            {[]dbServer{server(rolePrimary, 2), server(roleUnreachable, 0)}, "cannot be asked"},
		"stopped":         {[]dbServer{server(rolePrimary, 2), {Role: roleReplica}}, "replication has stopped"},
		"old tables":      {[]dbServer{{Role: rolePrimary, Pending: []string{"2"}}}, "hongyan db migrate"},
	} {
		got := strings.Join(judge("a", c.list), "; ")
		if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// command runs a command line.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestDBCommandsRefuseBadUse(t *testing.T) {
	for _, line := range []string{
		"db status",
		"db promote",
		"db promote --shard a --dsn u@tcp(h:1)/d",
		"db promote --shard a",
		"db move-buckets --from a --to b --buckets 5-1",
		"db move-buckets --from a --to b --buckets 1 --undo --purge",
		"db move-buckets --from a --to b --buckets 1",
		"db migrate more",
		"db reset-devices",
	} {
		if code, out, err := command(t, strings.Fields(line)...); code != exitUsage || out != "" || err == "" {
			t.Errorf("%s: status %d, %q, %q", line, code, out, err)
		}
	}
}

func TestDBMigrateAndStatus(t *testing.T) {
	servers.EachSQL(t, func(t *testing.T, s servers.SQL) {
		name := s.Database(t)
		dsn := s.DSN + name
		var report dbReport
		status := func(want int) {
			t.Helper()
			code, out, errs := command(t, "db", "status", "--dsn", dsn, "--json")
			report = dbReport{}
			if err := json.Unmarshal([]byte(out), &report); err != nil || code != want || len(report.Servers) != 1 {
				t.Fatalf("status %d, %v, %q, %q", code, err, out, errs)
			}
		}
		status(exitViolation)
		if s := report.Servers[0]; len(s.Pending) == 0 || s.Role != rolePrimary || s.Database != name {
			t.Errorf("before: %+v", s)
		}
		if code, out, errs := command(t, "db", "migrate", "--dsn", dsn, "--json"); code != exitDone || !strings.Contains(out, "applied 1") {
			t.Fatalf("status %d, %q, %q", code, out, errs)
		}
		status(exitDone)
		if s := report.Servers[0]; len(s.Pending) != 0 || s.Open != 1024 || s.Epoch != 1 {
			t.Errorf("after: %+v", s)
		}
		if code, out, errs := command(t, "db", "reset-devices", "--dsn", dsn, "--json"); code != exitDone || out != "{\"epoch\":2}\n" {
			t.Fatalf("status %d, %q, %q", code, out, errs)
		}
		status(exitDone)
		if s := report.Servers[0]; s.Open != 1024 || s.Epoch != 2 {
			t.Errorf("after reset-devices: %+v", s)
		}
		if code, out, _ := command(t, "db", "status", "--dsn", dsn); code != exitDone || !strings.Contains(out, "1024 open") {
			t.Errorf("status %d, %q", code, out)
		}
	})
}
