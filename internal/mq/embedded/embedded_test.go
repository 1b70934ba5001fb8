package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"hongyan/internal/mq"
	"hongyan/internal/mq/internal/engine"
	"hongyan/internal/mq/mqtest"
)

func TestSuite(t *testing.T) {
	mqtest.Run(t, mqtest.Backend{
		Backoff: 10 * time.Millisecond,
		Open: func(t *testing.T, opt mqtest.Options) mq.Queue {
			return openMem(t, vfs.NewMem(), Options{Parallel: opt.Parallel, MinBackoff: opt.MinBackoff, MaxBackoff: opt.MaxBackoff})
		},
	})
}

func openMem(t *testing.T, fs vfs.FS, opt Options) mq.Queue {
	t.Helper()
	q, err := openFS("queue", fs, opt)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// handled collects payloads and how often each came.
type handled struct {
	mu    sync.Mutex
	count map[string]int
	order []string
}

func (h *handled) handle(_ context.Context, m mq.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[string(m.Payload)]++
	h.order = append(h.order, string(m.Payload))
	return nil
}

func (h *handled) wait(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		got := len(h.count)
		h.mu.Unlock()
		if got >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages came, want %d", got, n)
		}
	}
}

func publish(t *testing.T, q mq.Queue, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := q.Publish(t.Context(), mq.Message{Topic: "t", Key: fmt.Sprint(n % 7), Payload: []byte(fmt.Sprint(n))}); err != nil {
			t.Fatal(err)
		}
	}
}

// kill -9 at any moment: what Publish has confirmed is delivered by the next life, whatever
// of the unflushed rest survives (P1, P5).
func TestConfirmedMessagesSurviveACrash(t *testing.T) {
	for seed := range uint64(20) {
		fs := vfs.NewCrashableMem()
		q := openMem(t, fs, Options{SaveEvery: time.Millisecond})
		const before = 200
		var early handled
		publish(t, q, 0, before/2)
		if err := q.Subscribe(t.Context(), "t", "g", early.handle); err != nil {
			t.Fatal(err)
		}
		publish(t, q, before/2, before)
		if seed%2 == 0 {
			early.wait(t, before)
			time.Sleep(5 * time.Millisecond) // the state is saved, though not flushed
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 50, RNG: rand.New(rand.NewPCG(seed, 1))})
		early.mu.Lock()
		done := make(map[string]bool)
		for payload := range early.count {
			done[payload] = true
		}
		early.mu.Unlock()

		again := openMem(t, crashed, Options{})
		var late handled
		if err := again.Subscribe(t.Context(), "t", "g", late.handle); err != nil {
			t.Fatal(err)
		}
		publish(t, again, before, before+20) // numbers go on where they were
		for n := range before + 20 {
			if !done[fmt.Sprint(n)] {
				waitFor(t, &late, fmt.Sprint(n))
			}
		}
		for _, c := range []mq.Queue{again, q} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func waitFor(t *testing.T, h *handled, payload string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		n := h.count[payload]
		h.mu.Unlock()
		if n > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("confirmed message %s is lost", payload)
		}
	}
}

