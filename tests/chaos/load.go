package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

// pipeline is how many messages of a sender are under way at once.
const pipeline = 8

// Load is conversations whose two members both write, each from one of two devices, over
// every transport.
type Load struct {
	t     testing.TB
	convs []*talk
	stop  chan struct{}
	wg    sync.WaitGroup
}

// talk is one conversation.
type talk struct {
	conv    string
	writers []*writer
	devices []*device // of both members
}

// writer is a member who writes, from one device.
type writer struct {
	*device
	to    string
	sends []string // client_msg_ids in the order of sending; of its goroutine until the load has ended
}

// device is what one device was shown.
type device struct {
	*hongyan.Client
	name string

	mu     sync.Mutex
	seqs   map[string]uint64 // by client_msg_id
	shown  map[string]int
	acked  map[string]bool
	failed map[string]error
}

// Start connects everybody and begins to send.
func Start(t testing.TB, s *cluster.System, talks int) *Load {
	t.Helper()
	l := &Load{t: t, stop: make(chan struct{})}
	transports := []string{"tcp", "ws", "http"}
	for i := range talks {
		uids := [2]string{fmt.Sprintf("chaos-a%d", i), fmt.Sprintf("chaos-b%d", i)}
		c := &talk{conv: "p:" + uids[0] + ":" + uids[1]}
		for side, uid := range uids {
			writing := l.open(s, uid, "web", transports[(i+side)%2], i)
			reading := l.open(s, uid, "desktop", transports[(i+side+1)%3], i+1)
			c.devices = append(c.devices, writing, reading)
			c.writers = append(c.writers, &writer{device: writing, to: uids[1-side]})
		}
		l.convs = append(l.convs, c)
	}
	for _, c := range l.convs {
		for _, w := range c.writers {
			l.wg.Go(func() { l.write(w) })
		}
	}
	return l
}

func (l *Load) open(s *cluster.System, uid, platform, transport string, nth int) *device {
	l.t.Helper()
	d := &device{
		name: uid + " " + platform + " over " + transport,
		seqs: map[string]uint64{}, shown: map[string]int{}, acked: map[string]bool{}, failed: map[string]error{},
	}
	show := func(m *hongyan.Message) {
		d.shown[m.ClientMsgId]++
		d.seqs[m.ClientMsgId] = m.Seq
	}
	client, err := hongyan.New(hongyan.Options{
		Endpoints: s.Endpoints(transport, nth), Device: uid + "-" + platform, Platform: platform, Store: &hongyan.Memory{},
		Token: func(context.Context) (string, error) { return s.Token(l.t, uid), nil },
		On: hongyan.Handlers{
			Message: func(m *hongyan.Message) { d.locked(func() { show(m) }) },
			Sent: func(sent hongyan.Sent) {
				d.locked(func() { show(sent.Message); d.acked[sent.Message.ClientMsgId] = true })
			},
			Failed: func(f hongyan.Failed) { d.locked(func() { d.failed[f.ClientMsgID] = f.Err }) },
		},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = client.Close() })
	d.Client = client
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		l.t.Fatalf("%s: %v", d.name, err)
	}
	return d
}

func (d *device) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (l *Load) write(w *writer) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		settled := 0
		w.locked(func() { settled = len(w.acked) + len(w.failed) })
		if len(w.sends)-settled >= pipeline {
			continue
		}
		id, err := w.SendAsync(hongyan.Outgoing{To: w.to, Text: fmt.Sprint(w.name, " ", len(w.sends))})
		if err != nil {
			l.t.Errorf("%s: message %d: %v", w.name, len(w.sends), err)
			return
		}
		w.sends = append(w.sends, id)
	}
}

// Stop ends the sending.
func (l *Load) Stop() {
	close(l.stop)
	l.wg.Wait()
}
