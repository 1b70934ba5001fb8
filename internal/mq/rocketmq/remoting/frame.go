package remoting

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 16 << 20

// header of a frame. Servers take language and version for a client's: with these they answer
// as they do to the Go client that makes all other requests.
type header struct {
	Code     int               `json:"code"`
	Language string            `json:"language"`
	Version  int               `json:"version"`
	Opaque   int               `json:"opaque"`
	Flag     int               `json:"flag"`
	Remark   string            `json:"remark"`
	Fields   map[string]string `json:"extFields"`
}

const (
	language = "GO"
	version  = 317
)

// isAnswer is the bit of a flag.
const isAnswer = 1

func encode(r *Request, opaque int, keys Keys) ([]byte, error) {
	head, err := json.Marshal(header{
		Code: r.Code, Language: language, Version: version, Opaque: opaque, Fields: keys.sign(r.Fields, r.Body),
	})
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(head)+len(r.Body)))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(head)))
	return append(append(frame, head...), r.Body...), nil
}

// sign adds the signature of RocketMQ's ACL: the values in the order of their names, then the
// body.
func (k Keys) sign(fields map[string]string, body []byte) map[string]string {
	if k.Access == "" {
		return fields
	}
	out := maps.Clone(fields)
	if out == nil {
		out = map[string]string{}
	}
	out["AccessKey"] = k.Access
	mac := hmac.New(sha1.New, []byte(k.Secret))
	for _, name := range slices.Sorted(maps.Keys(out)) {
		mac.Write([]byte(out[name]))
	}
	mac.Write(body)
	out["Signature"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return out
}

func read(r io.Reader) (h header, body []byte, err error) {
	var sizes [8]byte
	if _, err := io.ReadFull(r, sizes[:]); err != nil {
		return h, nil, err
	}
	size, head := binary.BigEndian.Uint32(sizes[:4]), binary.BigEndian.Uint32(sizes[4:])
	if form := head >> 24; form != 0 {
		return h, nil, fmt.Errorf("header of form %d, want JSON", form)
	}
	if size < 4 || size > maxAnswer || head > size-4 {
		return h, nil, fmt.Errorf("%d bytes with a header of %d", size, head)
	}
	rest := make([]byte, size-4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(rest[:head], &h); err != nil {
		return h, nil, fmt.Errorf("header: %w", err)
	}
	return h, rest[head:], nil
}

// bareKey is how the servers write numeric keys of objects: without quotes.
var bareKey = regexp.MustCompile(`([{,])(\d+):`)

// Decode reads the JSON of a body, of which the servers have a dialect.
func Decode(body []byte, into any) error {
	return json.Unmarshal(bareKey.ReplaceAll(body, []byte(`$1"$2":`)), into)
}

// Addrs are the addresses of a broker by its id; "0" is the primary.
type Addrs map[string]string

// Brokers reads the answer to GetCluster: the brokers by name.
func Brokers(body []byte) (map[string]Addrs, error) {
	var cluster struct {
		Brokers map[string]struct {
			Addrs Addrs `json:"brokerAddrs"`
		} `json:"brokerAddrTable"`
	}
	if err := Decode(body, &cluster); err != nil {
		return nil, fmt.Errorf("brokers: %w", err)
	}
	brokers := make(map[string]Addrs, len(cluster.Brokers))
	for name, b := range cluster.Brokers {
		brokers[name] = b.Addrs
	}
	return brokers, nil
}
