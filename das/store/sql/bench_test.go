package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"hongyan/das/store"
	sqlstore "hongyan/das/store/sql"
	"hongyan/idl/im"
	"hongyan/tests/servers"
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

// BenchmarkCommit reports what one writer gets through Commit, and in turns with it what the
// database gives at most: a transaction of one packet that inserts as many rows of as many bytes
// into a table of a number and a blob, without fences. CPU is that of this process and, where
// the server runs on this machine, of the server.
func BenchmarkCommit(b *testing.B) {
	for _, name := range servers.SQLs() {
		for _, stage := range []string{"message", "whole"} {
			for _, size := range []int{16, 64, 256} {
				b.Run(fmt.Sprintf("%s/%s/batch=%d", name, stage, size), func(b *testing.B) {
					server := server{servers.SharedSQL(b, name)}
					l := newLoad("shop", 5000)
					next := l.messages
					if stage == "whole" {
						next = l.whole
					}
					cfg := server.migrated(b)
					cfg.RequireReplica = os.Getenv("HONGYAN_BENCH_REPLICA") != ""
					benchmarkCommit(b, open(b, cfg), processOf(b, cfg.DSN), size, next)
				})
			}
		}
	}
}

// BenchmarkWrite is our own part of a commit: its SQL.
func BenchmarkWrite(b *testing.B) {
	s := open(b, server{servers.SharedSQL(b, "MYSQL")}.migrated(b))
	for _, size := range []int{64, 256} {
		batch := newLoad("shop", 5000).whole(size)
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(int64(s.Write(batch)))
			}
		})
	}
}

// turn is how many batches come one after the other.
const turn = 8

func benchmarkCommit(b *testing.B, s *sqlstore.Store, server process, size int, next func(int) *store.Batch) {
	for range 20 {
		commit(b, s, next(256))
	}
	first := next(size)
	packets, err := s.Packets(first)
	if err != nil || len(packets) != 1 {
		b.Fatal(len(packets), err)
	}
	commit(b, s, first)
	raw := newCeiling(b, s, size, len(packets[0]))
	ours, most := &phase{server: server}, &phase{server: server}
	for b.Loop() {
		list := make([]*store.Batch, turn)
		for i := range list {
			list[i] = next(size)
		}
		ours.run(func(i int) { commit(b, s, list[i]) })
		most.run(func(int) { raw.commit(b) })
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.rate(size), "messages/s")
	b.ReportMetric(most.rate(size), "ceiling/s")
	b.ReportMetric(ours.rate(size)/most.rate(size), "of-ceiling")
	b.ReportMetric(ours.cpu(size, ours.own), "client-us/message")
	b.ReportMetric(ours.cpu(size, ours.theirs), "server-us/message")
	b.ReportMetric(most.cpu(size, most.theirs), "ceiling-server-us/message")
}

// phase adds up what batches of one kind took.
type phase struct {
	server      process
	took        []time.Duration
	own, theirs time.Duration
}

func (p *phase) run(batch func(i int)) {
	own, theirs := process(os.Getpid()).cpu(), p.server.cpu()
	for i := range turn {
		began := time.Now()
		batch(i)
		p.took = append(p.took, time.Since(began))
	}
	p.own += process(os.Getpid()).cpu() - own
	p.theirs += p.server.cpu() - theirs
}

// rate is that of the median batch: others use this machine too.
func (p *phase) rate(size int) float64 {
	slices.Sort(p.took)
	return float64(size) / p.took[len(p.took)/2].Seconds()
}

func (p *phase) cpu(size int, d time.Duration) float64 {
	return float64(d.Microseconds()) / float64(size*len(p.took))
}

// ceiling is the bare group commit of a database.
type ceiling struct {
	conn *sql.Conn
	size int
	body string
	n    uint64
}

func newCeiling(b *testing.B, s *sqlstore.Store, size, bytes int) *ceiling {
	b.Helper()
	if err := s.Exec(b.Context(), "CREATE TABLE ceiling (n BIGINT UNSIGNED PRIMARY KEY, body MEDIUMBLOB NOT NULL)"); err != nil {
		b.Fatal(err)
	}
	return &ceiling{conn: bare(b, s), size: size, body: strings.Repeat("x", bytes/size)}
}

func (c *ceiling) commit(b *testing.B) {
	var q strings.Builder
	q.WriteString("BEGIN;INSERT INTO ceiling VALUES ")
	for i := range c.size {
		if i > 0 {
			q.WriteByte(',')
		}
		c.n++
		fmt.Fprintf(&q, "(%d,'%s')", c.n, c.body)
	}
	q.WriteString(";COMMIT")
	if _, err := c.conn.ExecContext(context.Background(), q.String()); err != nil {
		b.Fatal(err)
	}
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

// process is the number of a process of this machine; 0: the server is elsewhere.
type process int

// cpu is what the process has used: fields 14 and 15 of its stat, in hundredths of a second.
func (p process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return 0
	}
	var user, system int64
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	_, _ = fmt.Sscan(fields[11], &user)
	_, _ = fmt.Sscan(fields[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// processOf finds who listens at the address of a DSN.
func processOf(b *testing.B, dsn string) process {
	b.Helper()
	d, err := mysql.ParseDSN(dsn)
	if err != nil {
		b.Fatal(err)
	}
	port, _ := strconv.Atoi(d.Addr[strings.LastIndexByte(d.Addr, ':')+1:])
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, _ := os.ReadFile(file)
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
			for _, link := range links {
				if to, _ := os.Readlink(link); to == "socket:["+fields[9]+"]" {
					pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
					return process(pid)
				}
			}
		}
	}
	return 0
}
