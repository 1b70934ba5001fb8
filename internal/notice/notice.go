// Package notice reads and makes the messages with which business systems speak through the
// queue: notices to one user (topic "system") and to everybody online (topic "online").
// docs/queue.md is their contract. A payload is protobuf (idl/event.proto), or the JSON
// object of the same fields under the names of the .proto, with bytes in base64.
package notice

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/internal/conv"
	"hongyan/internal/mq"
)

const (
	// maxID bounds the ids of notices, in bytes.
	maxID = 64
	// MaxText and MaxData bound an online notice, in bytes: it goes to everybody.
	MaxText = 4 << 10
	MaxData = 16 << 10
	// maxScope is how many platforms or classes a notice names.
	maxScope = 16
	// DefaultTTL is how long an online notice is of use that does not say it.
	DefaultTTL = time.Minute
	// maxTTL bounds it: nothing is kept for those who come later.
	maxTTL = 24 * time.Hour
)

// jsonStart tells the two forms apart: no message of event.proto begins with this byte.
const jsonStart = '{'

// System reads and checks a notice to one user. Its errors are BadRequest: it can never be
// carried out.
func System(payload []byte) (*event.SystemNotice, error) {
	n := new(event.SystemNotice)
	if len(payload) > 0 && payload[0] == jsonStart {
		var j systemJSON
		if err := decode(payload, &j); err != nil {
			return nil, code.Errorf(code.BadRequest, "not a notice: %w", err)
		}
		n = &event.SystemNotice{
			Tenant: j.Tenant, Channel: j.Channel, Uid: j.UID, ClientMsgId: j.ClientMsgID, Text: j.Text, Data: j.Data,
		}
	} else if err := n.Unmarshal(payload); err != nil {
		return nil, code.Errorf(code.BadRequest, "not a notice: %w", err)
	}
	if n.Tenant == "" {
		return nil, code.Errorf(code.BadRequest, "tenant is empty")
	}
	if n.ClientMsgId == "" || len(n.ClientMsgId) > maxID {
		return nil, code.Errorf(code.BadRequest, "client_msg_id has %d bytes, want 1 to %d", len(n.ClientMsgId), maxID)
	}
	if _, err := conv.System(n.Channel, n.Uid); err != nil {
		return nil, err
	}
	return n, nil
}

type systemJSON struct {
	Tenant      string `json:"tenant"`
	Channel     string `json:"channel"`
	UID         string `json:"uid"`
	ClientMsgID string `json:"client_msg_id"`
	Text        string `json:"text"`
	Data        []byte `json:"data"`
}

// Online reads and checks a notice to everybody online. Its errors are BadRequest.
func Online(payload []byte) (*event.OnlineNotice, error) {
	n := new(event.OnlineNotice)
	if len(payload) > 0 && payload[0] == jsonStart {
		var j onlineJSON
		if err := decode(payload, &j); err != nil {
			return nil, code.Errorf(code.BadRequest, "not a notice: %w", err)
		}
		n = &event.OnlineNotice{
			Id: j.ID, Tenant: j.Tenant, Platforms: j.Platforms, Classes: j.Classes,
			Text: j.Text, Data: j.Data, AtMs: j.AtMS, TtlMs: j.TTLMS,
		}
	} else if err := n.Unmarshal(payload); err != nil {
		return nil, code.Errorf(code.BadRequest, "not a notice: %w", err)
	}
	return n, check(n)
}

type onlineJSON struct {
	ID        string   `json:"id"`
	Tenant    string   `json:"tenant"`
	Platforms []string `json:"platforms"`
	Classes   []string `json:"classes"`
	Text      string   `json:"text"`
	Data      []byte   `json:"data"`
	AtMS      int64    `json:"at_ms"`
	TTLMS     int64    `json:"ttl_ms"`
}

func check(n *event.OnlineNotice) error {
	switch {
	case n.Tenant == "":
		return code.Errorf(code.BadRequest, "tenant is empty")
	case len(n.Id) > maxID:
		return code.Errorf(code.BadRequest, "id has %d bytes, the limit is %d", len(n.Id), maxID)
	case n.Text == "" && len(n.Data) == 0:
		return code.Errorf(code.BadRequest, "text and data are empty")
	case len(n.Text) > MaxText:
		return code.Errorf(code.BadRequest, "text has %d bytes, the limit is %d", len(n.Text), MaxText)
	case len(n.Data) > MaxData:
		return code.Errorf(code.BadRequest, "data has %d bytes, the limit is %d", len(n.Data), MaxData)
	case len(n.Platforms) > maxScope || len(n.Classes) > maxScope:
		return code.Errorf(code.BadRequest, "platforms and classes: at most %d each", maxScope)
	case n.TtlMs < 0 || n.TtlMs > maxTTL.Milliseconds():
		return code.Errorf(code.BadRequest, "ttl_ms must be 0 to %d", maxTTL.Milliseconds())
	}
	return nil
}

// Message makes the message that brings an online notice to every gateway. It gives the
// notice a time, and an id where it has none.
func Message(n *event.OnlineNotice) (mq.Message, error) {
	if err := check(n); err != nil {
		return mq.Message{}, err
	}
	n.AtMs = time.Now().UnixMilli()
	n.Id = cmp.Or(n.Id, uuid.Must(uuid.NewV7()).String())
	payload, err := n.Marshal(nil)
	if err != nil {
		return mq.Message{}, fmt.Errorf("encode notice: %w", err)
	}
	return mq.Message{Topic: mq.TopicOnline, Key: n.Tenant, Payload: payload}, nil
}

// Until is when an online notice is of no use any more; zero = it does not say when it began.
func Until(n *event.OnlineNotice) time.Time {
	if n.AtMs == 0 {
		return time.Time{}
	}
	ttl := cmp.Or(time.Duration(n.TtlMs)*time.Millisecond, DefaultTTL)
	return time.UnixMilli(n.AtMs).Add(ttl)
}

// JSON shows the payload of a topic's message to people, as far as it can be read.
func JSON(topic string, payload []byte) json.RawMessage {
	var shown any
	switch topic {
	case mq.TopicSystem:
		if n, err := System(payload); err == nil {
			shown = systemJSON{n.Tenant, n.Channel, n.Uid, n.ClientMsgId, n.Text, n.Data}
		}
	case mq.TopicOnline:
		if n, err := Online(payload); err == nil {
			shown = onlineJSON{n.Id, n.Tenant, n.Platforms, n.Classes, n.Text, n.Data, n.AtMs, n.TtlMs}
		}
	case mq.TopicOffline:
		var o event.Offline
		if o.Unmarshal(payload) == nil && o.Uid != "" {
			shown = offlineJSON{o.Tenant, o.Uid, o.Epoch, o.Version, o.Conv, o.Seq, o.AtMs}
		}
	}
	if shown == nil {
		shown = struct {
			Bytes []byte `json:"bytes"` // base64
		}{payload}
	}
	out, _ := json.Marshal(shown) // strings, numbers and bytes: cannot fail
	return out
}

type offlineJSON struct {
	Tenant  string `json:"tenant"`
	UID     string `json:"uid"`
	Epoch   uint64 `json:"epoch"`
	Version uint64 `json:"version"`
	Conv    string `json:"conv"`
	Seq     uint64 `json:"seq"`
	AtMS    int64  `json:"at_ms"`
}

func decode(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("something follows the object")
	}
	return nil
}
