package sqlstore

import (
	"context"
	"database/sql"

	"hongyan/das/store"
)

// Packets are what a commit of the batch sends.
func (s *Store) Packets(b *store.Batch) ([]string, error) {
	check, from := bucketCheck(b.Buckets, s.dialect.share)
	packets, err := s.scriptOf(b).finish(check, from, "")
	list := make([]string, len(packets))
	for i, p := range packets {
		list[i] = string(p)
	}
	return list, err
}

// Write makes a batch's SQL as Commit does, and returns its size.
func (s *Store) Write(b *store.Batch) (size int) {
	sc := s.scriptOf(b)
	defer s.recycle(sc)
	check, from := bucketCheck(b.Buckets, s.dialect.share)
	packets, err := sc.finish(check, from, "")
	if err != nil {
		panic(err)
	}
	for _, p := range packets {
		size += len(p)
	}
	return size
}

// SetPacketLimit makes a server's max_allowed_packet small.
func (s *Store) SetPacketLimit(bytes int) { s.packet = bytes }

// Exec runs SQL on a connection of the store's writers.
func (s *Store) Exec(ctx context.Context, q string) error {
	_, err := s.writes.ExecContext(ctx, q)
	return err
}

var (
	DecodeOwn     = decodeOwn
	DecodeFanOut  = decodeFanOut
	DecodeDeliver = decodeDeliver
	AppendOwn     = appendOwn
	AppendFanOut  = appendFanOut
	AppendDeliver = appendDeliver
)

// Quote is a string literal.
func Quote(s string) string { return string(quote(nil, s)) }

// Conn is a connection as commits have it.
func (s *Store) Conn(ctx context.Context) (*sql.Conn, error) { return s.writes.Conn(ctx) }
