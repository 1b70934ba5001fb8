package das

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/control"
)

const tenant = "t"

// bed is some das over one store, in a bubble with virtual time, and Logics that only
// write down what they are told.
type bed struct {
	*testing.T
	store  store.Store
	cfg    Config
	logics map[string]*logicFake
	stop   []func() error
	ids    uint64
}

// inBed runs a test in a bubble. Everything it started must have ended after it.
func inBed(t *testing.T, s store.Store, run func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { onBed(t, s, run) })
}

// onBed is inBed in real time, for stores with goroutines of their own.
func onBed(t *testing.T, s store.Store, run func(t *testing.T, b *bed)) {
	t.Helper()
	b := &bed{T: t, store: s, cfg: DefaultConfig(), logics: make(map[string]*logicFake)}
	for _, name := range []string{"L1", "L2"} {
		b.logics[name] = &logicFake{boot: "boot-" + name}
	}
	run(t, b)
	for _, stop := range b.stop {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("close the store: %v", err)
	}
}

func exclusive() *memory.Store { return memory.New(memory.Options{Exclusive: true, Strict: true}) }
func shared() *memory.Store    { return memory.New(memory.Options{Strict: true}) }

// start makes a das and runs it.
func (b *bed) start(slot int) *Das {
	b.Helper()
	d, stop := b.startStoppable(slot)
	b.stop = append(b.stop, stop)
	return d
}

// startStoppable leaves the stopping to the test.
func (b *bed) startStoppable(slot int) (d *Das, stop func() error) {
	b.Helper()
	d = b.make(slot)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return d, func() error { cancel(); return <-ended }
}

// make makes a das that does not run yet.
func (b *bed) make(slot int) *Das {
	b.Helper()
	d, err := New(b.cfg, Deps{
		Store: b.store, Self: control.Instance{Addr: fmt.Sprintf("D%d", slot), Slot: slot},
		Logics: func(addr string) (tier.Logic, error) {
			if l := b.logics[addr]; l != nil {
				return l, nil
			}
			return nil, errors.New("no such logic")
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// write submits items as Logic L1 and waits for their outcomes, in order of the items.
func (b *bed) write(d *Das, items ...*tier.Submit) answers {
	b.Helper()
	return b.writeAs("L1", d, items...)
}

func (b *bed) writeAs(logic string, d *Das, items ...*tier.Submit) answers {
	b.Helper()
	for _, it := range items {
		b.ids++
		it.Id, it.Tenant = b.ids, tenant
	}
	rsp, err := d.Write(b.Context(), &tier.SubmitBatch{Logic: logic, Boot: "boot-" + logic, Items: items})
	if err != nil {
		b.Fatalf("write: %v", err)
	}
	slices.SortFunc(rsp.Items, func(x, y *tier.Settled) int { return int(x.Id) - int(y.Id) })
	return answers{items: rsp.Items, changes: rsp.Changes}
}

type answers struct {
	items   []*tier.Settled
	changes []*tier.Change
}

// ok fails unless every item was committed.
func (a answers) ok(t testing.TB) answers {
	t.Helper()
	for _, s := range a.items {
		if s.Code != 0 {
			t.Fatalf("item %d: %v: %s", s.Id, code.Code(s.Code), s.Message)
		}
	}
	return a
}

// codes are those of the items, in order.
func (a answers) codes() string {
	var list []string
	for _, s := range a.items {
		list = append(list, code.Code(s.Code).Name())
	}
	return strings.Join(list, " ")
}

// row is the change of a user, nil if there is none.
func (a answers) row(uid string) *im.Conversation {
	for _, c := range a.changes {
		if c.Uid == uid {
			return c.Row
		}
	}
	return nil
}

// send is an append of a first attempt.
func send(convID, sender, id, text string) *tier.Submit {
	return &tier.Submit{Append: &tier.Append{Conv: convID, Sender: sender, ClientMsgId: id, Attempt: 1, Text: text}}
}

func (b *bed) sync(d *Das, uid string, cursor uint64) *im.SyncRsp {
	b.Helper()
	rsp, err := d.Sync(b.Context(), &tier.SyncRequest{Tenant: tenant, Uid: uid, Sync: &im.Sync{Epoch: 1, Cursor: cursor}})
	if err != nil {
		b.Fatalf("sync: %v", err)
	}
	return rsp
}

func (b *bed) history(d *Das, uid, convID string) []*im.Message {
	b.Helper()
	rsp, err := d.History(b.Context(), &tier.HistoryRequest{Tenant: tenant, Uid: uid, History: &im.History{Conv: convID, Limit: 200}})
	if err != nil {
		b.Fatalf("history: %v", err)
	}
	return rsp.Messages
}

// texts is a log in short: seq=text.
func texts(list []*im.Message) string {
	var parts []string
	for _, m := range list {
		parts = append(parts, fmt.Sprintf("%d=%s", m.Seq, m.Text))
	}
	return strings.Join(parts, " ")
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// logicFake writes down what a Logic is told.
type logicFake struct {
	tier.Logic
	boot string

	mu      sync.Mutex
	settled []*tier.Settled
	changes []*tier.Change
	fail    int           // so many calls are answered with an error
	slow    time.Duration // a call takes
}

func (l *logicFake) Settled(ctx context.Context, b *tier.SettledBatch) (*tier.Accepted, error) {
	if l.slow > 0 {
		time.Sleep(l.slow)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail > 0 {
		l.fail--
		return nil, errors.New("connection refused")
	}
	l.settled = append(l.settled, b.Items...)
	l.changes = append(l.changes, b.Changes...)
	return &tier.Accepted{}, nil
}

// take returns what was told since the last take, after everything has come to rest.
func (l *logicFake) take() answers {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	a := answers{items: l.settled, changes: l.changes}
	l.settled, l.changes = nil, nil
	return a
}

func noLogics(string) (tier.Logic, error) { return nil, errors.New("no logics here") }
