package main

import (
	"os"
	"strings"
	"testing"
)

// The committed files are what the table makes: who edits idl/errors.tsv runs idl/gen.sh.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	f, err := os.Open("../errors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outputs {
		want, err := out.render(rows)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile("../../" + out.path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is stale: run idl/gen.sh", out.path)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const ok = "0\tok\t200\tno\tdone\n"
	cases := []struct{ name, table, want string }{
		{"no header", ok, "line 1"},
		{"empty", header + "\n", "first code"},
		{"missing field", header + "\n0\tok\t200\tno\n", "4 fields"},
		{"code twice", header + "\n" + ok + ok, "ascend"},
		{"name twice", header + "\n" + ok + "1\tok\t200\tno\tdone\n", "used before"},
		{"code over 16 bits", header + "\n" + ok + "70000\tbig\t500\tno\tx\n", "out of range"},
		{"name form", header + "\n" + ok + "1\tBig\t500\tno\tx\n", "snake_case"},
		{"http", header + "\n" + ok + "1\tbig\t99\tno\tx\n", "http"},
		{"retryable", header + "\n" + ok + "1\tbig\t500\tmaybe\tx\n", "yes or no"},
		{"meaning", header + "\n" + ok + "1\tbig\t500\tno\t\n", "meaning"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(strings.NewReader(c.table))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v does not say %q", err, c.want)
			}
		})
	}
}
