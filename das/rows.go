package das

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"hongyan/das/store"
	"hongyan/idl/code"
	"hongyan/idl/im"
	"hongyan/idl/tier"
	"hongyan/internal/conv"
)

// readError turns what went wrong in a read into what its caller may see, and logs what
// he may not.
func (d *Das) readError(name string, err error) error {
	if e, ok := errors.AsType[*code.Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return code.From(err)
	}
	d.log.Error("read failed", "read", name, slog.Any("error", err))
	return code.Errorf(code.Unavailable, "the store could not be read")
}

// epochOf is the epoch of a user's or conversation's bucket. A bucket that is closed here
// is read elsewhere.
func epochOf(v store.View, k store.Key) (uint64, error) {
	b, err := v.Bucket(bucketOf(k))
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the bucket of %q: %w", k.ID, err)
	case !b.Open:
		return 0, errClosed
	}
	return b.Epoch, nil
}

// userKey checks who asks.
func userKey(tenant, uid string) (store.Key, error) {
	k := store.Key{Tenant: tenant, ID: uid}
	if !k.Valid() {
		return k, code.Errorf(code.BadRequest, "tenant %.80q or uid %.80q", tenant, uid)
	}
	return k, nil
}

// convKey checks that a user asks about a conversation of his. Nobody learns whether
// another's exists.
func convKey(tenant, uid, convID string) (store.Key, conv.ID, error) {
	if _, err := userKey(tenant, uid); err != nil {
		return store.Key{}, conv.ID{}, err
	}
	id, err := conv.Parse(convID)
	if err != nil {
		return store.Key{}, conv.ID{}, err
	}
	if !id.Has(uid) {
		return store.Key{}, conv.ID{}, notMember(convID)
	}
	return store.Key{Tenant: tenant, ID: convID}, id, nil
}

// fillRow is a member's row as clients see it.
func fillRow(to *im.Conversation, m *store.Member, id conv.ID, uid string) {
	*to = im.Conversation{
		Conv: m.Conv, Version: m.Version, LastSeq: m.LastSeq, ReadSeq: m.ReadSeq,
		PeerReadSeq: m.PeerReadSeq, Unread: m.Unread(), Peer: id.Peer(uid), Pinned: m.Pinned,
		Muted: m.Muted, Hidden: m.Hidden, Remark: m.Remark, Blocked: m.Blocked, UpdatedMs: m.UpdatedMS,
	}
}

// rowOf is fillRow for a row as read.
func rowOf(m *store.Member, uid string) (*im.Conversation, error) {
	id, err := conv.Parse(m.Conv)
	if err != nil {
		return nil, fmt.Errorf("stored row of %q: %w", uid, err)
	}
	row := new(im.Conversation)
	fillRow(row, m, id, uid)
	return row, nil
}

// budget is how many bytes of messages an answer may still take.
type budget int

// budgets parts the size of an answer between messages and modifications: neither may
// starve the other.
func budgets(maxAnswer int) (messages, modifications budget) {
	return budget(maxAnswer - maxAnswer/4), budget(maxAnswer / 4)
}

// messageSize is what a message takes beside its body, in bytes, about.
const messageSize = 200

// take tells whether a message still fits. The first one always does.
func (b *budget) take(m *store.Message) bool {
	fits := *b > 0
	*b -= budget(len(m.Text) + len(m.Data) + messageSize)
	return fits
}

// oldest are the first of a list, as many as fit.
func (b *budget) oldest(list []*store.Message) []*store.Message {
	for i, m := range list {
		if !b.take(m) {
			return list[:i]
		}
	}
	return list
}

// newest are the last of a list, as many as fit.
func (b *budget) newest(list []*store.Message) []*store.Message {
	for i, m := range slices.Backward(list) {
		if !b.take(m) {
			return list[i+1:]
		}
	}
	return list
}

func messagesOf(list []*store.Message) []*im.Message {
	if len(list) == 0 {
		return nil
	}
	told := make([]*im.Message, len(list))
	for i, m := range list {
		told[i] = new(im.Message)
		fillMessage(told[i], m)
	}
	return told
}

// clamp is a limit that was asked for: 0 is the default.
func clamp(asked, byDefault, most uint32) int {
	if asked == 0 {
		asked = byDefault
	}
	return int(min(asked, most))
}

// readPoint resolves a read position on a log; beyond its end, at its end (R24).
func readPoint(v store.View, key store.Key, id conv.ID, uid string, seq uint64) (*tier.ReadPointReply, error) {
	epoch, err := epochOf(v, key)
	if err != nil {
		return nil, err
	}
	head, err := v.Conv(key)
	if err != nil {
		return nil, fmt.Errorf("read the head of %q: %w", key.ID, err)
	}
	if head.Seq == 0 {
		return nil, notMember(key.ID)
	}
	r := &tier.ReadPointReply{
		Seq: head.Seq, Ord: head.Ord, Own: head.Own[uid],
		HeadSeq: head.Seq, HeadOrd: head.Ord, HeadOwn: head.Own[uid], Epoch: epoch,
	}
	if seq >= head.Seq {
		return r, nil
	}
	r.Seq, r.Ord, r.Own = seq, 0, 0
	if seq == 0 {
		return r, nil
	}
	m, err := v.Message(key, seq)
	if err != nil {
		return nil, fmt.Errorf("read entry %q/%d: %w", key.ID, seq, err)
	}
	sender, side := 0, 0
	if m.Sender == id.B {
		sender = 1
	}
	if uid == id.B {
		side = 1
	}
	at := positionOf(id.Kind, seq, m.Ord, m.OwnOrd, sender)
	r.Ord, r.Own = at.ord, at.own[side]
	return r, nil
}
