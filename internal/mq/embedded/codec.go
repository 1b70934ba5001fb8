package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hongyan/internal/mq/internal/engine"
)

// Keys. Names hold no zero byte; numbers are 8 bytes, big-endian, so keys sort by them.
//
//	f                     -> format, one byte
//	t topic               -> next number, kept when the log is empty
//	l topic 0 n           -> an entry: key length, key, payload
//	s topic 0 group       -> where a group stands
//	d topic 0 group 0 n   -> 0, attempts, Unix milliseconds, error length, error, entry;
//	                         before format 2: attempts, entry
//
// The key length of an entry for one group only has forOne set, and the name's length, the
// name follow it.
const (
	tableFormat = 'f'
	tableTopic  = 't'
	tableLog    = 'l'
	tableState  = 's'
	tableDead   = 'd'
)

// format of the directory; one with a higher number is refused.
const format = 2

// forOne marks the key length of an entry that only one group handles; above mq.MaxKey.
const forOne = 1 << 16

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

func appendEntry(b []byte, e engine.Entry) []byte {
	if e.Group == "" {
		b = binary.AppendUvarint(b, uint64(len(e.Key)))
	} else {
		b = binary.AppendUvarint(b, uint64(len(e.Key))|forOne)
		b = binary.AppendUvarint(b, uint64(len(e.Group)))
		b = append(b, e.Group...)
	}
	b = append(b, e.Key...)
	return append(b, e.Payload...)
}

// decodeEntry returns copies.
func decodeEntry(b []byte) (e engine.Entry, err error) {
	r := reader{b: b}
	n := r.uvarint()
	if n&forOne != 0 {
		e.Group = string(r.bytes(r.uvarint()))
	}
	e.Key = string(r.bytes(n &^ forOne))
	if r.bad {
		return engine.Entry{}, fmt.Errorf("message: %w", errCorrupt)
	}
	e.Payload = bytes.Clone(r.b)
	return e, nil
}

func appendLetter(b []byte, l engine.Letter) []byte {
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(l.Attempts))
	b = binary.AppendVarint(b, l.At.UnixMilli())
	b = binary.AppendUvarint(b, uint64(len(l.Error)))
	b = append(b, l.Error...)
	l.Group = ""
	return appendEntry(b, l.Entry)
}

func decodeLetter(b []byte) (l engine.Letter, err error) {
	r := reader{b: b}
	l.Attempts = int(r.uvarint() & 0xffff)
	if l.Attempts == 0 { // format 2
		l.Attempts = int(r.uvarint() & 0xffff)
		l.At = time.UnixMilli(r.varint())
		l.Error = string(r.bytes(r.uvarint()))
	}
	if r.bad {
		return engine.Letter{}, fmt.Errorf("dead letter: %w", errCorrupt)
	}
	l.Entry, err = decodeEntry(r.b)
	return l, err
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

// bytes aliases the next n.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
