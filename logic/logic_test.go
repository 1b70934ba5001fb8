package logic

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

func TestConfigIsChecked(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"lanes.query":     func(c *Config) { c.Lanes.Query.Workers = 0 },
		"lanes.open":      func(c *Config) { c.Lanes.Open.Queue = -1 },
		"sessions.web":    func(c *Config) { c.Sessions = map[string]ClassPolicy{"web": {}} },
		"default_session": func(c *Config) { c.DefaultSession.Slots = 65 },
		"max_text":        func(c *Config) { c.MaxText = -1 },
		"batch_max":       func(c *Config) { c.BatchMax = 0 },
		"settle_timeout":  func(c *Config) { c.SettleTimeout = 0 },
		"reorder":         func(c *Config) { c.Reorder = -time.Second },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(c, Deps{}); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
	if _, err := New(DefaultConfig(), Deps{}); err == nil {
		t.Error("New took no dependencies")
	}
}

func TestEveryCommandOfAClientHasARow(t *testing.T) {
	table := commands()
	answeredByGateways := []im.Cmd{im.Cmd_NONE, im.Cmd_HELLO, im.Cmd_PING, im.Cmd_PUSH, im.Cmd_PUSH_ACK,
		im.Cmd_NOTICE, im.Cmd_KICK, im.Cmd_GOAWAY, im.Cmd_ERROR, im.Cmd_ANNOUNCE}
	for word, name := range im.Cmd_name {
		_, ok := table[im.Cmd(word)]
		if gateway := slices.Contains(answeredByGateways, im.Cmd(word)); ok == gateway {
			t.Errorf("%s: in the table %v, answered by gateways %v", name, ok, gateway)
		}
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		deps := w.logics[0].deps
		deps.Metrics, deps.Log = reg, slog.New(slog.DiscardHandler)
		l, err := New(DefaultConfig(), deps)
		if err != nil {
			t.Fatal(err)
		}
		l.met.command(im.Cmd(12345), code.Unsupported)
		l.met.command(im.Cmd(-1), code.OK)
		l.met.shed(query)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "hongyan_logic_") {
				t.Errorf("metric %s", f.GetName())
			}
			for _, m := range f.Metric {
				for _, label := range m.Label {
					if strings.Contains(label.GetValue(), "12345") {
						t.Errorf("%s has the client's word as a label", f.GetName())
					}
				}
			}
		}
		if _, err := New(DefaultConfig(), deps); err == nil {
			t.Error("metrics were registered twice")
		}
	})
}

// The encoder puts a message into the row itself: it must say what the generated code says.
func TestEncoderMatchesTheGeneratedOne(t *testing.T) {
	m1 := &im.Message{Conv: "p:a:b", Seq: 300, Sender: "a", ClientMsgId: "x", Kind: im.Kind_TEXT, Text: strings.Repeat("long ", 60), CreatedMs: 5}
	m2 := &im.Message{Conv: "p:a:b", Seq: 301, Sender: "b", Data: []byte{1, 2}, ModSeq: 7, Recalled: true, Ord: 3}
	e := &encoder{}
	for i, row := range []*im.Conversation{
		{Conv: "p:a:b", Version: 1},
		{Conv: "p:a:b", Version: 1 << 40, LastSeq: 300, ReadSeq: 2, PeerReadSeq: 3, Unread: 4, Peer: "b", Pinned: true, Muted: true,
			Hidden: true, Remark: "remark", Blocked: true, UpdatedMs: 6, Messages: []*im.Message{m1}},
		{Conv: "p:a:b", Version: 2, LastSeq: 300, Messages: []*im.Message{m1}},
		{Conv: "p:a:b", Version: 3, LastSeq: 301, Messages: []*im.Message{m1, m2}},
		{Conv: "p:a:b", Version: 4, LastSeq: 301, Messages: []*im.Message{m2, m1}},
	} {
		var got im.Conversation
		if err := got.Unmarshal(e.change(&tier.Change{Row: row})); err != nil {
			t.Fatal(err)
		}
		want, err := row.Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		var through im.Conversation
		if err := through.Unmarshal(want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, through) {
			t.Errorf("row %d: %+v, want %+v", i, got, through)
		}
	}
}

// Users that are neither connected nor have anything outstanding take no memory.
func TestIdleUsersAreForgotten(t *testing.T) {
	inWorld(t, 1, 1, func(w *world) {
		w.queue.hook(w.raiseWoken)
		alice := w.client("alice", "a1", 1)
		alice.login(0)
		alice.send("bob", "m1", "hello")
		alice.frames()
		alice.ack(1)
		pass(5 * time.Minute) // the gateway is gone: nothing is renewed
		for i := range w.logics[0].users.shards {
			equal(t, "users", len(w.logics[0].users.shards[i].all), 0)
		}
		rows, due := w.logics[0].rows.sizes()
		equal(t, "rows and deliveries", rows+due, 0)
		equal(t, "in flight", w.logics[0].writes.count.Load(), 0)
	})
}

func TestLinesAreGivenUpWhenIdle(t *testing.T) {
	inWorld(t, 1, 1, func(*world) {
		ctx, cancel := context.WithCancel(context.Background())
		var sent []int
		l := newLines(10, 2, 0, func(_ context.Context, peer string, items []int) {
			equal(t, "peer", peer, "there")
			sent = append(sent, items...)
		})
		equal(t, "before open", l.add(lineKey{addr: "a"}, "there", 1), false)
		l.open(ctx)
		go l.reap(ctx)
		equal(t, "added", l.add(lineKey{addr: "a"}, "there", 1), true)
		equal(t, "over the bound", l.add(lineKey{addr: "a"}, "there", 1, 2, 3), false)
		pass(3 * lineReap)
		l.mu.Lock()
		equal(t, "lines", len(l.all), 0)
		l.mu.Unlock()
		equal(t, "added again", l.add(lineKey{addr: "a"}, "there", 2), true)
		pass(time.Second)
		equal(t, "sent", len(sent), 2)
		cancel()
		l.close()
		equal(t, "after close", l.add(lineKey{addr: "b"}, "there", 1), false)
	})
}
