package pebblestore

import (
	"encoding/binary"

	"hongyan/das/store"
	"hongyan/idl/im"
)

// valueV1 begins every value of the first encoding. A later encoding takes the next
// number; decoders then know both.
const valueV1 = 1

const (
	messageRecalled = 1 << iota
	messageUUID
	messageData
	messageMod
	messageTarget
)

// appendMessage encodes what is not in the key of a message:
//
//	version, flags, kind, created_ms, body_hash (8 bytes), ord, own_ord, [mod_seq],
//	[target_seq], sender, client_msg_id (16 bytes or text), [data], text
func appendMessage(dst []byte, m *store.Message, id *clientID) []byte {
	var flags byte
	if m.Recalled {
		flags |= messageRecalled
	}
	if id.isUUID {
		flags |= messageUUID
	}
	if len(m.Data) > 0 {
		flags |= messageData
	}
	if m.ModSeq != 0 {
		flags |= messageMod
	}
	if m.TargetSeq != 0 {
		flags |= messageTarget
	}
	dst = append(dst, valueV1, flags)
	dst = binary.AppendUvarint(dst, uint64(uint32(m.Kind)))
	dst = binary.AppendUvarint(dst, uint64(m.CreatedMS))
	dst = binary.LittleEndian.AppendUint64(dst, m.BodyHash)
	dst = binary.AppendUvarint(dst, m.Ord)
	dst = binary.AppendUvarint(dst, m.OwnOrd)
	if m.ModSeq != 0 {
		dst = binary.AppendUvarint(dst, m.ModSeq)
	}
	if m.TargetSeq != 0 {
		dst = binary.AppendUvarint(dst, m.TargetSeq)
	}
	dst = appendText(dst, m.Sender)
	if id.isUUID {
		dst = append(dst, id.uuid[:]...)
	} else {
		dst = appendText(dst, id.text)
	}
	if len(m.Data) > 0 {
		dst = appendBytes(dst, m.Data)
	}
	return appendText(dst, m.Text)
}

// decodeMessage is the inverse of appendMessage; conv and seq come from the key.
func decodeMessage(val []byte, conv store.Key, seq uint64) (*store.Message, error) {
	r := newReader(val, valueV1)
	flags := r.byte()
	m := &store.Message{
		Conv: conv, Seq: seq, Recalled: flags&messageRecalled != 0,
		Kind:      im.Kind(uint32(r.uvarint())),
		CreatedMS: int64(r.uvarint()),
		BodyHash:  r.fixed64(),
		Ord:       r.uvarint(),
		OwnOrd:    r.uvarint(),
	}
	if flags&messageMod != 0 {
		m.ModSeq = r.uvarint()
	}
	if flags&messageTarget != 0 {
		m.TargetSeq = r.uvarint()
	}
	m.Sender = r.text()
	switch {
	case flags&messageUUID == 0:
		m.ClientMsgID = r.text()
	case len(r.b) < 16:
		r.fail()
	default:
		m.ClientMsgID = formatUUID(r.b)
		r.skip(16)
	}
	if flags&messageData != 0 {
		m.Data = r.bytes()
	}
	m.Text = r.text()
	return m, r.end()
}

// appendSeq and decodeSeq are the value of a dedupe key and of a woken mark: one number.
func appendSeq(dst []byte, n uint64) []byte {
	return binary.AppendUvarint(append(dst, valueV1), n)
}

func decodeSeq(val []byte) (uint64, error) {
	r := newReader(val, valueV1)
	n := r.uvarint()
	return n, r.end()
}

const (
	memberBlocked = 1 << iota
	memberPinned
	memberMuted
	memberHidden
	memberRemark
)

// appendMember encodes a row; its conversation is in the key. The version comes first, for
// memberVersion.
//
//	version byte, version, flags, last_epoch, back_epoch, last_seq, last_ord, read_seq, read_ord,
//	peer_read_seq, updated_ms, [remark]
func appendMember(dst []byte, m *store.Member) []byte {
	var flags byte
	for _, f := range [...]struct {
		on  bool
		bit byte
	}{
		{m.Blocked, memberBlocked}, {m.Pinned, memberPinned}, {m.Muted, memberMuted},
		{m.Hidden, memberHidden}, {m.Remark != "", memberRemark},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	dst = binary.AppendUvarint(append(dst, valueV1), m.Version)
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, m.LastEpoch)
	dst = binary.AppendUvarint(dst, m.BackEpoch)
	dst = binary.AppendUvarint(dst, m.LastSeq)
	dst = binary.AppendUvarint(dst, m.LastOrd)
	dst = binary.AppendUvarint(dst, m.ReadSeq)
	dst = binary.AppendUvarint(dst, m.ReadOrd)
	dst = binary.AppendUvarint(dst, m.PeerReadSeq)
	dst = binary.AppendUvarint(dst, uint64(m.UpdatedMS))
	if m.Remark != "" {
		dst = appendText(dst, m.Remark)
	}
	return dst
}

func decodeMember(val []byte, conv string) (store.Member, error) {
	r := newReader(val, valueV1)
	m := store.Member{Conv: conv, Version: r.uvarint()}
	flags := r.byte()
	m.LastEpoch, m.BackEpoch = r.uvarint(), r.uvarint()
	m.LastSeq, m.LastOrd = r.uvarint(), r.uvarint()
	m.ReadSeq, m.ReadOrd = r.uvarint(), r.uvarint()
	m.PeerReadSeq = r.uvarint()
	m.UpdatedMS = int64(r.uvarint())
	m.Blocked, m.Pinned = flags&memberBlocked != 0, flags&memberPinned != 0
	m.Muted, m.Hidden = flags&memberMuted != 0, flags&memberHidden != 0
	if flags&memberRemark != 0 {
		m.Remark = r.text()
	}
	return m, r.end()
}

// memberVersion reads the version of an encoded row and nothing else of it: a scan of a
// user's rows decodes only those it wants.
func memberVersion(val []byte) (uint64, error) {
	if len(val) == 0 || val[0] != valueV1 {
		return 0, errCorrupt
	}
	n, size := binary.Uvarint(val[1:])
	if size <= 0 {
		return 0, errCorrupt
	}
	return n, nil
}

// appendHead encodes what a head holds beyond its last message: flags, and the counts of
// senders where the last message cannot tell them.
func appendHead(dst []byte, flags store.ConvFlags, own map[string]uint64) []byte {
	dst = binary.AppendUvarint(append(dst, valueV1), uint64(flags))
	dst = binary.AppendUvarint(dst, uint64(len(own)))
	for sender, n := range own {
		dst = binary.AppendUvarint(appendText(dst, sender), n)
	}
	return dst
}

func decodeHead(val []byte) (flags store.ConvFlags, own map[string]uint64, err error) {
	r := newReader(val, valueV1)
	flags = store.ConvFlags(r.uvarint())
	if n := r.count(); n > 0 {
		own = make(map[string]uint64, n)
		for range n {
			sender := r.text()
			own[sender] = r.uvarint()
		}
	}
	return flags, own, r.end()
}

func appendBucket(dst []byte, b store.BucketState) []byte {
	open := byte(0)
	if b.Open {
		open = 1
	}
	return append(binary.AppendUvarint(append(dst, valueV1), b.Epoch), open)
}

func decodeBucket(val []byte) (store.BucketState, error) {
	r := newReader(val, valueV1)
	b := store.BucketState{Epoch: r.uvarint()}
	b.Open = r.byte() == 1
	return b, r.end()
}
