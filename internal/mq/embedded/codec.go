package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"hongyan/internal/mq"
	"hongyan/internal/mq/internal/engine"
)

// Keys. Names hold no zero byte; numbers are 8 bytes, big-endian, so keys sort by them.
//
//	f                     -> format, one byte
//	t topic               -> next number, kept when the log is empty
//	l topic 0 n           -> key length, key, payload
//	s topic 0 group       -> where a group stands
//	d topic 0 group 0 n   -> attempts, key length, key, payload
const (
	tableFormat = 'f'
	tableTopic  = 't'
	tableLog    = 'l'
	tableState  = 's'
	tableDead   = 'd'
)

// format of the directory; one with a higher number is refused.
const format = 1

var errCorrupt = errors.New("row is corrupt")

func topicKey(topic string) []byte { return append([]byte{tableTopic}, topic...) }

func logPrefix(topic string) []byte { return append(append([]byte{tableLog}, topic...), 0) }

func logKey(topic string, n uint64) []byte { return binary.BigEndian.AppendUint64(logPrefix(topic), n) }

func stateKey(topic, group string) []byte {
	return append(append(append([]byte{tableState}, topic...), 0), group...)
}

func deadPrefix(topic, group string) []byte {
	k := append(append(append([]byte{tableDead}, topic...), 0), group...)
	return append(k, 0)
}

func deadKey(topic, group string, n uint64) []byte {
	return binary.BigEndian.AppendUint64(deadPrefix(topic, group), n)
}

// after is the first key beyond all that start with prefix, whose last byte is below 255.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// number is the last 8 bytes of a key with this prefix.
func number(key, prefix []byte) (uint64, error) {
	if len(key) != len(prefix)+8 {
		return 0, fmt.Errorf("key %q: %w", key, errCorrupt)
	}
	return binary.BigEndian.Uint64(key[len(prefix):]), nil
}

// splitState returns topic and group of a state key.
func splitState(key []byte) (topic, group string, err error) {
	t, g, ok := bytes.Cut(key[1:], []byte{0})
	if !ok {
		return "", "", fmt.Errorf("key %q: %w", key, errCorrupt)
	}
	return string(t), string(g), nil
}

func appendEntry(b []byte, key string, payload []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	return append(b, payload...)
}

// decodeEntry returns copies.
func decodeEntry(b []byte) (key string, payload []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", nil, fmt.Errorf("message: %w", errCorrupt)
	}
	b = b[size:]
	return string(b[:n]), bytes.Clone(b[n:]), nil
}

func decodeDead(b []byte) (mq.Message, error) {
	attempts, size := binary.Uvarint(b)
	if size <= 0 {
		return mq.Message{}, fmt.Errorf("dead letter: %w", errCorrupt)
	}
	key, payload, err := decodeEntry(b[size:])
	return mq.Message{Key: key, Payload: payload, Attempt: int(attempts & 0xffff)}, err
}

// appendState encodes next, the number of pending messages, and for each the distance from
// the one before, its attempts and when it is due.
func appendState(b []byte, s engine.State) []byte {
	b = binary.AppendUvarint(b, s.Next)
	b = binary.AppendUvarint(b, uint64(len(s.Pending)))
	last := uint64(0)
	for _, p := range s.Pending {
		b = binary.AppendUvarint(b, p.N-last)
		b = binary.AppendUvarint(b, uint64(p.Attempt))
		b = binary.AppendVarint(b, p.DueMS)
		last = p.N
	}
	return b
}

func decodeState(b []byte) (engine.State, error) {
	r := reader{b: b}
	s := engine.State{Next: r.uvarint()}
	count := r.uvarint()
	if count > uint64(len(b)) { // a pending message takes three bytes at least
		return engine.State{}, fmt.Errorf("state: %w", errCorrupt)
	}
	last := uint64(0)
	for range count {
		step := r.uvarint()
		p := engine.Pending{N: last + step, Attempt: int(r.uvarint() & 0xffff), DueMS: r.varint()}
		if step == 0 || p.N < last || p.N >= s.Next {
			r.bad = true
		}
		if r.bad {
			break
		}
		s.Pending = append(s.Pending, p)
		last = p.N
	}
	if r.bad || len(r.b) > 0 {
		return engine.State{}, fmt.Errorf("state: %w", errCorrupt)
	}
	return s, nil
}

// reader reads numbers until one is malformed.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	return r.took(n, v)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	return int64(r.took(n, uint64(v)))
}

func (r *reader) took(n int, v uint64) uint64 {
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}
