package das

import (
	"fmt"
	"strconv"
	"time"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/tier"
	"hongyan/internal/route"
)

// business names a queue (ZZ-22): what fills one of them delays no other.
type business uint8

const (
	message business = iota
	fanout
	receipt
	session
	contact
	system
	businesses
)

func (b business) String() string {
	if b < businesses {
		return [businesses]string{"message", "fanout", "receipt", "session", "contact", "system"}[b]
	}
	return "business " + strconv.Itoa(int(b))
}

// item is one write on its way: queued, planned as often as its keys are fenced, settled once.
type item struct {
	req     *tier.Submit
	from    *caller
	arrived time.Duration // since the das was made
	size    int
	hash    uint64 // of the key that places it with a writer
	biz     business
	repeats int  // how often a fence hit it
	quiet   bool // nobody waits for an answer
	db      int  // finished rows: of which database

	held    time.Duration // since when its bucket is closed; 0 = it is not
	derived bool          // its answer comes from rows that this plan does not write (R19)

	new *entry // of an append
	out outcome
}

// outcome is what a plan decided for an item. It starts anew with each plan.
type outcome struct {
	code       code.Code
	message    string
	retryAfter time.Duration

	entry     *entry  // append: the log's entry, new or found
	duplicate bool    // append: entry was there before
	row       *member // whose version and row to tell
	tellRow   bool    // tell the row itself too
	epoch     uint64  // of the user of row
	moved     bool    // this item moved row
	held      bool    // no answer yet: its bucket is closed
	login     *tier.LoggedIn
	order     *tier.FanOutOrder // two-stage: what to fan out
	conv      string            // read, with an order: its conversation
}

// deny gives the item an answer that writes nothing.
func (it *item) deny(c code.Code, format string, a ...any) {
	it.out = outcome{code: c, message: fmt.Sprintf(format, a...)}
}

func (it *item) denyErr(err error) {
	e := code.From(err)
	it.out = outcome{code: e.Code, message: e.Message, retryAfter: e.RetryAfter}
}

// afterCommit tells that the item follows from something acknowledged: it is neither
// refused nor expired (law 2, R04).
func (it *item) afterCommit() bool {
	r := it.req
	return r.Fanout != nil || r.Woken != nil || r.Done != nil
}

// lazy tells that the item may wait for another commit to ride on.
func (it *item) lazy() bool { return it.req.Cursor != nil || it.req.Done != nil }

func (it *item) expired(now time.Duration) bool {
	return it.req.TtlMs > 0 && !it.afterCommit() && now-it.arrived > time.Duration(it.req.TtlMs)*time.Millisecond
}

// mayRepeat tells that an earlier try of the append may be stored, for all its caller
// knows (R10).
func (it *item) mayRepeat() bool { return it.req.Append.Attempt != 1 || it.req.Repeated }

// classify fills the queue and the placement of the item, or says what is wrong with it.
func (it *item) classify() error {
	r := it.req
	var key string
	switch {
	case r.Append != nil:
		it.biz, key = message, r.Append.Conv
		it.size = len(r.Append.Text) + len(r.Append.Data)
	case r.Fanout != nil:
		it.biz, key = fanout, r.Fanout.Uid
	case r.Read != nil:
		it.biz, key = receipt, r.Read.Uid
	case r.Settings != nil:
		it.biz, key = contact, r.Settings.Uid
	case r.Login != nil:
		it.biz, key = session, r.Login.Uid
	case r.Logout != nil:
		it.biz, key = session, r.Logout.Uid
	case r.Cursor != nil:
		it.biz, key = receipt, r.Cursor.Uid
	case r.Woken != nil:
		it.biz, key = receipt, r.Woken.Uid
	case r.Done != nil:
		it.biz, key = receipt, r.Done.Owner
	case r.Record != nil:
		it.biz, key = system, r.Record.Uid
		it.size = len(r.Record.Title) + len(r.Record.Body)
	}
	it.size += itemSize
	if n := writesOf(r); n != 1 {
		return code.Errorf(code.BadRequest, "a submit holds exactly one write, not %d", n)
	}
	if !(store.Key{Tenant: r.Tenant, ID: key}).Valid() {
		return code.Errorf(code.BadRequest, "tenant %.80q or key %.80q of a write", r.Tenant, key)
	}
	it.hash = route.Hash(r.Tenant, key)
	return nil
}

// itemSize is what an item costs in a queue beside its body, in bytes.
const itemSize = 256

func writesOf(r *tier.Submit) (n int) {
	for _, is := range [...]bool{
		r.Append != nil, r.Fanout != nil, r.Read != nil, r.Settings != nil, r.Login != nil,
		r.Logout != nil, r.Cursor != nil, r.Woken != nil, r.Done != nil, r.Record != nil,
	} {
		if is {
			n++
		}
	}
	return n
}

// touches tells whether a fence on one of the keys hits the item.
func (it *item) touches(f *fenced) bool {
	r := it.req
	switch {
	case r.Append != nil:
		return f.append(r.Tenant, r.Append.Conv)
	case r.Fanout != nil:
		return f.user(r.Tenant, r.Fanout.Uid)
	case r.Read != nil:
		return f.user(r.Tenant, r.Read.Uid) || f.members(r.Tenant, r.Read.Conv)
	case r.Settings != nil:
		return f.user(r.Tenant, r.Settings.Uid)
	case r.Login != nil:
		return f.session(r.Tenant, r.Login.Uid)
	case r.Logout != nil:
		return f.session(r.Tenant, r.Logout.Uid)
	case r.Cursor != nil:
		return f.session(r.Tenant, r.Cursor.Uid)
	case r.Woken != nil:
		return f.bucket(r.Tenant, r.Woken.Uid)
	case r.Record != nil:
		return f.bucket(r.Tenant, r.Record.Uid)
	}
	return false
}
