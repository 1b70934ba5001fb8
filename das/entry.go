package das

import (
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"

	"hongyan/das/store"
	"hongyan/idl/im"
	"hongyan/idl/tier"
)

// entry is one entry of a log on its way to the store and back to its caller: all that is
// allocated for an append, in one piece.
type entry struct {
	stored store.Message
	key    uint64 // hash of sender and client_msg_id
	side   int    // of the sender

	message  im.Message // as it is told
	appended tier.Appended
	settled  tier.Settled
}

func (e *entry) trace(now time.Duration) trace {
	return trace{ord: e.stored.Ord, ownOrd: e.stored.OwnOrd, at: now, side: int8(e.side)}
}

// tell returns the entry as clients see it.
func (e *entry) tell() *im.Message {
	fillMessage(&e.message, &e.stored)
	return &e.message
}

func fillMessage(to *im.Message, m *store.Message) {
	*to = im.Message{
		Conv: m.Conv.ID, Seq: m.Seq, Sender: m.Sender, ClientMsgId: m.ClientMsgID, Kind: m.Kind,
		Text: m.Text, Data: m.Data, CreatedMs: m.CreatedMS, ModSeq: m.ModSeq, Recalled: m.Recalled,
		TargetSeq: m.TargetSeq, Ord: m.Ord,
	}
}

// keyHash is the hash of a dedupe key within its conversation. It only says where to look.
func keyHash(sender, clientMsgID string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(sender) // a Digest never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(clientMsgID)
	return d.Sum64()
}

// bodyHash tells a retry from another message under the same key (R29). It is stored: its
// input must never change.
func bodyHash(a *tier.Append) uint64 {
	var d xxhash.Digest
	d.Reset()
	var head [24]byte
	binary.LittleEndian.PutUint64(head[0:], uint64(kindOf(a)))
	binary.LittleEndian.PutUint64(head[8:], a.TargetSeq)
	binary.LittleEndian.PutUint64(head[16:], uint64(len(a.Text)))
	_, _ = d.Write(head[:])
	_, _ = d.WriteString(a.Text)
	_, _ = d.Write(a.Data)
	return d.Sum64()
}

// kindOf is the kind of an append; unspecified is text.
func kindOf(a *tier.Append) im.Kind {
	if a.Kind == im.Kind_UNSPECIFIED {
		return im.Kind_TEXT
	}
	return a.Kind
}

// firstEvent is the lowest kind that nobody counts.
const firstEvent = im.Kind_EVENT_RECALL

func countable(k im.Kind) bool { return k < firstEvent }
