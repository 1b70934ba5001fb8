package das

import (
	"strings"
	"sync"
	"time"

	"hongyan/das/store"
	"hongyan/idl/tier"
)

// Outbox rows of one owner are numbered densely by each das. In the store the number also
// holds the das's slot, so that several das number rows of one owner in one database, and
// starts anew above all earlier lives of the das: a number is never used twice.
//
//	12 bits slot | 42 bits milliseconds since 2000 at which the life began, << 10 | + count
const (
	slotShift = 52
	lifeShift = 10
	maxSlot   = 1 << (64 - slotShift)
)

// lifeGap is how far above the highest row of an earlier life the next one begins, when the
// clock went back: those between were finished and deleted, and a late word that they are
// must not hit rows of this life (R07).
const lifeGap = 1 << 20

// lifeZero is 2000-01-01 in Unix milliseconds, where the clock of a synctest bubble begins.
const lifeZero = 946684800000

func storedN(shard uint32, n uint64) uint64 { return uint64(shard)<<slotShift | n }

// toldN splits a stored number into shard and n.
func toldN(stored uint64) (shard uint32, n uint64) {
	return uint32(stored >> slotShift), stored & (1<<slotShift - 1)
}

// outbox hands out the numbers of outbox rows. Writers share it.
type outbox struct {
	shard uint32
	first uint64

	mu   sync.Mutex
	next map[outboxKey]uint64
}

type outboxKey struct {
	kind  tier.Outbox
	owner string
}

func newOutbox(slot int, began time.Time) *outbox {
	return &outbox{
		shard: uint32(slot), next: make(map[outboxKey]uint64),
		first: uint64(max(began.UnixMilli()-lifeZero, 0))<<lifeShift + 1,
	}
}

// seen tells whether rows of the owner were numbered in this life of the das. If not, rows
// that stand above its first number (the clock went back) must be skipped by start.
func (o *outbox) seen(kind tier.Outbox, owner string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next[outboxKey{kind, owner}] != 0
}

// start makes the numbers of an owner begin well above a stored one, 0 for none.
func (o *outbox) start(kind tier.Outbox, owner string, stored uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, first := outboxKey{kind, strings.Clone(owner)}, o.first
	if _, n := toldN(stored); stored != 0 {
		first = max(first, n+lifeGap)
	}
	o.next[k] = max(o.next[k], first)
}

// take returns the next number of an owner, as stored.
func (o *outbox) take(kind tier.Outbox, owner string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := outboxKey{kind, owner}
	n := o.next[k]
	o.next[k] = n + 1
	return storedN(o.shard, n)
}

// skip leaves the numbers of an owner that follow to another das with this one's slot, which
// has come to them before. There should be none: its rows are safe all the same.
func (o *outbox) skip(kind tier.Outbox, owner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next[outboxKey{kind, strings.Clone(owner)}] += lifeGap
}

// giveBack returns a number that no row was tried with, so that numbers stay dense.
func (o *outbox) giveBack(kind tier.Outbox, owner string, stored uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := outboxKey{kind, owner}
	if _, n := toldN(stored); o.next[k] == n+1 {
		o.next[k] = n
	}
}

// ownerTx is what the batch being planned writes for one owner.
type ownerTx struct {
	boot    string
	deliver []store.DeliverEntry
	fanOut  []store.FanOutEntry
	// numbers as stored; 0 = no row
	deliverN, fanOutN uint64
}
