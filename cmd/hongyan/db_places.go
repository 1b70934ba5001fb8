package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"hongyan/das/store"
	"hongyan/das/store/shards"
	sqlstore "hongyan/das/store/sql"
)

// bucketsOf is which buckets a shard may write.
type bucketsOf struct {
	shard  string
	states [store.Buckets]store.BucketState
	empty  bool // nothing was ever written there
	// fresh: besides, every bucket still is as migrations made it: open. It says nothing about
	// places.
	fresh bool
}

// lookAtBuckets reads the bucket rows of a shard's primary.
func lookAtBuckets(ctx context.Context, shard string, primary sqlstore.Config) (b bucketsOf, err error) {
	b.shard = shard
	db, err := sql.Open("mysql", primary.DSN)
	if err != nil {
		return b, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id,epoch,open FROM bucket")
	if err != nil {
		return b, err
	}
	defer rows.Close()
	b.fresh = true
	for rows.Next() {
		var id uint32
		var state store.BucketState
		if err := rows.Scan(&id, &state.Epoch, &state.Open); err != nil {
			return b, err
		}
		b.states[id%store.Buckets] = state
		b.fresh = b.fresh && state == store.BucketState{Epoch: 1, Open: true}
	}
	if err := rows.Err(); err != nil {
		return b, err
	}
	err = db.QueryRowContext(ctx, "SELECT NOT EXISTS(SELECT 1 FROM conversation) AND NOT EXISTS(SELECT 1 FROM user_head)").Scan(&b.empty)
	b.fresh = b.fresh && b.empty
	return b, err
}

// placesNow is the map as the databases have it: they are the authority, whatever the control
// centre has lost (law 1). While nothing is in any of them, they get the buckets in equal
// pieces. version must be above that of every map there was: the seconds of the clock are.
func placesNow(found []bucketsOf, version uint64) (shards.Map, error) {
	var names []string
	var say []bucketsOf
	for _, b := range found {
		names = append(names, b.shard)
		if !b.fresh {
			say = append(say, b)
		}
	}
	if allEmpty(found) {
		return shards.Even(names...), nil
	}
	m := shards.Map{Version: version}
	var errs []error
	for id := range uint32(store.Buckets) {
		var owners []string
		for _, b := range say {
			if b.states[id].Open {
				owners = append(owners, b.shard)
			}
		}
		if len(owners) != 1 {
			errs = append(errs, fmt.Errorf("bucket %d is open in %d databases %v", id, len(owners), owners))
			continue
		}
		if n := len(m.Buckets); n > 0 && m.Buckets[n-1].Shard == owners[0] {
			m.Buckets[n-1].To = id
			continue
		}
		m.Buckets = append(m.Buckets, shards.Range{From: id, To: id, Shard: owners[0]})
	}
	if len(errs) > 0 {
		return shards.Map{}, fmt.Errorf("the databases do not say where every bucket is (not of %d; the first: %w): "+
			"each must be open in exactly one", len(errs), errs[0])
	}
	return m, nil
}

func allEmpty(found []bucketsOf) bool {
	return !slices.ContainsFunc(found, func(b bucketsOf) bool { return !b.empty })
}

// setBuckets opens, or closes, those buckets of a database that are not as the map says: in one
// commit, which waits for one replica once.
func setBuckets(ctx context.Context, primary sqlstore.Config, b *bucketsOf, m shards.Map, open bool) error {
	change, err := b.changes(m, open)
	if err != nil || len(change) == 0 {
		return err
	}
	st, err := sqlstore.Open(ctx, primary, sqlstore.Deps{})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.SetBuckets(ctx, change); err != nil {
		return err
	}
	for id, state := range change {
		b.states[id] = state
	}
	return nil
}

// changes are the rows to write so that the buckets which a map opens, or closes, are so.
func (b *bucketsOf) changes(m shards.Map, open bool) (map[uint32]store.BucketState, error) {
	change := map[uint32]store.BucketState{}
	for id := range uint32(store.Buckets) {
		state := b.states[id]
		if mine := m.Shard(id) == b.shard; mine != open || mine == state.Open {
			continue
		}
		if state.Epoch == 0 {
			return nil, fmt.Errorf("bucket %d has no row", id)
		}
		state.Open = open
		change[id] = state
	}
	return change, nil
}

// errScattered: without a control centre every das takes the buckets to be in equal pieces.
var errScattered = errors.New("the buckets are not in equal pieces over databases.shards, and without a control centre das cannot be told: " +
	"name etcd in control.endpoints; to use another database, list it there and move buckets to it (hongyan db move-buckets)")

// agrees tells an error where das could not be told of the map.
func agrees(m shards.Map, cfg *Config) error {
	if even := shards.Even(cfg.Databases.Names()...); !cfg.usesEtcd() && !slices.Equal(m.Buckets, even.Buckets) {
		return errScattered
	}
	return nil
}
