package pebblestore

import (
	"encoding/binary"

	"hongyan/das/store"
)

// Tables, by the first byte of a key. A tenant, id or sender within a key is preceded by
// its length in one byte, so no key of one tenant, conversation or user stands in a range
// of another.
//
//	m tenant conv seq           message              one a message
//	k tenant conv sender id     seq                  one a message: the dedupe key
//	u tenant uid conv           member               one a message and member
//	x tenant conv modseq seq    -                    entries that were rewritten (R25)
//	h tenant conv               flags, own counts    rare: what a head holds beyond its last message
//	w tenant uid                woken version
//	v tenant uid device         device
//	s tenant uid class 0 slot   session
//	p tenant uid ^ms seq conv device   push          newest first
//	f owner 0 n                 fan-out row
//	d owner 0 n                 delivery row
//	b id                        bucket state
//	z                           format of the database
//
// Numbers are big-endian, so that byte order is their order.
const (
	tableMessage  = 'm'
	tableDedupe   = 'k'
	tableMember   = 'u'
	tableModified = 'x'
	tableHead     = 'h'
	tableWoken    = 'w'
	tableDevice   = 'v'
	tableSession  = 's'
	tablePush     = 'p'
	tableFanOut   = 'f'
	tableDeliver  = 'd'
	tableBucket   = 'b'
	tableFormat   = 'z'
)

// appendShort appends s behind its length; store.ValidID has checked that it fits.
func appendShort(dst []byte, s string) []byte {
	return append(append(dst, byte(len(s))), s...)
}

// appendKey appends a table and a Key: the prefix of all rows of a conversation or user.
func appendKey(dst []byte, table byte, k store.Key) []byte {
	return appendShort(appendShort(append(dst, table), k.Tenant), k.ID)
}

func appendMessageKey(dst []byte, conv store.Key, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(appendKey(dst, tableMessage, conv), seq)
}

func appendModifiedKey(dst []byte, conv store.Key, modSeq, seq uint64) []byte {
	dst = binary.BigEndian.AppendUint64(appendKey(dst, tableModified, conv), modSeq)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// appendDedupeKey takes the id in the form that parseUUID gave it.
func appendDedupeKey(dst []byte, conv store.Key, sender string, id clientID) []byte {
	return id.appendTo(appendShort(appendKey(dst, tableDedupe, conv), sender))
}

func appendMemberKey(dst []byte, user store.Key, conv string) []byte {
	return append(appendKey(dst, tableMember, user), conv...)
}

func appendDeviceKey(dst []byte, user store.Key, device string) []byte {
	return append(appendKey(dst, tableDevice, user), device...)
}

func appendSessionKey(dst []byte, user store.Key, class string, slot uint32) []byte {
	dst = append(append(appendKey(dst, tableSession, user), class...), 0)
	return binary.BigEndian.AppendUint32(dst, slot)
}

func appendPushKey(dst []byte, user store.Key, p *store.Push) []byte {
	dst = binary.BigEndian.AppendUint64(appendKey(dst, tablePush, user), ^uint64(p.AtMS))
	dst = binary.BigEndian.AppendUint64(dst, p.Seq)
	return append(appendShort(dst, p.Conv), p.Device...)
}

func appendRowKey(dst []byte, table byte, k store.RowKey) []byte {
	dst = append(append(append(dst, table), k.Owner...), 0)
	return binary.BigEndian.AppendUint64(dst, k.N)
}

func appendBucketKey(dst []byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, tableBucket), id)
}

// bucketOf is the inverse of appendBucketKey.
func bucketOf(key []byte) (id uint32, ok bool) {
	if len(key) != 5 {
		return 0, false
	}
	id = binary.BigEndian.Uint32(key[1:])
	return id, id < store.Buckets
}

// appendEnd appends the first key behind all that begin with prefix. Prefixes begin with
// the letter of a table, so there is one.
func appendEnd(dst, prefix []byte) []byte {
	n := len(prefix)
	for prefix[n-1] == 0xff {
		n--
	}
	dst = append(dst, prefix[:n]...)
	dst[len(dst)-1]++
	return dst
}

// clientID is a client_msg_id as it is stored: a canonical UUID in 16 bytes, anything
// else as it is. The form is part of what is stored, so both read back as they were.
type clientID struct {
	uuid   [16]byte
	isUUID bool
	text   string
}

const (
	formText = 0
	formUUID = 1
)

func (id *clientID) appendTo(dst []byte) []byte {
	if id.isUUID {
		return append(append(dst, formUUID), id.uuid[:]...)
	}
	return append(append(dst, formText), id.text...)
}

// parseUUID recognises the canonical form only: lower case, hyphens at 8, 13, 18, 23.
func parseUUID(s string) (id clientID) {
	id.text = s
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id
	}
	at := 0
	for i := range id.uuid {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			at++
		}
		hi, lo := hexDigit[s[at]], hexDigit[s[at+1]]
		if hi|lo > 0xf {
			return id
		}
		id.uuid[i] = hi<<4 | lo
		at += 2
	}
	id.isUUID = true
	return id
}

// hexDigit is the value of a lower-case hexadecimal digit, 0xff for other bytes.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

// formatUUID is the canonical form of a UUID.
func formatUUID(u []byte) string {
	const digits = "0123456789abcdef"
	var s [36]byte
	at := 0
	for _, b := range u[:16] {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			s[at] = '-'
			at++
		}
		s[at], s[at+1] = digits[b>>4], digits[b&0xf]
		at += 2
	}
	return string(s[:])
}
