package e2e

import (
	"context"
	"sort"
	"sync"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/internal/route"
	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

// patience is how long a test waits for what must come: a machine at work on a dozen servers
// is slow now and then.
const patience = time.Minute

// device is one installation of a user, with all that it was shown.
type device struct {
	*hongyan.Client
	t testing.TB

	mu       sync.Mutex
	messages map[string]map[uint64]*hongyan.Message // conv -> seq
	shown    map[string]int                         // client_msg_id -> how often
	modified map[uint64]hongyan.Modified
	rows     map[string]*hongyan.Conversation
}

// newDevice connects a new device of uid over the transport: tcp, ws or http.
func newDevice(t testing.TB, s *cluster.System, uid, name, transport string) *device {
	t.Helper()
	return openDevice(t, s, uid, name, transport, &hongyan.Memory{})
}

// openDevice connects a device that remembers what its store holds.
func openDevice(t testing.TB, s *cluster.System, uid, name, transport string, store hongyan.Store) *device {
	t.Helper()
	d := &device{
		t: t, messages: map[string]map[uint64]*hongyan.Message{}, shown: map[string]int{},
		modified: map[uint64]hongyan.Modified{}, rows: map[string]*hongyan.Conversation{},
	}
	client, err := hongyan.New(hongyan.Options{
		Endpoints: s.Endpoints(transport, int(route.Hash(uid, name)%16)), Token: func(context.Context) (string, error) { return s.Token(t, uid), nil },
		Device: uid + "-" + name, Platform: "web", Store: store, On: d.handlers(),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Client = client
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		t.Fatalf("%s over %s: %v", uid, transport, err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return d
}

func (d *device) handlers() hongyan.Handlers {
	locked := func(f func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		f()
	}
	return hongyan.Handlers{
		Message:      func(m *hongyan.Message) { locked(func() { d.showLocked(m) }) },
		Sent:         func(sent hongyan.Sent) { locked(func() { d.showLocked(sent.Message) }) },
		Modified:     func(m hongyan.Modified) { locked(func() { d.modified[m.Seq] = m }) },
		Conversation: func(row *hongyan.Conversation, _ bool) { locked(func() { d.rows[row.Conv] = row }) },
	}
}

func (d *device) showLocked(m *hongyan.Message) {
	if d.messages[m.Conv] == nil {
		d.messages[m.Conv] = map[uint64]*hongyan.Message{}
	}
	d.messages[m.Conv][m.Seq] = m
	d.shown[m.ClientMsgId]++
}

// see reads what the device was shown.
func see[T any](d *device, f func(*device) T) T {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f(d)
}

// texts of a conversation, in order of seq.
func (d *device) texts(conv string) []string {
	return see(d, func(d *device) []string {
		var seqs []uint64
		for seq := range d.messages[conv] {
			seqs = append(seqs, seq)
		}
		sort.Slice(seqs, func(i, j int) bool { return seqs[i] < seqs[j] })
		var out []string
		for _, seq := range seqs {
			out = append(out, d.messages[conv][seq].Text)
		}
		return out
	})
}

func (d *device) has(conv, text string) bool {
	for _, have := range d.texts(conv) {
		if have == text {
			return true
		}
	}
	return false
}

func (d *device) unread(conv string) int64 {
	return see(d, func(d *device) int64 {
		if row := d.rows[conv]; row != nil {
			return int64(row.Unread)
		}
		return -1
	})
}

// say sends a text and waits for the ack.
func (d *device) say(to, text string) hongyan.Sent {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent, err := d.Send(ctx, hongyan.Outgoing{To: to, Text: text})
	if err != nil {
		d.t.Fatalf("send %q to %s: %v", text, to, err)
	}
	return sent
}

// insist asks again while the answer asks for that.
func insist(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !code.Of(err).Retryable() || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
