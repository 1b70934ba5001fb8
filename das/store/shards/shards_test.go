package shards_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hongyan/das/store"
	"hongyan/das/store/memory"
	"hongyan/das/store/shards"
	"hongyan/das/store/storetest"
	"hongyan/idl/im"
)

// servers opens memory stores by name; one that is down cannot be opened or asked.
type servers struct {
	mu   sync.Mutex
	all  map[string]*memory.Store
	down map[string]bool
}

func newServers(names ...string) *servers {
	s := &servers{all: map[string]*memory.Store{}, down: map[string]bool{}}
	for _, n := range names {
		s.all[n] = memory.New()
	}
	return s
}

func (s *servers) open(_ context.Context, dsn string) (shards.Database, error) {
	return &server{s.all[dsn], s, dsn}, s.err(dsn)
}

var errDown = errors.New("connection refused")

func (s *servers) err(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down[name] {
		return errDown
	}
	return nil
}

func (s *servers) set(name string, down bool) { s.mu.Lock(); s.down[name] = down; s.mu.Unlock() }

// server is a memory store behind a connection that may be down.
type server struct {
	*memory.Store
	all  *servers
	name string
}

func (s *server) Commit(ctx context.Context, b *store.Batch) error {
	if err := s.all.err(s.name); err != nil {
		return fmt.Errorf("%w: %w", store.ErrNotWritten, err)
	}
	return s.Store.Commit(ctx, b)
}

func (s *server) View(ctx context.Context) (store.View, error) {
	if err := s.all.err(s.name); err != nil {
		return nil, err
	}
	return s.Store.View(ctx)
}

func (s *server) Role(ctx context.Context) (store.Role, error) {
	if err := s.all.err(s.name); err != nil {
		return store.Role{}, err
	}
	return s.Store.Role(ctx)
}

func (s *server) Barrier(ctx context.Context) error {
	if err := s.all.err(s.name); err != nil {
		return err
	}
	return s.Store.Barrier(ctx)
}

func two() shards.Config {
	cfg := shards.DefaultConfig()
	cfg.Shards = []shards.ShardConfig{{Name: "a", Members: []string{"a1"}}, {Name: "b", Members: []string{"b1"}}}
	return cfg
}

func open(t testing.TB, cfg shards.Config, s *servers, m shards.Map) *shards.Store {
	t.Helper()
	st, err := shards.Open(context.Background(), cfg, shards.Deps{Open: s.open, Map: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return st
}

// The suite's batches mix keys of all buckets, so each run has them all in one database; the
// other takes part in scans and in the deletion of finished rows.
func TestStore(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				return eager{open(t, two(), newServers("a1", "b1"), shards.Even(name))}
			}, storetest.Limits{})
		})
	}
}

// eager reads every database as soon as a view is made: the suite wants one snapshot of that
// moment, where the store takes one of each database at its first read.
type eager struct{ store.Store }

func (s eager) View(ctx context.Context) (store.View, error) {
	v, err := s.Store.View(ctx)
	if err == nil {
		_, err = v.FanOutRows(store.RowKey{}, store.Created{}, 1)
	}
	return v, err
}

func chatOf(bucketLow bool) store.Key {
	for i := 0; ; i++ {
		k := store.Key{Tenant: "t", ID: fmt.Sprintf("p:a:b%d", i)}
		if (k.Bucket() < store.Buckets/2) == bucketLow {
			return k
		}
	}
}

func entry(k store.Key, seq, epoch uint64, n uint64) *store.Batch {
	return &store.Batch{
		Buckets:  []store.BucketFence{{ID: k.Bucket(), Epoch: epoch}},
		Convs:    []store.ConvMove{{Key: k, From: seq - 1, To: store.ConvHead{Seq: seq, Ord: seq, Own: map[string]uint64{"a": seq}}}},
		Messages: []*store.Message{{Conv: k, Seq: seq, Sender: "a", ClientMsgID: fmt.Sprint("id", n), Kind: im.Kind_TEXT, Text: "x"}},
		FanOut:   []store.FanOutRow{{RowKey: store.RowKey{Owner: "l", N: n}}},
	}
}

