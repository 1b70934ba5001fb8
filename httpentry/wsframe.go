package httpentry

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"hongyan/idl/code"
)

// assembler turns the bytes of a WebSocket client into messages. It is pure, holds no more
// than one message, and holds nothing between messages.
type assembler struct {
	limit func() int // bytes of the next message's payload

	partial []byte // the beginning of a frame
	message []byte // unmasked payload of a fragmented message so far
	opcode  ws.OpCode
	inside  bool // of a fragmented message
}

// wsError ends the connection with a close code of RFC 6455.
type wsError struct {
	status ws.StatusCode
	reason string
}

func (e *wsError) Error() string { return e.reason }

// feed takes the next bytes, which it changes, and calls emit for every message and every
// control frame in them: op is text, binary, close, ping or pong. payload is good until emit
// returns. An error of emit ends feed and is returned. Of its own feed returns *wsError, or
// CloseTooLarge.
func (a *assembler) feed(p []byte, emit func(op ws.OpCode, payload []byte) error) error {
	if len(a.partial) > 0 {
		a.partial = append(a.partial, p...)
		p = a.partial
	}
	for len(p) > 0 {
		h, size, err := a.header(p)
		if err != nil {
			return err
		}
		if size == 0 || len(p)-size < int(h.Length) {
			// It grows as bytes come, not as a header announces them.
			a.partial = append(a.partial[:0], p...)
			return nil
		}
		payload := p[size : size+int(h.Length)]
		p = p[size+int(h.Length):]
		ws.Cipher(payload, h.Mask, 0)
		if err := a.take(h, payload, emit); err != nil {
			return err
		}
	}
	a.partial = nil
	return nil
}

// waiting tells that a message has begun and is not complete.
func (a *assembler) waiting() bool { return a.inside || len(a.partial) > 0 }

// header reads a frame's header and checks it, as soon as its first bytes are there. size is
// 0 while it is not complete.
func (a *assembler) header(p []byte) (h ws.Header, size int, err error) {
	if len(p) < 2 {
		return h, 0, nil
	}
	h = ws.Header{
		Fin: p[0]&0x80 != 0, Rsv: p[0] & 0x70 >> 4, OpCode: ws.OpCode(p[0] & 0x0f),
		Masked: p[1]&0x80 != 0, Length: int64(p[1] & 0x7f),
	}
	size = 2
	switch {
	case h.Length == 126:
		size = 4
	case h.Length == 127:
		size = 10
	}
	if len(p) >= size {
		switch size {
		case 4:
			h.Length = int64(binary.BigEndian.Uint16(p[2:]))
		case 10:
			h.Length = int64(binary.BigEndian.Uint64(p[2:]))
		}
		err = a.check(h)
	}
	if err != nil || len(p) < size+len(h.Mask) {
		h.Length = 0 // not known yet, or not to be trusted
		return h, 0, err
	}
	copy(h.Mask[:], p[size:])
	return h, size + len(h.Mask), nil
}

// check holds a frame against RFC 6455 and the limit, before its payload is waited for.
func (a *assembler) check(h ws.Header) error {
	state := ws.StateServerSide
	if a.inside {
		state |= ws.StateFragmented
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return &wsError{ws.StatusProtocolError, err.Error()}
	}
	limit := a.limit()
	if h.Length < 0 || h.Length > int64(limit) || (h.OpCode.IsData() && int64(len(a.message))+h.Length > int64(limit)) {
		return code.Errorf(code.CloseTooLarge, "a message is over %d bytes", limit)
	}
	return nil
}

// take handles one whole frame.
func (a *assembler) take(h ws.Header, payload []byte, emit func(ws.OpCode, []byte) error) error {
	switch {
	case h.OpCode.IsControl():
		return emit(h.OpCode, payload)
	case !h.Fin:
		if !a.inside {
			a.opcode, a.inside = h.OpCode, true
		}
		a.message = append(a.message, payload...)
		return nil
	case a.inside:
		op, whole := a.opcode, append(a.message, payload...)
		a.message, a.inside = nil, false
		return deliver(op, whole, emit)
	}
	return deliver(h.OpCode, payload, emit)
}

func deliver(op ws.OpCode, payload []byte, emit func(ws.OpCode, []byte) error) error {
	if op == ws.OpText && !utf8.Valid(payload) {
		return &wsError{ws.StatusInvalidFramePayloadData, "a text message is not UTF-8"}
	}
	return emit(op, payload)
}

// appendFrameHeader appends the header of an unfragmented, unmasked frame.
func appendFrameHeader(dst []byte, op ws.OpCode, length int) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case length < 126:
		return append(dst, byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(length))
}

// maxCloseReason of a close frame, bytes: what a control frame holds beside the code.
const maxCloseReason = ws.MaxControlFramePayloadSize - 2

// appendClose appends a close frame. The reason is cut at a whole character.
func appendClose(dst []byte, status uint16, reason string) []byte {
	for len(reason) > maxCloseReason || !utf8.ValidString(reason) {
		reason = reason[:min(len(reason)-1, maxCloseReason)]
	}
	dst = appendFrameHeader(dst, ws.OpClose, 2+len(reason))
	return append(binary.BigEndian.AppendUint16(dst, status), reason...)
}

// closeStatus is what a close frame of the client says: 1000 for an empty one.
func closeStatus(payload []byte) (ws.StatusCode, error) {
	if len(payload) == 0 {
		return ws.StatusNormalClosure, nil
	}
	if len(payload) == 1 {
		return 0, &wsError{ws.StatusProtocolError, "a close frame of one byte"}
	}
	status := ws.StatusCode(binary.BigEndian.Uint16(payload))
	if err := ws.CheckCloseFrameData(status, string(payload[2:])); err != nil || status > 4999 {
		return 0, &wsError{ws.StatusProtocolError, "a close frame with a code that is not allowed"}
	}
	return status, nil
}
