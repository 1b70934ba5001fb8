package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
	"hongyan/internal/control/controltest"
	"hongyan/tests/servers"
)

// endpoint of the etcd that tests share.
func endpoint(t *testing.T) string {
	t.Helper()
	return servers.Shared(t, "HONGYAN_TEST_ETCD")
}

// testConfig has keys of its own, which are removed at the end.
func testConfig(t *testing.T, url string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Endpoints = []string{url}
	id := rand.Text()[:8]
	cfg.Prefix = "/hongyan-test-" + id + "/"
	cfg.ServicesPrefix = "hongyan-test-services-" + id
	cfg.Lease = 2 * time.Second
	t.Cleanup(func() {
		client := plain(t, url)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, prefix := range []string{cfg.Prefix, cfg.ServicesPrefix + "/"} {
			if _, err := client.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
				t.Error(err)
			}
		}
	})
	return cfg
}

// plain is a client of its own, to look behind the centre's back.
func plain(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	client, err := (&Config{Endpoints: []string{url}, Timeout: 3 * time.Second}).dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func open(t *testing.T, cfg Config) *Center {
	t.Helper()
	c, err := Open(t.Context(), cfg, Deps{Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s %s", time.Now().Format("05.000"), strings.TrimSpace(string(p)))
	return len(p), nil
}

// crash ends a centre as kill -9 does: nothing is said to etcd.
func (c *Center) crash() {
	_ = c.client.Swap(nil).Close()
	_ = c.Close()
}

func TestSuite(t *testing.T) {
	url := endpoint(t)
	controltest.Run(t, func(t *testing.T) control.Center { return open(t, testConfig(t, url)) })
}

func TestValuesSuite(t *testing.T) {
	url := endpoint(t)
	controltest.RunValues(t, func(t *testing.T) control.Values { return open(t, testConfig(t, url)) })
}

func TestServicesSuite(t *testing.T) {
	url := endpoint(t)
	controltest.RunServices(t, func(t *testing.T) control.Services { return open(t, testConfig(t, url)) })
}

func TestReportsSuite(t *testing.T) {
	url := endpoint(t)
	controltest.RunReports(t, func(t *testing.T) control.Reports { return open(t, testConfig(t, url)) })
}

// eventually polls until ok, and tells how long it took.
// inTime is how long a test waits for what must come: far less than a lease of a minute.
const inTime = 10 * time.Second

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func register(t *testing.T, c *Center, in control.Instance) (control.Instance, context.CancelFunc) {
	t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	t.Cleanup(leave)
	got, err := c.Register(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return got, leave
}

// slotsOf writes a tier as "n: slot=addr ...".
func slotsOf(c *Center, tier string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.tiers[tier]
	out := fmt.Sprintf("%d:", m.Slots)
	for _, in := range m.Instances {
		out += fmt.Sprintf(" %d=%s", in.Slot, in.Addr)
	}
	return out
}

func TestZZ15NewInstanceIsUsedWithinASecondDeadOneLeavesWithItsLease(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	watcher := open(t, cfg)
	register(t, watcher, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1"})
	var dying *Center
	want, soonest := "0=a:1", time.Hour
	for i, addr := range []string{"b:1", "c:1", "d:1"} { // a busy machine is slow now and then
		dying = open(t, cfg)
		register(t, dying, control.Instance{Tier: "logic", Slot: -1, Addr: addr})
		want += fmt.Sprintf(" %d=%s", i+1, addr)
		took := eventually(t, inTime, "the new instance is seen", func() bool { return slotsOf(watcher, "logic") == fmt.Sprintf("%d: %s", i+2, want) })
		soonest = min(soonest, took)
		t.Logf("seen after %s", took)
	}
	if soonest > time.Second {
		t.Errorf("a new instance is seen after %s at best", soonest)
	}
	dying.crash()
	took := eventually(t, cfg.Lease+inTime, "the dead one is gone", func() bool { return slotsOf(watcher, "logic") == "4: 0=a:1 1=b:1 2=c:1" })
	t.Logf("gone after %s", took)
}

func TestLeavingIsSeenAtOnceAndKeepsTheSlot(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	cfg.Lease = time.Minute
	watcher, leaving := open(t, cfg), open(t, cfg)
	_, leave := register(t, leaving, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1"})
	eventually(t, inTime, "registered", func() bool { return slotsOf(watcher, "logic") == "1: 0=a:1" })
	leave()
	eventually(t, inTime, "left", func() bool { return slotsOf(watcher, "logic") == "1:" })
	register(t, leaving, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1"})
	_ = leaving.Close()
	eventually(t, inTime, "closed", func() bool { return slotsOf(watcher, "logic") == "1:" })
}

func TestRestartTakesItsSlotOverWithoutWaitingForTheLease(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	cfg.Lease = time.Minute
	watcher, first := open(t, cfg), open(t, cfg)
	register(t, watcher, control.Instance{Tier: "das", Slot: -1, Addr: "a:1", Boot: "1"})
	register(t, first, control.Instance{Tier: "das", Slot: -1, Addr: "b:1", Boot: "1"})
	first.crash()
	second := open(t, cfg)
	began := time.Now()
	got, _ := register(t, second, control.Instance{Tier: "das", Slot: -1, Addr: "b:1", Boot: "2"})
	if got.Slot != 1 || time.Since(began) > inTime {
		t.Fatalf("came back to slot %d after %s", got.Slot, time.Since(began))
	}
	eventually(t, inTime, "the new life is shown", func() bool {
		m, _ := watcher.Members(t.Context(), "das")
		return len(m.Instances) == 2 && m.Instances[1].Boot == "2"
	})
}

func TestRacersGetDistinctSlots(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	var wg sync.WaitGroup
	for i := range 10 { // a process each; slots 0..2 are asked for, three times and once
		c := open(t, cfg)
		wg.Go(func() {
			in := control.Instance{Tier: "das", Slot: i % 3, Addr: fmt.Sprintf("a:%d", i)}
			if _, err := c.Register(t.Context(), in); err != nil && !errors.Is(err, control.ErrSlotTaken) {
				t.Error(err)
			}
			in = control.Instance{Tier: "logic", Slot: -1, Addr: fmt.Sprintf("a:%d", i)}
			if _, err := c.Register(t.Context(), in); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c := open(t, cfg)
	for tier, want := range map[string]int{"das": 3, "logic": 10} {
		m, _ := c.Members(t.Context(), tier)
		if m.Slots != want || len(m.Instances) != want {
			t.Errorf("%s: %s, want %d slots, all held", tier, slotsOf(c, tier), want)
		}
	}
}

// A slot whose lease ran out belongs to its holder for one lease more. Seen to fail with
// overdue answering true: "new" then gets slot 0 at once.
func TestSlotOfTheDeadIsGivenToOthersOnlyAfterGrace(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	first, second := open(t, cfg), open(t, cfg)
	register(t, first, control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	first.crash()
	eventually(t, cfg.Lease+inTime, "the lease runs out", func() bool { return slotsOf(second, "logic") == "1:" })
	began := time.Now()
	got, _ := register(t, second, control.Instance{Tier: "logic", Slot: -1, Addr: "new:1"})
	if took := time.Since(began); got.Slot != 0 || took < cfg.Lease {
		t.Fatalf("got slot %d after %s", got.Slot, took)
	}
}

func TestForgetReleasesTheLastSlot(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	cfg.Lease = time.Minute
	c := open(t, cfg)
	_, leave := register(t, c, control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	_, leaveLast := register(t, c, control.Instance{Tier: "logic", Slot: 1, Addr: "b:1"})
	leave()
	eventually(t, inTime, "a left", func() bool { return slotsOf(c, "logic") == "2: 1=b:1" })
	for slot, want := range map[int]string{0: "not the last", 1: "lives", 7: "no slot"} {
		if err := c.Forget(t.Context(), "logic", slot); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("slot %d: error %v, want %q", slot, err, want)
		}
	}
	leaveLast()
	eventually(t, inTime, "b left", func() bool { return slotsOf(c, "logic") == "2:" })
	if err := c.Forget(t.Context(), "logic", 1); err != nil {
		t.Fatal(err)
	}
	if got := slotsOf(c, "logic"); got != "1:" {
		t.Fatalf("after forgetting: %s", got)
	}
}

func TestRemovedRegistrationIsMadeAnew(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	c := open(t, cfg)
	register(t, c, control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	if err := c.Announce(t.Context(), "imui", control.Endpoint{Addr: "a:2"}); err != nil {
		t.Fatal(err)
	}
	client := plain(t, cfg.Endpoints[0])
	for _, key := range []string{cfg.Prefix + "members/logic/0/live", cfg.ServicesPrefix + "/imui/a:2"} {
		if resp, err := client.Delete(t.Context(), key); err != nil || resp.Deleted != 1 {
			t.Fatalf("%s: deleted %+v, %v", key, resp, err)
		}
		eventually(t, cfg.Lease, key+" is back", func() bool {
			resp, err := client.Get(t.Context(), key)
			return err == nil && len(resp.Kvs) == 1
		})
	}
}

func TestUnreadableKeysAreIgnoredAndShown(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	client := plain(t, cfg.Endpoints[0])
	c := open(t, cfg)
	register(t, c, control.Instance{Tier: "logic", Slot: 0, Addr: "a:1"})
	bad := map[string]string{
		"members/logic/1/live":    "{",
		"members/logic/2/live":    `{"addr":""}`,
		"members/logic/3/live":    `{"addr":"a:1","boot":"twice"}`,
		"members/logic/x/slot":    "{}",
		"members/logic/9999/slot": "{}",
		"members/logic/01/slot":   "{}",
		"members/logic/7/slot":    "\xff",
		"members/logic/7/other":   "{}",
		"members/logic":           "{}",
		"values/a b":              "x",
		"values/":                 "x",
	}
	for key, value := range bad {
		if _, err := client.Put(t.Context(), cfg.Prefix+key, value); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, inTime, "all are shown", func() bool { return len(c.Unreadable()) == len(bad) })
	if got := slotsOf(c, "logic"); got != "4: 3=a:1" && got != "1: 0=a:1" {
		t.Errorf("members %s", got)
	}
	for key := range bad {
		if _, err := client.Delete(t.Context(), cfg.Prefix+key); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, inTime, "none is left", func() bool { return len(c.Unreadable()) == 0 })
}

// The stock registry's JSON, as other programs write it, and what they must find of ours.
func TestLayoutOfKitexStockRegistry(t *testing.T) {
	cfg := testConfig(t, endpoint(t))
	client := plain(t, cfg.Endpoints[0])
	c := open(t, cfg)
	dir := cfg.ServicesPrefix + "/orders/"
	for key, value := range map[string]string{
		dir + "10.0.0.1:80": `{"network":"tcp","address":"10.0.0.1:80","weight":0,"tags":null}`,
		dir + "10.0.0.2:80": `{"network":"tcp","address":"10.0.0.2:80","weight":3,"tags":{"zone":"b"}}`,
		dir + "bad":         `{"network":`,
		cfg.ServicesPrefix + "/orders2/10.0.0.3:80": `{"network":"tcp","address":"10.0.0.3:80"}`,
	} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	var got string
	if err := c.WatchService(ctx, "orders", func(found []control.Endpoint) { got = fmt.Sprint(found); end() }); err != nil {
		t.Fatal(err)
	}
	if want := "[{tcp 10.0.0.1:80 10 map[]} {tcp 10.0.0.2:80 3 map[zone:b]}]"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
	if err := c.Announce(t.Context(), "imui", control.Endpoint{Addr: "10.0.0.9:80", Tags: map[string]string{"v": "1"}}); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(t.Context(), cfg.ServicesPrefix+"/imui/10.0.0.9:80")
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != `{"network":"tcp","address":"10.0.0.9:80","weight":10,"tags":{"v":"1"}}` {
		t.Errorf("announced as %+v, %v", resp, err)
	}
}

func TestOpenWithoutEtcd(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Endpoints = []string{"http://127.0.0.1:1"}
	cfg.Timeout = 500 * time.Millisecond
	cfg.Snapshot = filepath.Join(t.TempDir(), "control.json")
	for name, content := range map[string]string{"no snapshot": "", "bad snapshot": "{"} {
		if content != "" {
			if err := os.WriteFile(cfg.Snapshot, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(t.Context(), cfg, Deps{})
		if err == nil || !strings.Contains(err.Error(), "cannot be reached") || !strings.Contains(err.Error(), "snapshot") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	cfg.TLS.CA = filepath.Join(t.TempDir(), "none.pem")
	if _, err := Open(t.Context(), cfg, Deps{}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("missing CA: error %v", err)
	}
}