func TestCommitNeverSpansDatabases(t *testing.T) {
	s := newServers("a1", "b1")
	st := open(t, two(), s, shards.Even("a", "b"))
	low, high := chatOf(true), chatOf(false)
	both := entry(low, 1, 1, 1)
	other := entry(high, 1, 1, 2)
	both.Buckets, both.Convs = append(both.Buckets, other.Buckets...), append(both.Convs, other.Convs...)
	both.Messages = append(both.Messages, other.Messages...)
	var fence *store.FenceError
	if err := st.Commit(t.Context(), both); !errors.As(err, &fence) || len(fence.Buckets) != 1 || fence.Buckets[0] != high.Bucket() {
		t.Fatalf("a batch over two databases: %v", err)
	}
	for i, b := range []*store.Batch{entry(low, 1, 1, 1), entry(high, 1, 1, 2)} {
		if err := st.Part(1-i).Commit(t.Context(), b); !errors.As(err, &fence) {
			t.Fatalf("a batch of the other database: %v", err)
		}
		if err := st.Part(i).Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	v, err := st.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	rows, err := v.FanOutRows(store.RowKey{}, store.Created{Before: 1}, 0)
	if err != nil || len(rows) != 2 || rows[0].N != 1 {
		t.Fatalf("rows of both databases in key order: %v, %v", rows, err)
	}
	for _, k := range []store.Key{low, high} {
		if h, err := v.Conv(k); err != nil || h.Seq != 1 {
			t.Fatalf("head of %v: %v, %v", k, h, err)
		}
	}
	if err := st.Commit(t.Context(), &store.Batch{FanOutDone: []store.RowRange{{Owner: "l", From: 1, To: 2}}}); err != nil {
		t.Fatal(err)
	}
	if rows := outbox(t, st); len(rows) != 0 {
		t.Fatalf("finished rows of all databases: %v", rows)
	}
}

func outbox(t *testing.T, s store.Store) []store.FanOutRow {
	t.Helper()
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	rows, err := v.FanOutRows(store.RowKey{}, store.Created{Before: 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestMapIsValidated(t *testing.T) {
	good := shards.Even("a", "b")
	for _, c := range []struct {
		name string
		m    shards.Map
		want string
	}{
		{"empty", shards.Map{Version: 2}, "0..1023 are missing"},
		{"gap", shards.Map{Version: 2, Buckets: []shards.Range{{0, 9, "a"}, {11, 1023, "b"}}}, "10..10 are missing"},
		{"end", shards.Map{Version: 2, Buckets: []shards.Range{{0, 9, "a"}}}, "10..1023 are missing"},
		{"twice", shards.Map{Version: 2, Buckets: []shards.Range{{0, 9, "a"}, {9, 1023, "b"}}}, "bucket 9 stands twice"},
		{"beyond", shards.Map{Version: 2, Buckets: []shards.Range{{0, 1024, "a"}}}, "no range"},
		{"backwards", shards.Map{Version: 2, Buckets: []shards.Range{{9, 8, "a"}}}, "no range"},
		{"nowhere", shards.Map{Version: 2, Buckets: []shards.Range{{0, 1023, ""}}}, "no shard"},
		{"unknown", shards.Map{Version: 2, Buckets: []shards.Range{{0, 1023, "c"}}}, "not configured"},
		{"old", shards.Map{Version: 0, Buckets: good.Buckets}, "version 0"},
		{"other", shards.Map{Version: 1, Buckets: shards.Even("b", "a").Buckets}, "differs"},
		{"same", good, ""},
		{"next", good.With("b", 3, 4), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := open(t, two(), newServers("a1", "b1"), good)
			switch err := st.Apply(c.m); {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	next := good.With("b", 3, 4)
	if next.Version != 2 || next.Shard(3) != "b" || next.Shard(2) != "a" || next.Shard(5) != "a" || len(next.Buckets) != 4 {
		t.Errorf("With: %+v", next)
	}
}

func FuzzParseMap(f *testing.F) {
	f.Add([]byte(`{"version":1,"buckets":[{"from":0,"to":1023,"shard":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := shards.ParseMap(data); err == nil {
			for _, b := range []uint32{0, 511, 1023} {
				if m.Shard(b) == "" {
					t.Fatalf("bucket %d is nowhere in %s", b, data)
				}
			}
		}
	})
}

func TestConfigIsValidated(t *testing.T) {
	for want, cfg := range map[string]shards.Config{
		"0 are named":   shards.DefaultConfig(),
		"stands twice":  {Shards: []shards.ShardConfig{{"a", []string{"x"}}, {"a", []string{"y"}}}},
		"member 1 of a": {Shards: []shards.ShardConfig{{"a", []string{"secret", "secret"}}}},
		"has no":        {Shards: []shards.ShardConfig{{"a", nil}}},
		"look is 0s":    {},
	} {
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// one shard, a primary p and its copy r.
func pair() (shards.Config, *servers) {
	cfg := shards.DefaultConfig()
	cfg.Shards = []shards.ShardConfig{{Name: "a", Members: []string{"p", "r"}}}
	s := newServers("p", "r")
	s.all["p"].Replicate(s.all["r"])
	return cfg, s
}

// ZZ-20, DD-08: the primary dies, commits are refused for certain, the copy is promoted and
// takes over within a look; the old primary, brought back, is never used again. Seen red: with
// decide taking any member that is writable, the last commit goes to the old primary.
func TestZZ20FollowsThePromotedCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		st := open(t, cfg, s, shards.Map{})
		k := chatOf(true)
		commit := func(seq, epoch uint64) error { return st.Commit(t.Context(), entry(k, seq, epoch, seq)) }
		if err := commit(1, 1); err != nil {
			t.Fatal(err)
		}
		s.set("p", true)
		if err := commit(2, 1); !errors.Is(err, store.ErrNotWritten) {
			t.Fatalf("primary down: %v", err)
		}
		time.Sleep(5 * time.Second)
		if err := commit(2, 1); !errors.Is(err, store.ErrNotWritten) {
			t.Fatalf("nobody writable: %v", err)
		}
		s.all["r"].Promote(s.all["p"])
		time.Sleep(cfg.Look + 10*time.Millisecond)
		var fence *store.FenceError
		if err := commit(2, 1); !errors.As(err, &fence) {
			t.Fatalf("the epoch rose: %v", err)
		}
		if err := commit(2, 2); err != nil {
			t.Fatal(err)
		}
		s.set("p", false)
		time.Sleep(3 * cfg.Look)
		s.set("r", true)
		time.Sleep(5 * cfg.Look)
		if err := commit(3, 1); !errors.Is(err, store.ErrNotWritten) {
			t.Fatalf("only the old primary is there: %v", err)
		}
	})
}

// A bucket of a higher epoch is loaded after the primary was asked and before its copy is: the
// primary is not outdated. Seen red: with decide on what the first question told, there is no
// writer until the next look.
func TestPrimaryIsKeptWhileABucketOfAHigherEpochIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		var between sync.Once
		var load atomic.Bool
		opener := func(_ context.Context, dsn string) (shards.Database, error) {
			db := &server{s.all[dsn], s, dsn}
			if dsn == "p" {
				return db, nil
			}
			return lateCopy{db, func() {
				if !load.Load() {
					return
				}
				time.Sleep(time.Millisecond) // the primary has answered
				between.Do(func() { _ = s.all["p"].SetBucket(context.Background(), 9, store.BucketState{Epoch: 5}) })
			}}, nil
		}
		st, err := shards.Open(context.Background(), cfg, shards.Deps{Open: opener, Map: shards.Map{}})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		load.Store(true)
		time.Sleep(cfg.Look + 10*time.Millisecond)
		if err := st.Commit(t.Context(), entry(chatOf(true), 1, 1, 1)); err != nil {
			t.Fatal(err)
		}
	})
}

// lateCopy answers for its role after something has happened.
type lateCopy struct {
	*server
	before func()
}

func (c lateCopy) Role(ctx context.Context) (store.Role, error) {
	c.before()
	return c.server.Role(ctx)
}

// A primary that misses a look or two is not given up.
func TestBusyPrimaryIsBorneWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		st := open(t, cfg, s, shards.Map{})
		s.set("p", true)
		time.Sleep(cfg.Look + cfg.Look/2)
		s.set("p", false)
		if err := st.Commit(t.Context(), entry(chatOf(true), 1, 1, 1)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDD08FailedReplicaIsAvoidedAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		st := open(t, cfg, s, shards.Map{})
		read := func() error {
			v, err := st.Replica(t.Context(), 1)
			if err == nil {
				v.Close()
			}
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		s.set("r", true)
		if err := read(); !errors.Is(err, errDown) {
			t.Fatalf("down: %v", err)
		}
		if err := read(); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("avoided: %v", err)
		}
		s.set("r", false)
		time.Sleep(cfg.Avoid + 2*cfg.Look)
		if err := read(); err != nil {
			t.Fatalf("tried again: %v", err)
		}
	})
}

// R19: what was read from a server is confirmed by that server, not by the one that has
// taken its place; and one that is outdated confirms nothing. Seen red: without the look at the
// present primary behind the write.
func TestR19BarrierAsksTheServerThatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		st := open(t, cfg, s, shards.Map{})
		k := chatOf(true)
		s.all["p"].Cut()
		if err := st.Commit(t.Context(), entry(k, 1, 1, 1)); !errors.Is(err, memory.ErrUnconfirmed) {
			t.Fatal(err)
		}
		v, err := st.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if h, _ := v.Conv(k); h.Seq != 1 {
			t.Fatal("the row is not visible")
		}
		v.Close()
		if err := v.(store.Barrier).Barrier(t.Context()); err == nil {
			t.Fatal("confirmed what no copy has")
		}
		s.set("p", true)
		s.all["r"].Promote(s.all["p"])
		time.Sleep(2 * cfg.Look)
		if err := v.(store.Barrier).Barrier(t.Context()); err == nil {
			t.Fatal("the new primary confirmed what it never had")
		}
		s.set("p", false)
		s.all["p"].Heal() // it says yes to everything now
		if err := v.(store.Barrier).Barrier(t.Context()); err == nil {
			t.Fatal("the old primary confirmed what went with it")
		}
		if err := store.Confirm(t.Context(), st, mustView(t, st)); err != nil {
			t.Fatalf("nothing was read: %v", err)
		}
	})
}

func mustView(t *testing.T, s store.Store) store.View {
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	return v
}

// One write serves all who came before it began, and nobody who came later.
func TestR19BarriersAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := 0
		s := newServers("a1")
		s.all["a1"] = memory.New(memory.Options{Barrier: func() error { writes++; time.Sleep(time.Second); return nil }})
		cfg := shards.DefaultConfig()
		cfg.Shards = []shards.ShardConfig{{Name: "a", Members: []string{"a1"}}}
		st := open(t, cfg, s, shards.Map{})
		wait := func() {
			v, err := st.View(t.Context())
			if err == nil {
				_, err = v.Bucket(1)
				v.Close()
			}
			if err == nil {
				err = v.(store.Barrier).Barrier(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		}
		var all sync.WaitGroup
		began := time.Now()
		all.Go(wait)
		synctest.Wait()
		for range 50 {
			all.Go(wait)
		}
		all.Wait()
		if writes != 2 || time.Since(began) != 2*time.Second {
			t.Errorf("%d writes in %v", writes, time.Since(began))
		}
	})
}

// TestOpenWaitsForASlowDatabase: one that starts too, or is busy, is asked again; it has three
// looks. Seen red with a single look.
func TestOpenWaitsForASlowDatabase(t *testing.T) {
	for _, c := range []struct {
		slow int // looks without an answer
		want error
	}{{1, nil}, {2, nil}, {3, context.DeadlineExceeded}} {
		synctest.Test(t, func(t *testing.T) {
			cfg, s := pair()
			var opened atomic.Int32
			st, err := shards.Open(t.Context(), cfg, shards.Deps{Open: func(ctx context.Context, dsn string) (shards.Database, error) {
				if int(opened.Add(1)) <= c.slow*2 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return s.open(ctx, dsn)
			}})
			if !errors.Is(err, c.want) {
				t.Fatalf("%d slow looks: %v, want %v", c.slow, err, c.want)
			}
			if err == nil {
				if err := st.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenWithoutAnyPrimary(t *testing.T) {
	cfg, s := pair()
	s.set("p", true)
	s.set("r", true)
	if _, err := shards.Open(t.Context(), cfg, shards.Deps{Open: s.open}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("opened: %v", err)
	}
}

// TestMemberThatCannotBeOpenedIsNoDatabase: what an open returns beside its error is not used,
// be it a nil of some type. Seen red: the next look called it, and panicked.
func TestMemberThatCannotBeOpenedIsNoDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, s := pair()
		st, err := shards.Open(t.Context(), cfg, shards.Deps{Open: func(ctx context.Context, dsn string) (shards.Database, error) {
			if dsn == "r" {
				return (*memory.Store)(nil), errors.New("connection refused")
			}
			return s.open(ctx, dsn)
		}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * cfg.Look)
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}
