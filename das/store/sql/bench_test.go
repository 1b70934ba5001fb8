package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
	"hongyan/idl/im"
)

// load makes the batches of one das: conversations of two among users of its own tenant.
type load struct {
	tenant string
	rng    *rand.Rand
	seqs   []uint64 // of conversation i, between users 2i and 2i+1
	users  []uint64 // versions
	n      uint64   // messages
	rows   uint64   // outbox rows
	body   string
}

func newLoad(tenant string, convs int) *load {
	return &load{tenant: tenant, rng: rand.New(rand.NewPCG(1, 1)), seqs: make([]uint64, convs),
		users: make([]uint64, 2*convs), body: strings.Repeat("0123456789abcde'", 16)}
}

func (l *load) key(format string, a ...any) store.Key {
	return store.Key{Tenant: l.tenant, ID: fmt.Sprintf(format, a...)}
}

const owner = "0190a0b0-c0d0-7000-8000-abcdefabcdef"

// messages is a commit of the stage that ends in an ack: heads, messages, a fan-out row.
func (l *load) messages(size int) *store.Batch {
	l.rows++
	b := &store.Batch{FanOut: []store.FanOutRow{{RowKey: store.RowKey{Owner: owner + l.tenant, N: l.rows}, CreatedMS: 1_700_000_000_000}}}
	moved := map[int]int{}
	for range size {
		c := l.rng.IntN(len(l.seqs))
		k := l.key("p:user%06d:user%06d", 2*c, 2*c+1)
		l.seqs[c]++
		l.n++
		sender := fmt.Sprintf("user%06d", 2*c+int(l.n%2))
		b.Messages = append(b.Messages, &store.Message{
			Conv: k, Seq: l.seqs[c], Sender: sender, ClientMsgID: fmt.Sprintf("0190a0b0-c0d0-7000-8000-%012x", l.n),
			BodyHash: l.n, Kind: im.Kind_TEXT, Text: l.body, CreatedMS: 1_700_000_000_000, Ord: l.seqs[c], OwnOrd: l.seqs[c] / 2,
		})
		at, ok := moved[c]
		if !ok {
			at = len(b.Convs)
			moved[c] = at
			b.Convs = append(b.Convs, store.ConvMove{Key: k, From: l.seqs[c] - 1})
			b.FanOut[0].Entries = append(b.FanOut[0].Entries, store.FanOutEntry{Conv: k, Members: []store.FanOutMember{
				{UID: fmt.Sprintf("user%06d", 2*c)}, {UID: fmt.Sprintf("user%06d", 2*c+1)}}})
		}
		b.FanOut[0].Entries[at].LastSeq = l.seqs[c]
		b.Convs[at].To = store.ConvHead{Seq: l.seqs[c], Ord: l.seqs[c], Own: map[string]uint64{sender: l.seqs[c]}}
	}
	l.buckets(b)
	return b
}

// whole is messages with the second stage in the same commit: heads and rows of both
// members, a delivery row, the end of an older one.
func (l *load) whole(size int) *store.Batch {
	b := l.messages(size)
	d := store.DeliverRow{RowKey: b.FanOut[0].RowKey, CreatedMS: 1_700_000_000_000}
	for _, e := range b.FanOut[0].Entries {
		for _, m := range e.Members {
			var u int
			fmt.Sscanf(m.UID, "user%d", &u)
			l.users[u]++
			k := l.key("%s", m.UID)
			b.Users = append(b.Users, store.UserMove{Key: k, From: l.users[u] - 1, To: l.users[u]})
			b.Members = append(b.Members, store.MemberRow{User: k, Member: store.Member{
				Conv: e.Conv.ID, Version: l.users[u], LastSeq: e.LastSeq, LastOrd: e.LastSeq / 2, ReadSeq: e.LastSeq / 2, UpdatedMS: 1_700_000_000_000,
			}})
			d.Entries = append(d.Entries, store.DeliverEntry{User: k, Version: l.users[u], Conv: e.Conv.ID, Seq: e.LastSeq})
		}
	}
	b.FanOut, b.Deliver = nil, []store.DeliverRow{d}
	b.DeliverDone = []store.RowRange{{Owner: d.Owner, From: d.N - min(d.N, 3), To: d.N - min(d.N, 3)}}
	return b
}

func (l *load) buckets(b *store.Batch) {
	seen := map[uint32]bool{}
	for i := range b.Convs {
		id := uint32(len(b.Convs[i].Key.ID)*31+i*17) % store.Buckets
		if !seen[id] {
			seen[id] = true
			b.Buckets = append(b.Buckets, store.BucketFence{ID: id, Epoch: 1})
		}
	}
}

// BenchmarkCommit reports messages/s of one writer through Commit and, batch by batch in
// turns, of the same statements sent over a bare connection: what the database itself gives.
func BenchmarkCommit(b *testing.B) {
	servers, err := found()
	if err != nil {
		unavailable(b, err.Error())
	}
	for _, server := range servers {
		for _, stage := range []string{"message", "whole"} {
			for _, size := range []int{16, 64, 256} {
				b.Run(fmt.Sprintf("%s/%s/batch=%d", server.name, stage, size), func(b *testing.B) {
					l := newLoad("shop", 5000)
					next := l.messages
					if stage == "whole" {
						next = l.whole
					}
					benchmarkCommit(b, open(b, server.migrated(b)), size, next)
				})
			}
		}
	}
}

func benchmarkCommit(b *testing.B, s *sqlstore.Store, size int, next func(int) *store.Batch) {
	raw := bare(b, s)
	for range 20 {
		commit(b, s, next(256))
	}
	through := func(batch *store.Batch) time.Duration {
		began := time.Now()
		commit(b, s, batch)
		return time.Since(began)
	}
	around := func(batch *store.Batch) time.Duration {
		packets, err := s.Packets(batch)
		if err != nil || len(packets) != 1 {
			b.Fatal(len(packets), err)
		}
		began := time.Now()
		if _, err := raw.ExecContext(context.Background(), packets[0]); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	var ours, bares []time.Duration
	for b.Loop() {
		ours, bares = append(ours, through(next(size))), append(bares, around(next(size)))
		bares, ours = append(bares, around(next(size))), append(ours, through(next(size)))
	}
	rate := func(list []time.Duration) float64 { // of the median: others use this machine too
		slices.Sort(list)
		return float64(size) / list[len(list)/2].Seconds()
	}
	b.ReportMetric(rate(ours), "messages/s")
	b.ReportMetric(rate(bares), "raw-messages/s")
	b.ReportMetric(rate(ours)/rate(bares), "of-raw")
}

func bare(t testing.TB, s *sqlstore.Store) *sql.Conn {
	t.Helper()
	conn, err := s.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
