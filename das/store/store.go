// Package store is what das asks of a database: one group of writes at a time, fenced
// by heads, and consistent reads. It knows no SQL and no engine; memory, Pebble and
// the SQL databases implement it and pass one suite, storetest.
//
// A conversation is a log of messages (seq); a user is a compacted log of his
// conversations (version). Both are dense. Every append moves the head of its log from
// the value the writer believes to the next, in the same commit as the rows: a writer
// that believed wrongly fails for that key alone (FenceError), re-reads and repeats.
package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"hongyan/idl/im"
)

// Key names a conversation or a user within a tenant. Neither part contains a zero byte
// or is longer than MaxID.
type Key struct{ Tenant, ID string }

// MaxID is the greatest length in bytes of a tenant, id, sender, client_msg_id, owner,
// class or device.
const MaxID = 255

// Buckets is how many logical buckets keys are hashed into, for all time.
const Buckets = 1024

// Store is one database. Its methods may be called from many goroutines.
//
// Nothing that a method returns may be lost by a crash: a read that would show rows of a
// commit still being flushed waits for that flush (R14); only what Batch declares as
// losable is exempt. After a failed flush the store is broken for good and every call
// answers ErrBroken.
type Store interface {
	// Commit applies the batch whole, flushed, or not at all, and keeps nothing of it. A
	// *FenceError names every key whose belief was wrong, ErrInvalid a batch that breaks the
	// rules of Batch; nothing was written then. Any other error is an unknown outcome: the
	// caller drops what it believes of the batch's keys. One that wraps ErrNotWritten says that
	// nothing was written and that another try may succeed.
	Commit(ctx context.Context, b *Batch) error

	// View gives reads one consistent snapshot; over several databases (Placed) one of each,
	// taken at its first read. It must be closed.
	View(ctx context.Context) (View, error)

	// Now is the store's clock in Unix milliseconds: ages of outbox rows and sessions are
	// measured by it, whatever the clocks of the processes say.
	Now(ctx context.Context) (int64, error)

	// Exclusive tells that no other process can write this database: its single writer
	// may assign heads of any log in one commit (the one-commit form).
	Exclusive() bool

	Close() error
}

// View reads one snapshot, from one goroutine at a time. Slices and messages it returns
// belong to the caller. A limit of 0 means all.
type View interface {
	// Bucket returns the epoch of a bucket and whether it may be written here.
	Bucket(id uint32) (BucketState, error)

	// Conv returns the head row of a conversation, zero when it has no entry yet.
	Conv(k Key) (ConvHead, error)
	// User returns the head row of a user, zero when he has no change yet.
	User(k Key) (UserHead, error)

	// Message returns one entry, or ErrNotFound.
	Message(conv Key, seq uint64) (*Message, error)
	// Range returns at most limit entries with from <= seq <= to, ascending. limit 0 = all.
	Range(conv Key, from, to uint64, limit int) ([]*Message, error)
	// Last returns at most limit entries with seq < before (0 = from the end), ascending.
	Last(conv Key, before uint64, limit int) ([]*Message, error)
	// Modified returns at most limit entries whose ModSeq > after, ascending by ModSeq.
	Modified(conv Key, after uint64, limit int) ([]*Message, error)
	// ByClientID returns the entry of a sender by its dedupe key, or ErrNotFound.
	ByClientID(conv Key, sender, clientMsgID string) (*Message, error)

	// Member returns one user's row of one conversation, or ErrNotFound.
	Member(user Key, conv string) (Member, error)
	// Changes returns at most limit of the user's rows with version > after, ascending by version.
	Changes(user Key, after uint64, limit int) ([]Member, error)
	// Members returns at most limit of the user's rows with version < before (0 = from the
	// end), descending by version.
	Members(user Key, before uint64, limit int) ([]Member, error)

	Devices(user Key) ([]Device, error)
	Sessions(user Key) ([]Session, error)

	// FanOutRows and DeliverRows return at most limit rows with key > after whose CreatedMS
	// is meant, in key order.
	FanOutRows(after RowKey, created Created, limit int) ([]FanOutRow, error)
	DeliverRows(after RowKey, created Created, limit int) ([]DeliverRow, error)

	// Pushes returns at most limit recorded offline pushes of a user, newest first.
	Pushes(user Key, limit int) ([]Push, error)

	Close()
}

