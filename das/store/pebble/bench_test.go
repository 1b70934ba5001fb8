package pebblestore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"hongyan/das/store"
	pebblestore "hongyan/das/store/pebble"
	"hongyan/idl/im"
)

// load makes batches as a das in the one-commit form does: each message with the move of
// its conversation, the rows of both members, and one delivery row for the batch. It
// allocates nothing per message, so that what is measured is the store's.
type load struct {
	convs []loadConv
	users []uint64 // version
	rng   *rand.Rand
	n     uint64 // messages made
	rows  uint64 // delivery rows made
	batch store.Batch
	msgs  []store.Message
	used  map[int]int // conversation -> its place in the batch
	moved map[int]int
	body  string
}

type loadConv struct {
	key  store.Key
	seq  uint64
	a, b int // users
}

func newLoad(convs, users int) *load {
	l := &load{
		users: make([]uint64, users), rng: rand.New(rand.NewPCG(1, 1)), used: map[int]int{}, moved: map[int]int{},
		body: strings.Repeat("0123456789abcdef", 16),
	}
	for i := range convs {
		a, b := 2*i%users, (2*i+1)%users
		if convs > users {
			a, b = i%users, (i+1+i/users)%users
		}
		a, b = min(a, b), max(a, b)
		l.convs = append(l.convs, loadConv{store.Key{Tenant: "shop", ID: "p:" + uid(a) + ":" + uid(b)}, 0, a, b})
	}
	return l
}

func uid(n int) string { return fmt.Sprintf("user%06d", n) }

var uids = func() (u [200_000]string) {
	for i := range u {
		u[i] = uid(i)
	}
	return u
}()

func (l *load) next(size int) *store.Batch {
	b := &l.batch
	b.Convs, b.Users, b.Messages, b.Members = b.Convs[:0], b.Users[:0], b.Messages[:0], b.Members[:0]
	clear(l.used)
	clear(l.moved)
	if len(b.Deliver) == 0 {
		b.Deliver = make([]store.DeliverRow, 1)
		l.msgs = make([]store.Message, 256)
	}
	d := &b.Deliver[0]
	l.rows++
	d.Owner, d.N, d.Entries = "0190a0b0-c0d0-7000-8000-abcdefabcdef", l.rows, d.Entries[:0]
	finished := max(d.N, 3) - 3
	b.DeliverDone = append(b.DeliverDone[:0], store.RowRange{Owner: d.Owner, From: finished, To: finished})
	for i := range size {
		ci := l.rng.IntN(len(l.convs))
		if l.n < uint64(len(l.convs)) { // one after the other, so that each is in memory
			ci = int(l.n)
		}
		c := &l.convs[ci]
		c.seq++
		l.n++
		sender := c.a
		if l.n%2 == 0 {
			sender = c.b
		}
		l.msgs[i] = store.Message{
			Conv: c.key, Seq: c.seq, Sender: uids[sender], ClientMsgID: messageID(l.n), BodyHash: l.n, Kind: im.Kind_TEXT,
			Text: l.body, CreatedMS: 1_700_000_000_000, Ord: c.seq, OwnOrd: c.seq / 2,
		}
		b.Messages = append(b.Messages, &l.msgs[i])
		if at, ok := l.used[ci]; ok {
			b.Convs[at].To.Seq = c.seq
			continue
		}
		l.used[ci] = len(b.Convs)
		b.Convs = append(b.Convs, store.ConvMove{Key: c.key, From: c.seq - 1, To: store.ConvHead{Seq: c.seq}})
		for _, u := range []int{c.a, c.b} {
			at, ok := l.moved[u]
			if !ok {
				at = len(b.Users)
				l.moved[u] = at
				b.Users = append(b.Users, store.UserMove{Key: store.Key{Tenant: "shop", ID: uids[u]}, From: l.users[u], To: l.users[u]})
			}
			l.users[u]++
			b.Users[at].To++
			b.Members = append(b.Members, store.MemberRow{User: b.Users[at].Key, Member: store.Member{
				Conv: c.key.ID, Version: l.users[u], LastSeq: c.seq, LastOrd: c.seq / 2, ReadSeq: c.seq / 2, ReadOrd: c.seq / 4, UpdatedMS: 1_700_000_000_000,
			}})
			d.Entries = append(d.Entries, store.DeliverEntry{User: b.Users[at].Key, Version: l.users[u], Conv: c.key.ID, Seq: c.seq})
		}
	}
	return b
}

func messageID(n uint64) string {
	const hex = "0123456789abcdef"
	id := []byte("0190a0b0-c0d0-7000-8000-000000000000")
	for i := 35; n > 0; i-- {
		id[i] = hex[n&15]
		n >>= 4
	}
	return string(id)
}

// cpuTime is what the process has used, background work included.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCommit reports the wall time and the processor time of a synced commit, a
// message, with everything that flushing and compacting cost on the way.
func BenchmarkCommit(b *testing.B) {
	for _, shape := range []struct{ convs, users int }{{200, 400}, {100_000, 20_000}} {
		for _, size := range []int{16, 64, 256} {
			b.Run(fmt.Sprintf("convs=%d/batch=%d", shape.convs, size), func(b *testing.B) {
				cfg := pebblestore.DefaultConfig()
				cfg.Dir = b.TempDir()
				s := open(b, cfg, nil)
				l := newLoad(shape.convs, shape.users)
				for l.n < 2*uint64(shape.convs) {
					if err := s.Commit(context.Background(), l.next(256)); err != nil {
						b.Fatal(err)
					}
				}
				l.msgs = make([]store.Message, 256)
				b.ReportAllocs()
				b.ResetTimer()
				var made uint64
				var cpu time.Duration
				for b.Loop() {
					b.StopTimer()
					batch := l.next(size)
					before := cpuTime(b)
					b.StartTimer()
					if err := s.Commit(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
					made += uint64(size)
					cpu += cpuTime(b) - before
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(made), "us/message")
				b.ReportMetric(float64(cpu.Microseconds())/float64(made), "cpu-us/message")
				if testing.Verbose() {
					b.Log(s.Metrics())
				}
			})
		}
	}
}

// BenchmarkSync reads what a returning device asks for: the heads of its user, the rows
// that changed, the last messages of one of them.
func BenchmarkSync(b *testing.B) {
	cfg := pebblestore.DefaultConfig()
	cfg.Dir = b.TempDir()
	s := open(b, cfg, nil)
	l := newLoad(3000, 200) // 30 conversations a user
	for l.n < 9000 {
		commit(b, s, l.next(256))
	}
	b.ReportAllocs()
	for b.Loop() {
		u := l.rng.IntN(len(l.users))
		user := store.Key{Tenant: "shop", ID: uids[u]}
		v, err := s.View(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		head, err := v.User(user)
		if err != nil || head.Version != l.users[u] {
			b.Fatal(head, err)
		}
		changes, err := v.Changes(user, head.Version-5, 100)
		if err != nil || len(changes) == 0 {
			b.Fatal(changes, err)
		}
		if _, err := v.Last(store.Key{Tenant: "shop", ID: changes[0].Conv}, 0, 20); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}
