package etcd

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hongyan/internal/control"
)

// link is a TCP connection to etcd that can be cut.
type link struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu   sync.Mutex
	cut  bool
	open []net.Conn
}

func newLink(t *testing.T, url string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{listener: l, to: strings.TrimPrefix(url, "http://")}
	k.wg.Go(k.accept)
	t.Cleanup(func() { _ = l.Close(); k.set(true); k.wg.Wait() })
	return k
}

func (k *link) url() string { return "http://" + k.listener.Addr().String() }

func (k *link) accept() {
	for {
		in, err := k.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.to)
		k.mu.Lock()
		if k.cut || err != nil {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
		} else {
			k.open = append(k.open, in, out)
			k.wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
			k.wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		}
		k.mu.Unlock()
	}
}

// set cuts the link, or lets it be made anew.
func (k *link) set(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	for _, c := range k.open {
		_ = c.Close()
	}
	k.open = nil
}

// What happened while the link was cut is compacted away before it is back: the watch cannot
// go on from where it was. Seen to fail with watch going on after an error of the response.
func TestCompactedWatchIsListedAnew(t *testing.T) {
	_, url := startServer(t) // others would feel it
	cfg := testConfig(t, url)
	direct := plain(t, cfg.Endpoints[0])
	k := newLink(t, cfg.Endpoints[0])
	cfg.Endpoints = []string{k.url()}
	c := open(t, cfg)
	if _, err := c.PutValue(t.Context(), "gone", []byte("x"), control.AnyRevision); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		k.set(true)
		for i := range 5 {
			if _, err := direct.Put(t.Context(), cfg.Prefix+"values/k", fmt.Sprint(round, i)); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := direct.Delete(t.Context(), cfg.Prefix+"values/gone")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := direct.Compact(t.Context(), resp.Header.Revision); err != nil {
			t.Fatal(err)
		}
		k.set(false)
		eventually(t, inTime, "the newest is known", func() bool {
			v, _ := c.Value(t.Context(), "k")
			gone, _ := c.Value(t.Context(), "gone")
			return string(v.Data) == fmt.Sprint(round, 4) && gone.Data == nil
		})
	}
	// and straight at the watch, without a pulse that would have listed anyway
	c.mu.Lock()
	c.values.seen.Revision = 1
	c.mu.Unlock()
	if err := c.watch(t.Context(), c.values); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("a watch from a compacted revision: %v", err)
	}
}

func TestPasswords(t *testing.T) {
	s, url := startServer(t)
	cfg := DefaultConfig()
	cfg.Endpoints, cfg.Prefix, cfg.Lease = []string{url}, "/hy/", chaosLease
	cfg.ServicesPrefix = "hy-services"
	allowOnly(t, url, cfg)

	if _, err := Open(t.Context(), cfg, Deps{}); err == nil {
		t.Error("opened without a password")
	}
	cfg.Username, cfg.Password = "hongyan", "wrong"
	if _, err := Open(t.Context(), cfg, Deps{}); err == nil || !strings.Contains(err.Error(), "authentication failed") {
		t.Errorf("with a wrong password: %v", err)
	}
	cfg.Password = "right"
	other := cfg
	cfg.Snapshot = filepath.Join(t.TempDir(), "control.json")
	c, watcher := open(t, cfg), open(t, other)
	register(t, c, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1", Boot: "1"})
	eventually(t, inTime, "seen", func() bool { return slotsOf(watcher, "logic") == "1: 0=a:1" })

	s.Kill("etcd") // tokens that were given are forgotten
	time.Sleep(time.Second)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	again := open(t, cfg) // from the snapshot: a password cannot even be presented
	register(t, again, control.Instance{Tier: "logic", Slot: -1, Addr: "a:1", Boot: "2"})
	time.Sleep(time.Second)
	s.Start("etcd")
	eventually(t, inTime, "the new life is seen", func() bool {
		m, _ := watcher.Members(t.Context(), "logic")
		return len(m.Instances) == 1 && m.Instances[0].Boot == "2"
	})
	if _, err := again.PutValue(t.Context(), "k", []byte("v"), control.AnyRevision); err != nil {
		t.Error(err)
	}
	eventually(t, inTime, "the watch goes on", func() bool { v, _ := watcher.Value(t.Context(), "k"); return v.Data != nil })
	time.Sleep(2 * cfg.Lease)
	if got := slotsOf(watcher, "logic"); got != "1: 0=a:1" {
		t.Errorf("two leases later: %s", got) // what etcd forgot would be noticed by now
	}
}

// allowOnly turns passwords on: hongyan/right may use the prefixes of cfg, nobody else anything.
func allowOnly(t *testing.T, url string, cfg Config) {
	t.Helper()
	client := plain(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	steps := []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "hongyan"); return err },
		func() error { _, err := client.UserAdd(ctx, "hongyan", "right"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "hongyan", "hongyan"); return err },
	}
	for _, prefix := range []string{cfg.Prefix, cfg.ServicesPrefix + "/"} {
		steps = append(steps, func() error {
			_, err := client.RoleGrantPermission(ctx, "hongyan", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		})
	}
	steps = append(steps, func() error { _, err := client.AuthEnable(ctx); return err })
	for i, step := range steps {
		if err := step(); err != nil && !strings.Contains(err.Error(), "already exists") {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}
