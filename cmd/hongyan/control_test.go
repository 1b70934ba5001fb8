package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"hongyan/internal/control"
	"hongyan/internal/control/etcd"
	"hongyan/tests/servers"
)

func TestControlChecksValuesBeforeTheyAreWritten(t *testing.T) {
	for _, c := range []struct{ key, text, want string }{
		{"config/entry", "log: {level: debug}\nentry: {gate: {rate: 5}}", ""},
		{"config/entry", "log: {level: loud}", "level"},
		{"config/entry", "entry: {gate: {rat: 5}}", "unknown key rat"},
		{"config/entry", "cluster: {slot: 3}", "of this process alone"},
		{"config/entri", "{}", "no tier"},
		{"shards/map", "{", ""},
		{"jtransit/calls/price", "servise: x", "servise"},
		{"jtransit/idl/a.thrift", "namespace go a", ""},
		{"other", "x", "nobody reads this key"},
		{"a b", "x", "none of letters"},
	} {
		err := checkValue(c.key, []byte(c.text))
		wantErr := c.want != "" || c.text == "{"
		if (err != nil) != wantErr || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.key, c.text, err, c.want)
		}
	}
}

// controlRun runs hongyan control on keys of its own.
func controlRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"control"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestControlCommands(t *testing.T) {
	url := servers.Shared(t, "HONGYAN_TEST_ETCD")
	cfg := etcd.DefaultConfig()
	cfg.Endpoints, cfg.Prefix, cfg.Lease = []string{url}, "/hongyan-test-"+rand.Text()[:8]+"/", 2*time.Second
	t.Setenv("HONGYAN_CONTROL_ENDPOINTS", url)
	t.Setenv("HONGYAN_CONTROL_PREFIX", cfg.Prefix)
	center, err := etcd.Open(t.Context(), cfg, etcd.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer removeKeys(t, url, cfg.Prefix)
	defer center.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	if _, err := center.Register(ctx, control.Instance{Tier: "logic", Slot: 1, Addr: "a:1", Boot: "b", Serves: "session"}); err != nil {
		t.Fatal(err)
	}
	followPicky(t, center)

	if code, out, errs := controlRun(t, "instances"); code != 0 || !strings.Contains(out, "logic  0     (nobody)") || !strings.Contains(out, "logic  1     a:1") {
		t.Errorf("instances: %d\n%s%s", code, out, errs)
	}
	good := filepath.Join(t.TempDir(), "entry.yaml")
	if err := os.WriteFile(good, []byte("log: {level: debug}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := controlRun(t, "set", "config/entry", good); code != 0 || !strings.Contains(out, "ok") {
		t.Errorf("set: %d\n%s%s", code, out, errs)
	}
	if code, out, _ := controlRun(t, "set", "config/entry", "--text", "log: {level: error}"); code != exitFailed || !strings.Contains(out, "REFUSED: not so quiet") {
		t.Errorf("set of what a process refuses: %d\n%s", code, out)
	}
	if code, _, errs := controlRun(t, "set", "config/entry", "--text", "log: {level: loud}"); code != exitFailed || strings.Count(errs, "\n") != 1 {
		t.Errorf("set of a bad value: %d\n%s", code, errs)
	}
	if code, _, errs := controlRun(t, "set", "config/entry", good, "--revision", "0"); code != exitFailed || !strings.Contains(errs, "changed") {
		t.Errorf("set at an old revision: %d\n%s", code, errs)
	}
	var got valueJSON
	code, out, _ := controlRun(t, "get", "config/entry", "--json")
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got.Text != "log: {level: error}" || len(got.Reports) != 1 || got.Reports[0].Err == "" {
		t.Errorf("get: %d\n%s", code, out)
	}
	if code, out, _ := controlRun(t, "get"); code != 0 || !strings.Contains(out, "config/entry") {
		t.Errorf("list: %d\n%s", code, out)
	}
	if code, _, errs := controlRun(t, "forget", "--tier", "logic", "--slot", "1"); code != exitFailed || !strings.Contains(errs, "lives") {
		t.Errorf("forget of a live one: %d\n%s", code, errs)
	}
	for _, args := range [][]string{{"set", "config/entry"}, {"set"}, {"get", "a", "b"}, {"forget"}, {"set", "config/entry", good, "--remove"}} {
		if code, _, _ := controlRun(t, args...); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if code, _, errs := controlRun(t, "set", "config/entry", "--remove"); code != 0 {
		t.Errorf("remove: %d %s", code, errs)
	}
}

func removeKeys(t *testing.T, url, prefix string) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := client.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
		t.Error(err)
	}
}

// followPicky is a process that does not let its log be turned down to errors.
func followPicky(t *testing.T, center *etcd.Center) {
	live, err := control.NewLive(center, "config/entry", control.LiveOptions[string]{
		Decode: func(data []byte) (string, error) { return string(data), nil },
		Apply: func(text string) error {
			if strings.Contains(text, "error") {
				return errors.New("not so quiet")
			}
			return nil
		},
		Tier: "entry", Addr: "entry-0", Reports: center,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- live.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}