// Batch is one group commit. Order within a slice does not matter unless said. A key
// stands at most once in a slice; Cursors and Woken may repeat theirs.
type Batch struct {
	// Buckets must be open at these epochs, or the commit fails for them (R17).
	Buckets []BucketFence

	// Convs and Users move head rows. From must be what the row holds (R01, R02). A ConvMove
	// comes with all entries From+1..To.Seq, at least one. A UserMove comes with member
	// rows whose versions differ and lie in (From, To], one at To; with To = From it is a
	// mere fence.
	Convs []ConvMove
	Users []UserMove

	// Messages are plain inserts, those of one conversation in ascending order. A seq that
	// exists fails the fence of its conversation; a (conv, sender, client_msg_id) that is
	// stored, or stands earlier in the batch, is named in FenceError.Duplicates (R03). An
	// empty client_msg_id is no key.
	Messages []*Message
	// Rewrites replace entries that exist or are inserted by this batch (recall, edit), under
	// the fence of their conversation. Sender and ClientMsgID stay.
	Rewrites []*Message

	// Members are upserts of whole rows, under the fence of their user. Version, LastSeq,
	// ReadSeq and PeerReadSeq are written as the greater of old and new, those of a higher
	// LastEpoch whatever they are (Member.Raise).
	Members []MemberRow

	// Outbox rows are plain inserts: one whose key exists, and is in no finished range of this
	// batch, fails the commit. Its number was taken by another writer, whose row must not go (R07).
	FanOut   []FanOutRow
	Deliver  []DeliverRow
	Sessions []SessionMove
	Pushes   []PushRow

	// What follows may be lost by a crash after the commit: losing it only repeats work. A
	// batch that holds nothing else need not be flushed. The ranges delete rows stored before
	// this batch, never its own.
	FanOutDone  []RowRange
	DeliverDone []RowRange
	Cursors     []DeviceRow // (Epoch, Cursor) is written as the greater of old and new
	Woken       []WokenMark // greater of old and new
}

// Lazy tells that the batch holds nothing that must survive a crash.
func (b *Batch) Lazy() bool {
	return len(b.Convs)+len(b.Users)+len(b.Messages)+len(b.Rewrites)+len(b.Members)+
		len(b.FanOut)+len(b.Deliver)+len(b.Sessions)+len(b.Pushes) == 0
}

// BucketState is a bucket's row. A bucket never written is {Epoch: 1, Open: true}.
type BucketState struct {
	Epoch uint64
	Open  bool
}

type BucketFence struct {
	ID    uint32
	Epoch uint64
}

// ConvHead is the head row of a conversation's log.
type ConvHead struct {
	Seq uint64 // of the last entry
	Ord uint64 // countable messages so far
	// Own counts each sender's countable messages in a personal log, for unread (R24). Who
	// has none may be absent.
	Own map[string]uint64
	// Flags holds who blocks whom in a p: conversation.
	Flags ConvFlags
}

// ConvFlags are the switches of a conversation; they change only by entries of its log (R28).
type ConvFlags uint32

const (
	LowBlocksHigh ConvFlags = 1 << iota // of p:low:high
	HighBlocksLow
)

type ConvMove struct {
	Key  Key
	From uint64 // the seq the writer believes is the head
	To   ConvHead
}

type UserHead struct {
	Version uint64
	Woken   uint64
}

type UserMove struct {
	Key      Key
	From, To uint64
}

// Message is one entry of a log with what only the server keeps.
type Message struct {
	Conv        Key
	Seq         uint64
	Sender      string
	ClientMsgID string
	BodyHash    uint64 // of the original kind, text, data, target: tells a retry from a conflict (R29)
	Kind        im.Kind
	Text        string
	Data        []byte
	CreatedMS   int64
	Ord         uint64 // countable messages of the log up to here
	OwnOrd      uint64 // countable messages of this sender up to here
	ModSeq      uint64
	Recalled    bool
	TargetSeq   uint64

	// MayRepeat is not stored: the writer could not rule out that this (conv, sender,
	// ClientMsgID) is stored already or stands earlier in the batch, so Commit must look it
	// up (R10). Without it a store that would pay a read may trust the writer.
	MayRepeat bool
}

// Member is one user's row of one conversation.
type Member struct {
	Conv        string
	Version     uint64
	LastEpoch   uint64 // of the conversation's bucket when LastSeq was its end: positions in the log are pairs (R18)
	BackEpoch   uint64 // in which the log last went back, to an older copy: read positions of earlier ones say nothing
	LastSeq     uint64
	LastOrd     uint64 // ord at LastSeq minus the user's own: unread = LastOrd - ReadOrd, never below 0
	ReadSeq     uint64
	ReadOrd     uint64
	PeerReadSeq uint64
	Blocked     bool
	Pinned      bool
	Muted       bool
	Hidden      bool
	Remark      string
	UpdatedMS   int64
}

// Unread is derived, never stored.
func (m *Member) Unread() uint64 {
	if m.LastOrd > m.ReadOrd {
		return m.LastOrd - m.ReadOrd
	}
	return 0
}

type MemberRow struct {
	User Key
	Member
}

// Device is one installation of a user.
type Device struct {
	ID        string
	Platform  string
	PushToken string
	Epoch     uint64
	Cursor    uint64
	SeenMS    int64
}

type DeviceRow struct {
	User Key
	Device
}

