package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
)

// writers commit to a conversation each, in buckets at epoch, until a commit is not clean.
type writers struct {
	wg        sync.WaitGroup
	confirmed [4]uint64 // per writer: commits that were answered cleanly
	ended     [4]error
}

func (w *writers) conv(i int) store.Key {
	return store.Key{Tenant: "shop", ID: fmt.Sprintf("p:user%d:zed", i)}
}

func (w *writers) start(s *sqlstore.Store, epoch uint64) {
	for i := range w.confirmed {
		w.wg.Go(func() {
			k := w.conv(i)
			for n := w.confirmed[i]; ; n++ {
				m := message(n+1, "zed", fmt.Sprint(n))
				m.Conv = k
				w.ended[i] = s.Commit(context.Background(), &store.Batch{
					Buckets:  []store.BucketFence{{ID: k.Bucket(), Epoch: epoch}},
					Convs:    []store.ConvMove{{Key: k, From: n, To: store.ConvHead{Seq: n + 1}}},
					Messages: []*store.Message{m},
				})
				if w.ended[i] != nil {
					return
				}
				w.confirmed[i] = n + 1
			}
		})
	}
}

// heads are those of the writers' conversations.
func (w *writers) heads(t *testing.T, s *sqlstore.Store) (heads [4]uint64) {
	t.Helper()
	v := view(t, s)
	defer v.Close()
	for i := range heads {
		h, err := v.Conv(w.conv(i))
		if err != nil {
			t.Fatal(err)
		}
		list, err := v.Range(w.conv(i), 0, 1<<62, 0)
		if err != nil || uint64(len(list)) != h.Seq {
			t.Fatalf("%d entries below head %d, %v", len(list), h.Seq, err)
		}
		heads[i] = h.Seq
	}
	return heads
}

// progress waits until each of the writers has done some commits more.
func (w *writers) progress(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	before := w.heads(t, s)
	eventually(t, "all writers get on", func() bool {
		for i, n := range w.heads(t, s) {
			if n < before[i]+12 {
				return false
			}
		}
		return true
	})
}

// TestR18Killed was seen to fail with a promotion that does not wait for the relay log (entries
// that were confirmed were missing), and with epochs left as they are (a das with the old map
// went on).
func TestR18KilledSourceIsReplaced(t *testing.T) {
	onPairs(t, func(t *testing.T, p *pair) {
		p.Spend()
		cfg, copied := p.schema(t)
		s := insisting(t, cfg)
		w := &writers{}
		w.start(s, 1)
		w.progress(t, s)
		p.replica.Exec(t, "", "STOP REPLICA SQL_THREAD") // from here on it only receives
		w.progress(t, s)
		p.Kill(p.sourceName())
		w.wg.Wait()

		done, err := sqlstore.Promote(t.Context(), sqlstore.Promotion{Old: cfg, Replica: copied, WithoutReplica: true, Wait: time.Minute})
		if err != nil || done != (sqlstore.Promoted{Epoch: 2}) {
			t.Fatalf("promotion: %+v, %v", done, err)
		}
		promoted := opened(t, copied)
		heads := w.heads(t, promoted)
		for i, n := range w.confirmed {
			if n < 20 || heads[i] < n || heads[i] > n+1 {
				t.Errorf("%d commits were confirmed, the new primary has %d", n, heads[i])
			}
		}
		t.Logf("confirmed %v, there %v", w.confirmed, heads)
		role, err := promoted.Role(t.Context())
		if err != nil || role != (store.Role{Writable: true, Epoch: 2}) {
			t.Errorf("role %+v, %v", role, err)
		}
		b := entries(message(1, "alice", "a"))
		b.Buckets = []store.BucketFence{{ID: chat.Bucket(), Epoch: 1}}
		if fence := fenceOf(t, promoted.Commit(t.Context(), b)); len(fence.Buckets) != 1 {
			t.Errorf("at the old epoch: %v", fence)
		}
		b.Buckets[0].Epoch = 2
		commit(t, promoted, b)

		// The old source comes back, and thinks that it is one.
		p.Start(p.sourceName())
		old := insisting(t, cfg)
		if role, err = old.Role(t.Context()); err != nil || role.Epoch != 1 {
			t.Errorf("role of the old source: %+v, %v", role, err)
		}
		if fence := fenceOf(t, old.Commit(t.Context(), b)); len(fence.Buckets) != 1 {
			t.Errorf("at the new epoch, on the old source: %v", fence)
		}
		b.Buckets[0].Epoch = 1
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		unknown(t, "at the old epoch, on the old source", old.Commit(ctx, b)) // for want of a replica
	})
}