// A clean restart repeats nothing: neither what was handled nor the attempts of what failed.
func TestRestartGoesOnWhereItWas(t *testing.T) {
	fs := vfs.NewMem()
	q := openMem(t, fs, Options{MinBackoff: 50 * time.Millisecond, MaxBackoff: 50 * time.Millisecond})
	var first handled
	bad := func(m mq.Message) bool { return string(m.Payload) == "3" }
	attempts := make(chan int, 100)
	if err := q.Subscribe(t.Context(), "t", "g", func(ctx context.Context, m mq.Message) error {
		if bad(m) {
			attempts <- m.Attempt
			return errors.New("bad")
		}
		return first.handle(ctx, m)
	}); err != nil {
		t.Fatal(err)
	}
	publish(t, q, 0, 50) // 3 holds up 10, 17, 24, 31, 38 and 45
	first.wait(t, 43)
	for range 3 {
		<-attempts
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for len(attempts) > 0 {
		<-attempts
	}

	q = openMem(t, fs, Options{})
	defer q.Close()
	var second handled
	if err := q.Subscribe(t.Context(), "t", "g", func(ctx context.Context, m mq.Message) error {
		if bad(m) {
			attempts <- m.Attempt
		}
		return second.handle(ctx, m)
	}); err != nil {
		t.Fatal(err)
	}
	second.wait(t, 7)
	time.Sleep(20 * time.Millisecond)
	second.mu.Lock()
	defer second.mu.Unlock()
	if want := []string{"3", "10", "17", "24", "31", "38", "45"}; !slices.Equal(second.order, want) {
		t.Errorf("the second life handled %v, want %v", second.order, want)
	}
	if n := <-attempts; n < 4 {
		t.Errorf("attempts of the first life are forgotten: this is number %d", n)
	}
}

// Numbers must go on after every entry was dropped: from 1 again, groups would skip all.
func TestNumbersGoOnAfterTheLogIsEmpty(t *testing.T) {
	fs := vfs.NewMem()
	total := 0
	for range 3 {
		q := openMem(t, fs, Options{SaveEvery: time.Millisecond})
		var h handled
		if err := q.Subscribe(t.Context(), "t", "g", h.handle); err != nil {
			t.Fatal(err)
		}
		var msgs []mq.Message
		for range 3000 {
			msgs = append(msgs, mq.Message{Topic: "t", Key: fmt.Sprint(total), Payload: []byte(fmt.Sprint(total))})
			total++
		}
		if err := q.Publish(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
		h.wait(t, 3000)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := openLog("queue", fs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	topics, err := l.Topics()
	if err != nil || topics["t"].Next != 9001 || topics["t"].First < 5000 || topics["t"].Groups["g"].Next != 9001 {
		t.Errorf("topics %+v, %v", topics, err)
	}
}

func TestAFailedFlushRefusesEverything(t *testing.T) {
	mem := vfs.NewMem()
	broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			return errorfs.ErrInjected
		}
		return nil
	})}
	fs := errorfs.Wrap(mem, broken)
	q := openMem(t, fs, Options{MinBackoff: time.Hour})
	publish(t, q, 0, 3)
	broken.On()
	err := q.Publish(t.Context(), mq.Message{Topic: "t"})
	if !errors.Is(err, ErrBroken) {
		t.Fatalf("publish on a broken disk: %v", err)
	}
	broken.Off()
	if err := q.Publish(t.Context(), mq.Message{Topic: "t"}); !errors.Is(err, ErrBroken) {
		t.Errorf("publish after the disk failed: %v", err)
	}
	if err := q.Close(); !errors.Is(err, ErrBroken) {
		t.Errorf("close: %v", err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if q, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	q.Close()
	if _, err := Open("/dev/null/x", Options{}); err == nil {
		t.Error("opened an impossible directory")
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(appendState(nil, engine.State{Next: 9, Pending: []engine.Pending{{N: 3, Attempt: 2, DueMS: -5}, {N: 7}}}))
	f.Add([]byte{1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := decodeState(appendState(nil, s))
		if err != nil || again.Next != s.Next || !slices.Equal(again.Pending, s.Pending) {
			t.Fatalf("%+v came back as %+v, %v", s, again, err)
		}
	})
}

func FuzzDecodeRows(f *testing.F) {
	entry := engine.Entry{Key: "key", Payload: []byte("payload")}
	f.Add(appendEntry(nil, entry))
	f.Add(appendLetter(nil, engine.Letter{Entry: entry, Attempts: 3, At: time.UnixMilli(7), Error: "why"}))
	entry.Group = "g"
	f.Add(appendEntry(nil, entry))
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEntry(b); err == nil && len(e.Key) < forOne {
			if again, err := decodeEntry(appendEntry(nil, e)); err != nil || again.Key != e.Key || again.Group != e.Group || !bytes.Equal(again.Payload, e.Payload) {
				t.Fatalf("%+v came back as %+v, %v", e, again, err)
			}
		}
		_, _ = decodeLetter(b)
		if len(b) > 0 {
			_, _, _ = splitState(b)
		}
		_, _ = number(b, logPrefix("t"))
	})
}

// Dead letters of before format 2 can still be read.
func TestOldDeadLetters(t *testing.T) {
	old := appendEntry([]byte{16}, engine.Entry{Key: "k", Payload: []byte("p")})
	l, err := decodeLetter(old)
	if err != nil || l.Attempts != 16 || l.Key != "k" || string(l.Payload) != "p" || !l.At.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
}

// The newest dead letters are kept, across a restart too.
func TestDeadLettersAreBounded(t *testing.T) {
	fs := vfs.NewMem()
	for round := range 2 {
		q := openMem(t, fs, Options{MaxDead: 10})
		reject := func(context.Context, mq.Message) error { return fmt.Errorf("no: %w", mq.ErrReject) }
		if err := q.Subscribe(t.Context(), "t", "g", reject); err != nil {
			t.Fatal(err)
		}
		publish(t, q, round*15, (round+1)*15)
		var dead []mq.DeadLetter
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			var err error
			if dead, err = q.Dead(t.Context(), "t", "g", 100); err != nil {
				t.Fatal(err)
			}
			if len(dead) > 10 || time.Now().After(deadline) {
				t.Fatalf("%d dead letters, the last %+v", len(dead), dead[len(dead)-1])
			}
			if len(dead) == 10 && dead[9].ID == fmt.Sprint((round+1)*15) && dead[0].ID == fmt.Sprint((round+1)*15-9) {
				break
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	q, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	payload := make([]byte, 128)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := q.Publish(context.Background(), mq.Message{Topic: "t", Key: "k", Payload: payload}); err != nil {
				b.Error(err)
			}
		}
	})
}
