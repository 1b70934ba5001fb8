// Package wire is the codec of the client protocol: frames as bytes (TCP, WebSocket
// binary), frames as JSON text (WebSocket text), and bodies between protobuf and JSON. It
// is pure: no I/O, no clock, no state. docs/protocol.md tells what the frames mean.
package wire

import (
	"encoding/binary"
	"errors"

	"hongyan/idl/code"
	"hongyan/idl/im"
)

// The header, big-endian:
//
//	 0 u8  magic 0xA7
//	 1 u8  version << 4 | header length / 4
//	 2 u8  flags
//	 3 u8  codec
//	 4 u16 cmd
//	 6 u16 status
//	 8 u32 seq
//	12 u32 body length
//	16 ... what a newer peer added; skipped
const (
	HeaderLen = 16 // bytes, in version 1
	Magic     = 0xA7
	Version   = 1
)

// Flags of a frame. Bits that are not known here are ignored.
type Flags uint8

const (
	FlagCompressed Flags = 1 << iota // refused for now
	FlagEncrypted                    // refused: an encrypted stream is unwrapped before it gets here
	FlagResponse                     // seq and cmd are those of the request
	FlagOneWay                       // no response is expected
	FlagCritical                     // who does not know cmd answers an error instead of ignoring it
)

// Codec of a body.
type Codec uint8

const (
	CodecProto Codec = 0
	CodecJSON  Codec = 1 // canonical protobuf JSON
)

// Frame is one unit of the protocol.
type Frame struct {
	Flags  Flags
	Codec  Codec
	Cmd    im.Cmd    // 16 bits on the wire
	Status code.Code // 16 bits on the wire; with FlagResponse, 0 = ok, otherwise the body is an im.Error
	Seq    uint32    // chosen by who asks, echoed by the response
	Body   []byte
}

// ErrShort: the bytes end before the frame does.
var ErrShort = errors.New("frame is not complete")

// Append appends the encoded frame to dst.
func Append(dst []byte, f *Frame) []byte {
	return append(AppendHeader(dst, f, len(f.Body)), f.Body...)
}

// AppendHeader appends the header of a frame whose body, of bodyLen bytes, follows by
// other means. f.Body is not looked at.
func AppendHeader(dst []byte, f *Frame, bodyLen int) []byte {
	dst = append(dst, Magic, Version<<4|HeaderLen/4, byte(f.Flags), byte(f.Codec))
	dst = binary.BigEndian.AppendUint16(dst, uint16(f.Cmd))
	dst = binary.BigEndian.AppendUint16(dst, uint16(f.Status))
	dst = binary.BigEndian.AppendUint32(dst, f.Seq)
	return binary.BigEndian.AppendUint32(dst, uint32(bodyLen))
}

// Decode takes the first frame off b; Body aliases b, n is its length with the header.
// Nothing is allocated for a good frame, and a wrong one is noticed at its first wrong byte:
//
//   - ErrShort, n = 0: more bytes are needed.
//   - a *code.Error CloseProtocolError or CloseTooLarge (body over maxBody bytes), n = 0:
//     the stream cannot be followed any further.
//   - a *code.Error Unsupported, n > 0: this frame, compressed, encrypted or of an unknown
//     codec, cannot be read; f has its header, so that it can be answered.
func Decode(b []byte, maxBody int) (f Frame, n int, err error) {
	if len(b) > 0 && b[0] != Magic {
		return f, 0, code.Errorf(code.CloseProtocolError, "frame starts with %#02x instead of %#02x", b[0], Magic)
	}
	if len(b) > 1 && (b[1]>>4 != Version || b[1]&15 < HeaderLen/4) {
		return f, 0, code.Errorf(code.CloseProtocolError, "frame of version %d with a header of %d bytes", b[1]>>4, b[1]&15*4)
	}
	if len(b) < HeaderLen {
		return f, 0, ErrShort
	}
	body := binary.BigEndian.Uint32(b[12:])
	if uint64(body) > uint64(max(0, maxBody)) {
		return f, 0, code.Errorf(code.CloseTooLarge, "body of %d bytes, the limit is %d", body, maxBody)
	}
	header := int(b[1]&15) * 4
	n = header + int(body)
	if len(b) < n {
		return f, 0, ErrShort
	}
	f = Frame{
		Flags:  Flags(b[2]),
		Codec:  Codec(b[3]),
		Cmd:    im.Cmd(binary.BigEndian.Uint16(b[4:])),
		Status: code.Code(binary.BigEndian.Uint16(b[6:])),
		Seq:    binary.BigEndian.Uint32(b[8:]),
		Body:   b[header:n:n],
	}
	return f, n, readable(&f)
}

// readable refuses what this version cannot read. It clears the body of what it refuses.
func readable(f *Frame) error {
	var what string
	switch {
	case f.Flags&FlagCompressed != 0:
		what = "compressed"
	case f.Flags&FlagEncrypted != 0:
		what = "encrypted"
	case f.Codec > CodecJSON:
		f.Body = nil
		return code.Errorf(code.Unsupported, "codec %d", f.Codec)
	default:
		return nil
	}
	f.Body = nil
	return code.Errorf(code.Unsupported, "%s frames are not supported", what)
}
