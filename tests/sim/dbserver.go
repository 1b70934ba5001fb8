package sim

import (
	"context"

	"hongyan/das/store"
	"hongyan/das/store/shards"
	"hongyan/internal/control"
)

type controlValue = control.Value

// simDB is a connection to a database server that may be down.
type simDB struct{ server *dbServer }

var (
	_ shards.Database = simDB{}
	_ store.Movable   = simDB{}
)

func (d simDB) Commit(ctx context.Context, b *store.Batch) error {
	s, err := d.server.up()
	if err != nil {
		return err
	}
	return s.Commit(ctx, b)
}

func (d simDB) View(ctx context.Context) (store.View, error) {
	s, err := d.server.up()
	if err != nil {
		return nil, err
	}
	return s.View(ctx)
}

func (d simDB) Now(ctx context.Context) (int64, error) {
	s, err := d.server.up()
	if err != nil {
		return 0, err
	}
	return s.Now(ctx)
}

func (d simDB) Exclusive() bool { return false }
func (d simDB) Close() error    { return nil }

func (d simDB) Barrier(ctx context.Context) error {
	s, err := d.server.up()
	if err != nil {
		return err
	}
	return s.Barrier(ctx)
}

func (d simDB) Role(ctx context.Context) (store.Role, error) {
	s, err := d.server.up()
	if err != nil {
		return store.Role{}, err
	}
	return s.Role(ctx)
}

func (d simDB) SetBucket(ctx context.Context, id uint32, state store.BucketState) error {
	s, err := d.server.up()
	if err != nil {
		return err
	}
	return s.SetBucket(ctx, id, state)
}

func (d simDB) BucketConvs(ctx context.Context, b uint32, after store.Key, limit int) ([]store.ConvCopy, error) {
	s, err := d.server.up()
	if err != nil {
		return nil, err
	}
	return s.BucketConvs(ctx, b, after, limit)
}

func (d simDB) BucketUsers(ctx context.Context, b uint32, after store.Key, limit int) ([]store.UserCopy, error) {
	s, err := d.server.up()
	if err != nil {
		return nil, err
	}
	return s.BucketUsers(ctx, b, after, limit)
}

func (d simDB) BucketCount(ctx context.Context, b uint32) (store.BucketCount, error) {
	s, err := d.server.up()
	if err != nil {
		return store.BucketCount{}, err
	}
	return s.BucketCount(ctx, b)
}

func (d simDB) Load(ctx context.Context, b store.BucketFence, r *store.BucketRows) error {
	s, err := d.server.up()
	if err != nil {
		return err
	}
	return s.Load(ctx, b, r)
}

func (d simDB) Purge(ctx context.Context, b uint32, limit int) (bool, error) {
	s, err := d.server.up()
	if err != nil {
		return false, err
	}
	return s.Purge(ctx, b, limit)
}

// mortalDB is that of a mover that may die.
type mortalDB struct {
	simDB
	life *mortal
}

func (d mortalDB) SetBucket(ctx context.Context, id uint32, state store.BucketState) error {
	return d.life.write(func() error { return d.simDB.SetBucket(ctx, id, state) })
}

func (d mortalDB) Load(ctx context.Context, b store.BucketFence, r *store.BucketRows) error {
	return d.life.write(func() error { return d.simDB.Load(ctx, b, r) })
}

// placedStorage is the store of a das over several databases, each late and forgetful by itself.
type placedStorage struct {
	*storage
	placed *shards.Store
	parts  []store.Store
}

func (s *placedStorage) Databases() int             { return s.placed.Databases() }
func (s *placedStorage) Database(bucket uint32) int { return s.placed.Database(bucket) }
func (s *placedStorage) Part(db int) store.Store    { return s.parts[db] }

func (s *placedStorage) Replica(ctx context.Context, bucket uint32) (store.View, error) {
	return s.placed.Replica(ctx, bucket)
}
