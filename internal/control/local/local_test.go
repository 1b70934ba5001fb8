package local

import (
	"context"
	"os"
	"testing"
	"testing/synctest"

	"hongyan/internal/control"
	"hongyan/internal/control/controltest"
)

func TestSuite(t *testing.T) {
	controltest.Run(t, func(t *testing.T) control.Center { return open(t, nil) })
}

func open(t *testing.T, members map[string]control.Members) *Center {
	t.Helper()
	c, err := New(members)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestListedInstancesStayListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, map[string]control.Members{"logic": {Slots: 3, Instances: []control.Instance{{Slot: 1, Addr: "b"}, {Slot: 0, Addr: "a"}}}})
		defer c.Close()
		ctx, die := context.WithCancel(t.Context())
		in, err := c.Register(ctx, control.Instance{Tier: "logic", Slot: -1, Addr: "b", Boot: "x"})
		if err != nil || in.Slot != 1 {
			t.Fatalf("registered as %+v, %v", in, err)
		}
		m, _ := c.Members(t.Context(), "logic")
		if m.Slots != 3 || m.Instances[0].Addr != "a" || m.Instances[1].Boot != "x" {
			t.Fatalf("while b lives: %+v", m)
		}
		die()
		synctest.Wait()
		m, _ = c.Members(t.Context(), "logic")
		if len(m.Instances) != 2 || m.Instances[1].Boot != "" || m.Instances[1].Addr != "b" {
			t.Fatalf("after b died: %+v", m)
		}
	})
}

func TestBadListsAreRefused(t *testing.T) {
	for name, m := range map[string]control.Members{
		"two in a slot":     {Instances: []control.Instance{{Addr: "a"}, {Addr: "b"}}},
		"address twice":     {Instances: []control.Instance{{Addr: "a"}, {Slot: 1, Addr: "a"}}},
		"negative slots":    {Slots: -1},
		"too many slots":    {Slots: control.MaxSlots + 1},
		"slot missing":      {Instances: []control.Instance{{Slot: -1, Addr: "a"}}},
		"of another tier":   {Instances: []control.Instance{{Tier: "das", Addr: "a"}}},
		"without addresses": {Instances: []control.Instance{{}}},
	} {
		if _, err := New(map[string]control.Members{"logic": m}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
