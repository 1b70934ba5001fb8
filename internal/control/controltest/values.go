package controltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/internal/control"
)

// RunValues runs the suite that every control.Values passes. open returns new, empty ones;
// where they are a Closer, they are closed.
func RunValues(t *testing.T, open func(t *testing.T) control.Values) {
	cases := []struct {
		name string
		run  func(*testing.T, control.Values)
	}{
		{"what is put is read", putAndRead},
		{"revisions guard against lost changes", revisionsGuard},
		{"one of many concurrent writers wins", oneWriterWins},
		{"bad keys and values are refused", badValues},
		{"watch shows the whole set, the newest always", watchWholeSet},
		{"watch of one prefix is not called for another", watchOnePrefix},
		{"watch ends with its context", valuesWatchEnds},
		{"closed", valuesClosed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			values := open(t)
			if closer, ok := values.(interface{ Close() error }); ok {
				t.Cleanup(func() { _ = closer.Close() })
			}
			c.run(t, values)
		})
	}
}

func putAndRead(t *testing.T, values control.Values) {
	if v := value(t, values, "a/b"); v.Data != nil || v.Revision != 0 || v.Key != "a/b" {
		t.Fatalf("before it is set: %+v", v)
	}
	first := put(t, values, "a/b", "one", control.AnyRevision)
	if got := value(t, values, "a/b"); string(got.Data) != "one" || got.Revision != first.Revision || first.Revision <= 0 {
		t.Fatalf("put %+v, read %+v", first, got)
	}
	second := put(t, values, "a/b", "one", control.AnyRevision)
	if second.Revision <= first.Revision {
		t.Fatalf("revision %d after %d", second.Revision, first.Revision)
	}
	binary := string([]byte{0, 0xff, '\n', 0x80})
	put(t, values, "a/c", binary, control.AnyRevision)
	if got := value(t, values, "a/c"); string(got.Data) != binary {
		t.Fatalf("binary data came back as %q", got.Data)
	}
	put(t, values, "a/d", "", control.AnyRevision)
	if got := value(t, values, "a/d"); got.Data == nil || len(got.Data) != 0 {
		t.Fatalf("an empty value came back as %+v", got)
	}
	if _, err := values.PutValue(t.Context(), "a/b", nil, control.AnyRevision); err != nil {
		t.Fatal(err)
	}
	if got := value(t, values, "a/b"); got.Data != nil || got.Revision != 0 {
		t.Fatalf("after it was removed: %+v", got)
	}
}

func revisionsGuard(t *testing.T, values control.Values) {
	first := put(t, values, "k", "one", 0)
	conflict(t, values, 0)
	second := put(t, values, "k", "two", first.Revision)
	conflict(t, values, first.Revision)
	if _, err := values.PutValue(t.Context(), "k", nil, first.Revision); !errors.Is(err, control.ErrConflict) {
		t.Fatalf("removed at an old revision: %v", err)
	}
	if _, err := values.PutValue(t.Context(), "k", nil, second.Revision); err != nil {
		t.Fatal(err)
	}
	conflict(t, values, second.Revision)
	put(t, values, "k", "three", 0)
}

func conflict(t *testing.T, values control.Values, revision int64) {
	t.Helper()
	before := value(t, values, "k")
	if _, err := values.PutValue(t.Context(), "k", []byte("late"), revision); !errors.Is(err, control.ErrConflict) {
		t.Fatalf("put at revision %d while it is at %d: error %v, want ErrConflict", revision, before.Revision, err)
	}
	if after := value(t, values, "k"); string(after.Data) != string(before.Data) {
		t.Fatalf("a refused put changed %q to %q", before.Data, after.Data)
	}
}

