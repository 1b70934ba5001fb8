package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"hongyan/idl/event"
	"hongyan/internal/mq"
	"hongyan/internal/mq/memory"
	"hongyan/internal/mq/remote"
	"hongyan/internal/rpc"
	"hongyan/tests/servers"
)

// TestDeadLettersFromTheCommandLine lists and retries the dead letters of a queue that
// another process hosts.
func TestDeadLettersFromTheCommandLine(t *testing.T) {
	queue, err := memory.Open(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer("127.0.0.1:0", rpc.ServerOptions{}, rpc.Queue(&remote.Operator{Host: remote.NewHost(queue)}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait(); _ = queue.Close() })

	var cured atomic.Bool
	handled := make(chan string, 10)
	if err := queue.Subscribe(ctx, mq.TopicSystem, "notice", func(_ context.Context, m mq.Message) error {
		if !cured.Load() {
			return fmt.Errorf("uid is bad: %w", mq.ErrReject)
		}
		handled <- m.Key
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{"alice", "bob"} {
		payload, err := (&event.SystemNotice{Tenant: "demo", Channel: "orders", Uid: uid, ClientMsgId: "m1", Text: "hi"}).Marshal(nil)
		if err == nil {
			err = queue.Publish(ctx, mq.Message{Topic: mq.TopicSystem, Key: "demo/" + uid, Payload: payload})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if dead, err := queue.Dead(ctx, mq.TopicSystem, "notice", 10); err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", dead, err)
		} else if len(dead) == 2 {
			break
		}
	}
	dlq := func(want int, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		args = append(append([]string{"mq", "dlq"}, args...), "--topic", "system", "--group", "notice", "--rpc", server.Addr())
		if got := run(ctx, args, &stdout, &stderr); got != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, got, want, stderr.String())
		}
		return stdout.String()
	}
	var listed struct{ Letters []letterJSON }
	if err := json.Unmarshal([]byte(dlq(exitDone, "list", "--json")), &listed); err != nil || len(listed.Letters) != 2 {
		t.Fatalf("%+v, %v", listed, err)
	}
	first := listed.Letters[0]
	if first.Key != "demo/alice" || first.Attempts != 1 || !strings.Contains(first.Error, "uid is bad") || !strings.Contains(string(first.Payload), `"uid":"alice"`) || time.Since(first.At).Abs() > time.Minute {
		t.Errorf("%+v", first)
	}
	if table := dlq(exitDone, "list", "--limit", "1"); strings.Count(table, "\n") != 2 || !strings.Contains(table, "demo/alice") {
		t.Errorf("listed:\n%s", table)
	}
	cured.Store(true)
	if out := dlq(exitDone, "retry", first.ID); out != "1 retried\n" {
		t.Errorf("got %q", out)
	}
	if key := <-handled; key != "demo/alice" {
		t.Errorf("%s was handled", key)
	}
	dlq(exitFailed, "retry", first.ID)
	if out := dlq(exitDone, "retry", "--all", "--json"); out != `{"retried":1}`+"\n" {
		t.Errorf("got %q", out)
	}
	if out := dlq(exitDone, "list"); out != "no dead letters\n" {
		t.Errorf("got %q", out)
	}
	dlq(exitUsage, "retry")
	dlq(exitUsage, "list", "--name-servers", "127.0.0.1:1")
	if got := run(ctx, []string{"mq", "dlq", "list", "--rpc", server.Addr()}, &bytes.Buffer{}, &bytes.Buffer{}); got != exitUsage {
		t.Errorf("without a topic: exit code %d", got)
	}
}

// The queue is that of the tiers, with flags over it. Seen red: there was no --config, and no way
// to give the keys of an ACL.
func TestDeadLettersOfTheConfiguredQueue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hongyan.yaml")
	text := "queue: {name_servers: [10.0.0.1:9876], prefix: shop_, access_key: ops, secret_key: of-the-file}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HONGYAN_QUEUE_SECRET_KEY", "of-the-environment")
	var f dlqFlags
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := cmd.ParseFlags([]string{"--config", file, "--access-key", "me"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.config(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if q := cfg.Queue; q.NameServers[0] != "10.0.0.1:9876" || q.Prefix != "shop_" || q.AccessKey != "me" || q.SecretKey != "of-the-environment" {
		t.Errorf("queue %+v", q)
	}
	letters := []string{"mq", "dlq", "list", "--topic", "system", "--group", "notice"}
	t.Setenv("HONGYAN_QUEUE_SECRET_KEY", "")
	for want, more := range map[string][]string{
		"secret_key come together": {"--name-servers", "127.0.0.1:1", "--access-key", "me"},
		"no queue: give --rpc":     nil,
	} {
		if code, _, errs := command(t, append(letters, more...)...); code == exitDone || !strings.Contains(errs, want) {
			t.Errorf("%v: status %d, %q, want %q", more, code, errs, want)
		}
	}
	addr := servers.Shared(t, "HONGYAN_TEST_ROCKETMQ")
	text = fmt.Sprintf("queue: {name_servers: [%q], prefix: t%s_}\n", addr, strings.ToLower(rand.Text()[:8]))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, append(letters, "--config", file)...); code != exitDone || out != "no dead letters\n" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
}