// Session is one slot of the multi-device policy. Epoch rises with every login of the user.
type Session struct {
	Class   string
	Slot    uint32
	Device  string // empty = free
	Epoch   uint64
	Counter uint64 // the device's connection counter (R27)
	Gateway string // boot id
	SeenMS  int64
}

// SessionMove writes a session row if the user's highest session epoch still is From, as
// of before the batch. A row's Epoch is written as the greater of old and new.
type SessionMove struct {
	User Key
	From uint64
	To   Session
}

type WokenMark struct {
	User    Key
	Version uint64
}

// RowKey orders outbox rows. N is dense per owner: rows of one owner are finished in ranges.
type RowKey struct {
	Owner string // boot id of a Logic
	N     uint64
}

// Created says which outbox rows are meant by when they were created: up to Before, and
// after Beyond; Beyond 0 = none of those. Rows dated by a clock that was ahead lie beyond: to
// wait until the clock has caught up would be to wait as long as it was ahead.
type Created struct{ Before, Beyond int64 }

// ClockSlack is how far ahead of the store's clock a row may be dated, in milliseconds,
// before it counts as overdue.
const ClockSlack = 60_000

// Anytime means rows of all times.
func Anytime() Created { return Created{Before: math.MaxInt64} }

// OverdueAt means rows that are older than an age, by the store's clock, or too far ahead of
// it to tell. All in milliseconds.
func OverdueAt(now, age int64) Created { return Created{Before: now - age, Beyond: now + ClockSlack} }

// Has tells whether a row created at ms is meant.
func (c Created) Has(ms int64) bool { return ms <= c.Before || c.Beyond > 0 && ms > c.Beyond }

// RowRange covers N in [From, To] of one owner (R07: only rows that the owner inserted and
// finished, or the single row another drove).
type RowRange struct {
	Owner    string
	From, To uint64
}

// Covered tells that a range holds the key of a row.
func Covered(k RowKey, by []RowRange) bool {
	return slices.ContainsFunc(by, func(r RowRange) bool { return r.Owner == k.Owner && r.From <= k.N && k.N <= r.To })
}

// FanOutRow says, for one commit and one owner, what is to be fanned out.
type FanOutRow struct {
	RowKey
	CreatedMS int64
	Entries   []FanOutEntry
}

// FanOutEntry is one conversation of a FanOutRow and who must learn of it.
type FanOutEntry struct {
	Conv    Key
	Epoch   uint64 // of the conversation's bucket, at the commit
	LastSeq uint64
	Members []FanOutMember
}

type FanOutMember struct {
	UID         string
	LastOrd     uint64
	PeerReadSeq uint64
	Blocked     bool
}

// DeliverRow says, for one commit and one owner, which (user, version) are to be delivered.
type DeliverRow struct {
	RowKey
	CreatedMS int64
	Entries   []DeliverEntry
}

type DeliverEntry struct {
	User    Key
	Version uint64
	Conv    string
	Seq     uint64
}

// Push is one offline push as recorded by the vendor that only records. The same device,
// conversation, seq and time is the same push.
type Push struct {
	Device, Platform, Conv string
	Seq                    uint64
	Title, Body, Collapse  string
	Badge                  uint64
	AtMS                   int64
}

type PushRow struct {
	User Key
	Push
}

var (
	ErrNotFound = errors.New("not found")
	// ErrBroken: a flush failed earlier; the process must end.
	ErrBroken = errors.New("store is broken by a failed flush")
	// ErrClosed: the store or the view was closed.
	ErrClosed = errors.New("store is closed")
	// ErrNotWritten: it is certain that nothing was written, and another try may succeed.
	ErrNotWritten = errors.New("nothing was written")
	// ErrInvalid: the batch breaks a rule of Batch. A programming error; nothing was written.
	ErrInvalid = errors.New("invalid batch")
)

// FenceError: nothing was written because these beliefs were wrong.
type FenceError struct {
	Buckets    []uint32
	Convs      []Key
	Users      []Key
	Sessions   []Key
	Duplicates []*Message // of the batch: their (conv, sender, client_msg_id) is stored already
	FanOut     []RowKey   // of outbox rows that are stored already
	Deliver    []RowKey
}

func (e *FenceError) Error() string {
	return fmt.Sprintf("fenced: %d buckets, %d conversations, %d users, %d sessions, %d duplicates, %d outbox rows",
		len(e.Buckets), len(e.Convs), len(e.Users), len(e.Sessions), len(e.Duplicates), len(e.FanOut)+len(e.Deliver))
}

// Empty tells that no belief was found wrong.
func (e *FenceError) Empty() bool {
	return len(e.Buckets)+len(e.Convs)+len(e.Users)+len(e.Sessions)+len(e.Duplicates)+
		len(e.FanOut)+len(e.Deliver) == 0
}