func oneWriterWins(t *testing.T, values control.Values) {
	base := put(t, values, "k", "base", control.AnyRevision)
	var wg sync.WaitGroup
	won := make([]bool, 8)
	for i := range won {
		wg.Go(func() {
			_, err := values.PutValue(t.Context(), "k", fmt.Append(nil, i), base.Revision)
			if won[i] = err == nil; err != nil && !errors.Is(err, control.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	winner := slices.Index(won, true)
	if winner < 0 || slices.Contains(won[winner+1:], true) || string(value(t, values, "k").Data) != fmt.Sprint(winner) {
		t.Fatalf("winners %v, value %q", won, value(t, values, "k").Data)
	}
}

func badValues(t *testing.T, values control.Values) {
	for _, key := range []string{"", "/a", "a/", "a//b", "a b", "a\x00", "ä", strings.Repeat("k", 257)} {
		if _, err := values.PutValue(t.Context(), key, []byte("x"), control.AnyRevision); err == nil {
			t.Errorf("key %q: taken", key)
		}
		if _, err := values.Value(t.Context(), key); err == nil {
			t.Errorf("key %q: read", key)
		}
	}
	if _, err := values.PutValue(t.Context(), "k", make([]byte, control.MaxValue+1), control.AnyRevision); err == nil {
		t.Error("a value over the limit was taken")
	}
}

func watchWholeSet(t *testing.T, values control.Values) {
	put(t, values, "w/b", "1", control.AnyRevision)
	w := watchValues(t, values, "w/")
	w.until("w/b=1")
	put(t, values, "w/a", "1", control.AnyRevision)
	w.until("w/a=1 w/b=1")
	for i := range 30 {
		put(t, values, "w/b", fmt.Sprint(i), control.AnyRevision)
	}
	w.until("w/a=1 w/b=29")
	if _, err := values.PutValue(t.Context(), "w/a", nil, control.AnyRevision); err != nil {
		t.Fatal(err)
	}
	w.until("w/b=29")
}

func watchOnePrefix(t *testing.T, values control.Values) {
	w := watchValues(t, values, "mine/")
	w.until("")
	put(t, values, "other/a", "1", control.AnyRevision)
	put(t, values, "mine", "1", control.AnyRevision)
	put(t, values, "mine/a", "1", control.AnyRevision)
	w.until("mine/a=1")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) != 2 {
		t.Fatalf("shown %q", w.seen)
	}
}

func valuesWatchEnds(t *testing.T, values control.Values) {
	endsWithItsContext(t, func(ctx context.Context) error { return values.WatchValues(ctx, "", func([]control.Value) {}) })
}

func valuesClosed(t *testing.T, values control.Values) {
	closer, ok := values.(interface{ Close() error })
	if !ok {
		t.Skip("cannot be closed")
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := values.Value(t.Context(), "k"); !errors.Is(err, control.ErrClosed) {
		t.Errorf("Value: %v", err)
	}
	if _, err := values.PutValue(t.Context(), "k", []byte("x"), control.AnyRevision); !errors.Is(err, control.ErrClosed) {
		t.Errorf("PutValue: %v", err)
	}
	if err := values.WatchValues(t.Context(), "", func([]control.Value) {}); !errors.Is(err, control.ErrClosed) {
		t.Errorf("WatchValues: %v", err)
	}
}

func value(t *testing.T, values control.Values, key string) control.Value {
	t.Helper()
	v, err := values.Value(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func put(t *testing.T, values control.Values, key, data string, revision int64) control.Value {
	t.Helper()
	v, err := values.PutValue(t.Context(), key, []byte(data), revision)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// textWatcher collects states as text.
type textWatcher struct {
	t    *testing.T
	mu   sync.Mutex
	seen []string
	news chan struct{} // capacity 1: one wake-up for any number of states
}

func watchValues(t *testing.T, values control.Values, prefix string) *textWatcher {
	return watchText(t, func(ctx context.Context, show func(string)) error {
		return values.WatchValues(ctx, prefix, func(set []control.Value) {
			words := make([]string, len(set))
			for i, v := range set {
				words[i] = v.Key + "=" + string(v.Data)
			}
			show(strings.Join(words, " "))
		})
	})
}

func watchText(t *testing.T, watch func(ctx context.Context, show func(string)) error) *textWatcher {
	w := &textWatcher{t: t, news: make(chan struct{}, 1)}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = watch(ctx, w.show)
	}()
	t.Cleanup(func() { end(); <-done })
	return w
}

func (w *textWatcher) show(state string) {
	w.mu.Lock()
	w.seen = append(w.seen, state)
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// until waits for a newest state.
func (w *textWatcher) until(want string) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		if n := len(w.seen); n > 0 && w.seen[n-1] == want {
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		select {
		case <-w.news:
		case <-deadline:
			w.t.Fatalf("%q was not shown; seen %q", want, w.seen)
		}
	}
}
