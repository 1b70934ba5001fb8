package load

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	hongyan "hongyan/sdk/go"
	"hongyan/tests/e2e/cluster"
)

const (
	// pipeline is how many messages of a writer are under way at once.
	pipeline = 16
	// pace is the least time between two messages of a writer: the load is to be there all the
	// time, and to leave the machine to those that have to come back.
	pace = 10 * time.Millisecond
)

// Load is conversations whose two members both write, each from one of two devices.
type Load struct {
	t     testing.TB
	talks []*talk
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

func newDevice(name string) *device {
	return &device{name: name, seqs: map[string]uint64{}, shown: map[string]int{}, acked: map[string]bool{}, failed: map[string]error{}}
}

// Start connects the two members of each conversation, on two devices each, and begins to send.
// Writers are on TCP and WebSocket in turn; who only reads is on those and on long polling.
func Start(t testing.TB, s *cluster.System, talks int) *Load {
	t.Helper()
	l := &Load{t: t, stop: make(chan struct{})}
	transports := []string{"tcp", "ws", "http"}
	for i := range talks {
		uids := [2]string{fmt.Sprintf("load-a%d", i), fmt.Sprintf("load-b%d", i)}
		c := &talk{conv: "p:" + uids[0] + ":" + uids[1]}
		for side, uid := range uids {
			writing := l.open(s, uid, "web", transports[(i+side)%2], i)
			reading := l.open(s, uid, "desktop", transports[(i+side+1)%3], i+1)
			c.devices = append(c.devices, writing, reading)
			c.writers = append(c.writers, &writer{device: writing, to: uids[1-side]})
		}
		l.talks = append(l.talks, c)
	}
	for _, w := range l.writers() {
		l.wg.Go(func() { l.write(w) })
	}
	return l
}

// Users are the uids of all members, who are online all the time.
func (l *Load) Users() (uids []string) {
	for _, c := range l.talks {
		uids = append(uids, strings.Split(c.conv, ":")[1:]...)
	}
	return uids
}

func (l *Load) writers() (all []*writer) {
	for _, c := range l.talks {
		all = append(all, c.writers...)
	}
	return all
}

func (l *Load) open(s *cluster.System, uid, platform, transport string, nth int) *device {
	l.t.Helper()
	d := newDevice(uid + " " + platform + " over " + transport)
	client, err := hongyan.New(hongyan.Options{
		Endpoints: s.Endpoints(transport, nth), Device: uid + "-" + platform, Platform: platform, Store: &hongyan.Memory{},
		Token: func(context.Context) (string, error) { return s.Token(l.t, uid), nil },
		On: hongyan.Handlers{
			Message: func(m *hongyan.Message) { d.locked(func() { d.showLocked(m) }) },
			Sent: func(sent hongyan.Sent) {
				d.locked(func() { d.showLocked(sent.Message); d.acked[sent.Message.ClientMsgId] = true })
			},
			Failed:  func(f hongyan.Failed) { d.locked(func() { d.failed[f.ClientMsgID] = f.Err }) },
			Removed: func(r hongyan.Removed) { d.locked(func() { d.removeLocked(r.After) }) },
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

func (d *device) showLocked(m *hongyan.Message) {
	d.shown[m.ClientMsgId]++
	d.seqs[m.ClientMsgId] = m.Seq
}

// removeLocked takes entries off the screen: after a failover the list is taken anew, and what
// a row does not tell of yet comes again.
func (d *device) removeLocked(after uint64) {
	for id, seq := range d.seqs {
		if seq > after {
			d.shown[id]--
			delete(d.seqs, id)
		}
	}
}

func (l *Load) write(w *writer) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(pace):
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

// patience is how long a load may stand still: longer than any recovery takes, so that a busy
// machine fails no test. Speed is measured elsewhere.
const patience = 90 * time.Second

// Progresses waits until every writer has had n more messages acked.
func (l *Load) Progresses(n int) {
	l.t.Helper()
	writers := l.writers()
	wanted := make([]int, len(writers))
	for i, w := range writers {
		wanted[i] = w.countAcked() + n
	}
	cluster.Eventually(l.t, patience, "sends of every writer go on", func() bool {
		for i, w := range writers {
			if w.countAcked() < wanted[i] {
				return false
			}
		}
		return true
	})
}

func (d *device) countAcked() (n int) {
	d.locked(func() { n = len(d.acked) })
	return n
}

// Finish ends the sending and fails the test unless all is as promised. Every fault is healed
// by then.
func (l *Load) Finish() {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait()
	r := l.check()
	l.t.Logf("%d messages, %d acked, level after %v", r.messages, r.acked, r.took.Round(time.Millisecond))
	if r.good() {
		return
	}
	l.t.Errorf("%d unacked\n%s", r.unacked, strings.Join(r.violations, "\n"))
	for _, c := range l.talks {
		for _, d := range c.devices {
			state, err := d.State()
			l.t.Logf("%s: %v (%v)", d.name, state, err)
		}
	}
}
