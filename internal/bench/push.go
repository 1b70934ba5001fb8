package bench

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// Reading a PUSH by hand costs a fifth of decoding it whole, and the generator shares the
// machine with the server.

// change is what a receiver needs of one im.Conversation.
type change struct {
	version, lastSeq uint64
	messages         []received
}

// received is what it needs of one im.Message. data is valid as long as the frame.
type received struct {
	seq  uint64
	data []byte
}

var errPush = errors.New("malformed PUSH")

// parsePush calls visit for each change. The change is reused.
func parsePush(b []byte, c *change, visit func(epoch uint64, c *change)) error {
	var epoch uint64
	return fields(b, func(num protowire.Number, v uint64, raw []byte) error {
		switch num {
		case 1:
			epoch = v
		case 2:
			if err := parseChange(raw, c); err != nil {
				return err
			}
			visit(epoch, c)
		}
		return nil
	})
}

func parseChange(b []byte, c *change) error {
	c.version, c.lastSeq, c.messages = 0, 0, c.messages[:0]
	return fields(b, func(num protowire.Number, v uint64, raw []byte) error {
		switch num {
		case 2:
			c.version = v
		case 3:
			c.lastSeq = v
		case 14:
			m, err := parseMessage(raw)
			if err != nil {
				return err
			}
			c.messages = append(c.messages, m)
		}
		return nil
	})
}

func parseMessage(b []byte) (m received, err error) {
	err = fields(b, func(num protowire.Number, v uint64, raw []byte) error {
		switch num {
		case 2:
			m.seq = v
		case 7:
			m.data = raw
		}
		return nil
	})
	return m, err
}

// ack is what a sender needs of a SendAck.
type ack struct{ epoch, version uint64 }

func parseAck(b []byte) (a ack, err error) {
	err = fields(b, func(num protowire.Number, v uint64, _ []byte) error {
		switch num {
		case 5:
			a.epoch = v
		case 6:
			a.version = v
		}
		return nil
	})
	return a, err
}

// fields walks the varints and byte strings of a message, all that im uses.
func fields(b []byte, visit func(num protowire.Number, v uint64, raw []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errPush
		}
		b = b[n:]
		var v uint64
		var raw []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		default:
			n = -1
		}
		if n < 0 {
			return errPush
		}
		b = b[n:]
		if err := visit(num, v, raw); err != nil {
			return err
		}
	}
	return nil
}
