package bench

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// payload is what a message carries in data: pair, number from 1, the intended time of
// sending, a checksum of it all.
type payload struct {
	pair   uint32
	number uint64
	at     time.Duration // since the start of the run
}

// payloadMin is the smallest size, in bytes; more is filled up.
const payloadMin = 24

func (p payload) append(dst []byte, size int) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, p.pair)
	dst = binary.BigEndian.AppendUint64(dst, p.number)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.at))
	for len(dst)-start < size-4 {
		dst = append(dst, byte(len(dst)-start)) // the same wherever it stands: a retry must not differ
	}
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:]))
}

// parsePayload reads what append wrote; false where the content is damaged.
func parsePayload(b []byte) (payload, bool) {
	if len(b) < payloadMin {
		return payload{}, false
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return payload{}, false
	}
	return payload{
		pair: binary.BigEndian.Uint32(body), number: binary.BigEndian.Uint64(body[4:]),
		at: time.Duration(binary.BigEndian.Uint64(body[12:])),
	}, true
}
