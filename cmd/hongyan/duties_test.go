package main

import (
	"slices"
	"strings"
	"testing"
)

func TestZZ21DutiesInTheListOfLogics(t *testing.T) {
	list := []string{"a:1=session", "a:2=session+open", "a:3"}
	for _, c := range []struct {
		name  string
		tier  string
		slot  int
		serve []string
		list  []string
		want  string // logic.serve afterwards
		fails string
	}{
		{"a gateway", "entry", 0, nil, list, "", ""},
		{"taken from the list", tierLogic, 1, nil, list, "session,open", ""},
		{"no slot given is the first", tierLogic, -1, nil, list, "session", ""},
		{"agrees", tierLogic, 1, []string{"open", "session"}, list, "open,session", ""},
		{"everything", tierLogic, 2, nil, list, "", ""},
		{"contradicts", tierLogic, 0, []string{"message"}, list, "", "a:1=message"},
		{"is not in the list", tierLogic, 2, []string{"message"}, list, "", "a:3=message"},
		{"no such duty", "entry", 0, nil, []string{"a:1=login"}, "", "login"},
		{"no list", tierLogic, 0, []string{"message"}, nil, "message", ""},
	} {
		cfg := defaultConfig()
		cfg.Cluster.Logic, cfg.Cluster.Slot, cfg.Logic.Serve = c.list, c.slot, c.serve
		serves, err := cfg.takeDuties(c.tier)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v, want %q", c.name, err, c.fails)
			}
			continue
		}
		if err != nil || strings.Join(cfg.Logic.Serve, ",") != c.want {
			t.Errorf("%s: serves %v, %v", c.name, cfg.Logic.Serve, err)
		}
		if c.list != nil && (!slices.Equal(serves, []string{"session", "session,open", ""}) ||
			!slices.Equal(cfg.Cluster.Logic, []string{"a:1", "a:2", "a:3"})) {
			t.Errorf("%s: %v serve %q", c.name, cfg.Cluster.Logic, serves)
		}
	}
	if list[0] != "a:1=session" {
		t.Errorf("the list of the caller was changed: %v", list)
	}
}