// TestR18Fenced was seen to fail with the fence left out: the old primary went on.
func TestR18LivingSourceIsFencedFirst(t *testing.T) {
	onPairs(t, func(t *testing.T, p *pair) {
		p.Spend()
		cfg, copied := p.schema(t)
		s := insisting(t, cfg)
		if err := s.SetBucket(t.Context(), 1000, store.BucketState{Epoch: 5}); err != nil { // of another database
			t.Fatal(err)
		}
		w := &writers{}
		w.start(s, 1)
		w.progress(t, s)

		// A promotion that cannot be finished leaves everything as it was.
		p.replica.Exec(t, "", "STOP REPLICA IO_THREAD")
		eventually(t, "commits wait for the replica", func() bool { n := p.status(p.semiSync("wait_sessions")); return n != "" && n != "0" })
		_, err := sqlstore.Promote(t.Context(), sqlstore.Promotion{Old: cfg, Replica: copied, Wait: 2 * time.Second})
		if err == nil || !strings.Contains(err.Error(), "cannot be fenced") {
			t.Fatalf("commits under way cannot end: %v", err)
		}
		if p.engine == "mariadb" {
			p.replica.Exec(t, "", "STOP REPLICA SQL_THREAD")
			_, err := sqlstore.Promote(t.Context(), sqlstore.Promotion{Old: cfg, Replica: copied, Wait: 2 * time.Second})
			if err == nil || !strings.Contains(err.Error(), "throw away") {
				t.Fatalf("both threads are stopped: %v", err)
			}
		}
		p.replica.Exec(t, "", "START REPLICA")
		before := w.heads(t, s)
		eventually(t, "the old primary goes on", func() bool { return w.heads(t, s) != before })

		done, err := sqlstore.Promote(t.Context(), sqlstore.Promotion{Old: cfg, Replica: copied, WithoutReplica: true, Wait: time.Minute})
		if err != nil || done != (sqlstore.Promoted{Epoch: 6, Fenced: true}) {
			t.Fatalf("promotion: %+v, %v", done, err)
		}
		w.wg.Wait()
		for _, err := range w.ended {
			var fence *store.FenceError
			if !errors.Is(err, sqlstore.ErrNotWritten) && !errors.As(err, &fence) {
				t.Errorf("the old primary: %v, want a refusal", err)
			}
		}
		promoted := opened(t, copied)
		if heads := w.heads(t, promoted); heads != w.confirmed {
			t.Errorf("the new primary has %v of %v", heads, w.confirmed)
		}
		v := view(t, promoted)
		for bucket, want := range map[uint32]store.BucketState{3: {Epoch: 6, Open: true}, 1000: {Epoch: 6}} {
			if got, err := v.Bucket(bucket); err != nil || got != want {
				t.Errorf("bucket %d is %+v, %v, want %+v", bucket, got, err, want)
			}
		}
		if role, err := s.Role(t.Context()); err != nil || role != (store.Role{Epoch: 5}) {
			t.Errorf("role of the old primary: %+v, %v", role, err)
		}
		w.start(promoted, 6)
		w.progress(t, promoted)
		_, err = sqlstore.Promote(t.Context(), sqlstore.Promotion{Replica: copied, Wait: time.Second})
		if err == nil || !strings.Contains(err.Error(), "no replica") {
			t.Errorf("promoted twice: %v", err)
		}
		promoted.Close()
		w.wg.Wait()
	})
}

func TestPromotionOfTiDBIsRefused(t *testing.T) {
	onServers(t, func(t *testing.T, server server) {
		_, err := sqlstore.Promote(t.Context(), sqlstore.Promotion{Replica: server.migrated(t), Wait: time.Second})
		want := "no replica"
		if server.Name == "TIDB" {
			want = "by itself"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	})
}
