package store

import "context"

// Movable is a database that buckets can be moved out of and into. What a bucket holds is
// everything of the conversations and of the users whose Key.Bucket it is. Outbox rows belong
// to no bucket: they stay, are scanned in every database, and end there.
//
// The bucket's row fences (R17): rows are loaded and purged only while it is closed.
type Movable interface {
	Store
	Barrier

	// SetBucket writes a bucket's row: it waits for the commits that hold it, those that come
	// later see it. It returns when the row survives a failover.
	SetBucket(ctx context.Context, id uint32, state BucketState) error

	// BucketConvs returns at most limit head rows of a bucket's conversations with key > after,
	// by tenant, then id, as bytes.
	BucketConvs(ctx context.Context, bucket uint32, after Key, limit int) ([]ConvCopy, error)
	// BucketUsers is BucketConvs for the users: all that have any row. Of one without a head
	// row the head is zero.
	BucketUsers(ctx context.Context, bucket uint32, after Key, limit int) ([]UserCopy, error)
	// BucketCount counts the rows of a bucket.
	BucketCount(ctx context.Context, bucket uint32) (BucketCount, error)

	// Load writes rows of a bucket as they are, replacing those of the same key: heads move
	// without a fence, messages are upserts, the session fence of a user becomes the highest
	// epoch of his sessions. It is repeated until it succeeds, and returns when the rows
	// survive a failover. A *FenceError names the bucket unless it is closed here at this
	// epoch, as of the same transaction: nothing was written then.
	Load(ctx context.Context, bucket BucketFence, rows *BucketRows) error

	// Purge deletes about limit rows of a bucket and tells whether any are left. A *FenceError
	// names the bucket unless it is closed here. The bucket's own row stays.
	Purge(ctx context.Context, bucket uint32, limit int) (more bool, err error)
}

// ConvCopy is the head row of a conversation.
type ConvCopy struct {
	Key  Key
	Head ConvHead
}

// UserCopy is everything of a user that has no version: his head row, devices and sessions,
// each list by its key.
type UserCopy struct {
	Key      Key
	Head     UserHead
	Devices  []Device
	Sessions []Session
	Pushes   int // how many are recorded; not loaded
}

// BucketRows are rows of one bucket on their way to another database.
type BucketRows struct {
	Messages []*Message // with all that is stored of them, ModSeq and Recalled too
	Convs    []ConvCopy // head rows
	Members  []MemberRow
	Pushes   []PushRow
	Users    []UserCopy
}

// BucketCount counts the rows of a bucket.
type BucketCount struct {
	Convs, Messages, Users, Members, Devices, Sessions, Pushes int
}
