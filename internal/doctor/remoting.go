package doctor

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Requests of RocketMQ's remoting protocol, as its RequestCode names them. The Go client has
// none of those that ask a broker for its settings.
const (
	getBrokerConfig  = 26
	getBrokerRuntime = 28
	getRoute         = 105
	getCluster       = 106
	getTopicConfig   = 351
	getGroups        = 201
)

// Answers.
const (
	answeredOK    = 0
	noPermission  = 16
	topicNotExist = 17
)

// remotingMost bounds an answer, in bytes.
const remotingMost = 16 << 20

// remoting is one connection to a name server or broker. It asks one thing at a time.
type remoting struct {
	conn   net.Conn
	opaque int
}

// remotingHeader is the header of a frame, in JSON.
type remotingHeader struct {
	Code     int               `json:"code"`
	Language string            `json:"language"`
	Version  int               `json:"version"`
	Opaque   int               `json:"opaque"`
	Flag     int               `json:"flag"`
	Remark   string            `json:"remark"`
	Fields   map[string]string `json:"extFields"`
}

// remotingError is an answer that is none.
type remotingError struct {
	code   int
	remark string
}

func (e *remotingError) Error() string { return fmt.Sprintf("answer %d: %s", e.code, e.remark) }

func dialRemoting(ctx context.Context, addr string) (*remoting, error) {
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &remoting{conn: conn}, nil
}

func (r *remoting) close() { _ = r.conn.Close() }

// ask sends a request and returns the body of its answer.
//
//	4 bytes length of what follows | 1 byte 0 = JSON, 3 bytes length of the header | header | body
func (r *remoting) ask(ctx context.Context, code int, fields map[string]string) ([]byte, error) {
	r.opaque++
	header, err := json.Marshal(remotingHeader{Code: code, Language: "JAVA", Version: 453, Opaque: r.opaque, Fields: fields})
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
	deadline := time.Now().Add(3 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := r.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := r.conn.Write(append(frame, header...)); err != nil {
		return nil, err
	}
	for {
		answer, body, err := readRemoting(r.conn)
		switch {
		case err != nil:
			return nil, err
		case answer.Opaque != r.opaque || answer.Flag&1 == 0:
			continue // not the answer: brokers ask things of their own
		case answer.Code != answeredOK:
			return nil, &remotingError{answer.Code, answer.Remark}
		}
		return body, nil
	}
}

func readRemoting(from io.Reader) (header remotingHeader, body []byte, err error) {
	var lengths [8]byte
	if _, err := io.ReadFull(from, lengths[:]); err != nil {
		return header, nil, err
	}
	whole := int(binary.BigEndian.Uint32(lengths[:4])) - 4
	kind, head := lengths[4], int(binary.BigEndian.Uint32(lengths[4:])&0xffffff)
	switch {
	case kind != 0:
		return header, nil, fmt.Errorf("frame of kind %d, want JSON", kind)
	case whole < head || whole > remotingMost:
		return header, nil, fmt.Errorf("frame of %d bytes with a header of %d", whole, head)
	}
	frame := make([]byte, whole)
	if _, err := io.ReadFull(from, frame); err != nil {
		return header, nil, err
	}
	if err := json.Unmarshal(frame[:head], &header); err != nil {
		return header, nil, errors.Join(errors.New("header of a frame"), err)
	}
	return header, frame[head:], nil
}
