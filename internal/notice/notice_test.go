package notice

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hongyan/idl/code"
	"hongyan/idl/event"
	"hongyan/internal/mq"
)

func TestZZ09BothFormsSayTheSame(t *testing.T) {
	want := event.SystemNotice{Tenant: "demo", Channel: "orders", Uid: "alice", ClientMsgId: "shipped-o1", Text: "on its way", Data: []byte(`{"o":1}`)}
	asProto, err := want.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	asJSON := `{"tenant":"demo","channel":"orders","uid":"alice","client_msg_id":"shipped-o1","text":"on its way","data":"eyJvIjoxfQ=="}`
	for _, payload := range [][]byte{asProto, []byte(asJSON)} {
		n, err := System(payload)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := n.Marshal(nil)
		if !slices.Equal(again, asProto) {
			t.Errorf("got %+v", n)
		}
		if shown := string(JSON(mq.TopicSystem, payload)); shown != asJSON {
			t.Errorf("shown as %s", shown)
		}
	}
	o, err := Online([]byte(`{"id":"n1","tenant":"demo","platforms":["ios"],"classes":["mobile"],"text":"x","data":"e30=","at_ms":1000,"ttl_ms":5}`))
	if err != nil || o.Id != "n1" || o.Platforms[0] != "ios" || o.Classes[0] != "mobile" || string(o.Data) != "{}" {
		t.Errorf("%+v, %v", o, err)
	}
	if at := Until(o); !at.Equal(time.UnixMilli(1005)) {
		t.Errorf("until %s", at)
	}
	m, err := Message(&event.OnlineNotice{Tenant: "demo", Text: "x"})
	if o, err2 := Online(m.Payload); err != nil || err2 != nil || m.Topic != mq.TopicOnline || o.Id == "" || time.Until(Until(o)) < DefaultTTL/2 {
		t.Errorf("%+v, %v, %v", o, err, err2)
	}
}

func TestWhatCanNeverBeToldIsABadRequest(t *testing.T) {
	system := map[string]string{
		"nothing":       "",
		"no JSON":       "{",
		"more":          `{"tenant":"demo","channel":"o","uid":"a","client_msg_id":"1"} x`,
		"unknown field": `{"tenant":"demo","channel":"o","uid":"a","client_msg_id":"1","to":"b"}`,
		"no tenant":     `{"channel":"o","uid":"a","client_msg_id":"1"}`,
		"no id":         `{"tenant":"demo","channel":"o","uid":"a"}`,
		"long id":       `{"tenant":"demo","channel":"o","uid":"a","client_msg_id":"` + strings.Repeat("x", 65) + `"}`,
		"bad uid":       `{"tenant":"demo","channel":"o","uid":"a b","client_msg_id":"1"}`,
		"bad base64":    `{"tenant":"demo","channel":"o","uid":"a","client_msg_id":"1","data":"?"}`,
		"garbage":       "\xff\xff",
	}
	for name, payload := range system {
		if _, err := System([]byte(payload)); code.Of(err) != code.BadRequest {
			t.Errorf("system, %s: %v", name, err)
		}
	}
	online := map[string]string{
		"nothing":   "",
		"empty":     `{"tenant":"demo"}`,
		"no tenant": `{"text":"x"}`,
		"long text": `{"tenant":"demo","text":"` + strings.Repeat("x", MaxText+1) + `"}`,
		"bad ttl":   `{"tenant":"demo","text":"x","ttl_ms":-1}`,
	}
	for name, payload := range online {
		if _, err := Online([]byte(payload)); code.Of(err) != code.BadRequest {
			t.Errorf("online, %s: %v", name, err)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add([]byte(`{"tenant":"demo","channel":"o","uid":"a","client_msg_id":"1"}`))
	f.Add([]byte(`{"tenant":"demo","text":"x","platforms":["ios"]}`))
	f.Add([]byte{0x0a, 1, 'd', 0x12, 1, 'o', 0x1a, 1, 'a', 0x22, 1, '1'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := System(b); err == nil {
			if again, err := n.Marshal(nil); err != nil {
				t.Errorf("%+v: %v", n, err)
			} else if _, err := System(again); err != nil {
				t.Errorf("%+v came back as %v", n, err)
			}
		}
		_, _ = Online(b)
		for _, topic := range []string{mq.TopicOffline, mq.TopicSystem, mq.TopicOnline, "other"} {
			_ = JSON(topic, b)
		}
	})
}
