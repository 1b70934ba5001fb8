package remoting

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"
)

// peer serves one connection: it answers a request with the frames of reply.
func peer(t *testing.T, reply func(h header, body []byte) [][]byte) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			h, body, err := read(conn)
			if err != nil {
				return
			}
			for _, frame := range reply(h, body) {
				_, _ = conn.Write(frame)
			}
		}
	}()
	return l.Addr().String()
}

func frame(form byte, head, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(head)+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(form)<<24|uint32(len(head)))
	return append(append(b, head...), body...)
}

func answer(t *testing.T, h header, body string) []byte {
	t.Helper()
	head, err := json.Marshal(h)
	if err != nil {
		t.Error(err)
	}
	return frame(0, string(head), body)
}

func TestAnswerIsTheOneToTheRequest(t *testing.T) {
	addr := peer(t, func(h header, _ []byte) [][]byte {
		return [][]byte{
			answer(t, header{Code: 40, Opaque: h.Opaque}, "a request of the broker's own"),
			answer(t, header{Opaque: h.Opaque - 1, Flag: isAnswer}, "an answer to another"),
			answer(t, header{Code: h.Code, Opaque: h.Opaque, Flag: isAnswer, Remark: "line\nstack", Fields: h.Fields}, "it"),
		}
	})
	c, err := Dial(t.Context(), addr, Keys{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, code := range []int{OK, PullMoved} {
		a, err := c.Call(t.Context(), &Request{Code: code, Fields: map[string]string{"k": "v"}}, PullMoved)
		if err != nil || a.Code != code || string(a.Body) != "it" || a.Fields["k"] != "v" {
			t.Errorf("%d: %+v, %v", code, a, err)
		}
	}
	_, err = c.Call(t.Context(), &Request{Code: TopicNotExist})
	if e, is := errors.AsType[*Error](err); !is || e.Code != TopicNotExist || err.Error() != "answer 17: line" {
		t.Errorf("%v", err)
	}
}

func TestRequestsAreSigned(t *testing.T) {
	addr := peer(t, func(h header, body []byte) [][]byte {
		return [][]byte{answer(t, header{Opaque: h.Opaque, Flag: isAnswer, Fields: h.Fields}, string(body))}
	})
	a, err := Call(t.Context(), addr, Keys{"rocketmq", "12345678"}, &Request{Code: 1, Fields: map[string]string{"b": "2", "a": "1"}, Body: []byte("body")})
	if err != nil {
		t.Fatal(err)
	}
	// printf rocketmq12body | openssl dgst -sha1 -hmac 12345678 -binary | base64
	if got, want := a.Fields["Signature"], "sRyTRHwGTRYwLhHUDiX8UysledE="; got != want || a.Fields["AccessKey"] != "rocketmq" {
		t.Errorf("%v, want %s", a.Fields, want)
	}
}

func TestCallEndsWithItsTime(t *testing.T) {
	addr := peer(t, func(header, []byte) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Call(ctx, addr, Keys{}, &Request{}); err == nil {
		t.Error("no answer, no error")
	}
}

func TestBrokersOfADialectOfJSON(t *testing.T) {
	got, err := Brokers([]byte(`{"brokerAddrTable":{"b":{"brokerAddrs":{0:"a:1",1:"a:2"}}},"clusterAddrTable":{}}`))
	if err != nil || got["b"]["0"] != "a:1" || got["b"]["1"] != "a:2" {
		t.Errorf("%v, %v", got, err)
	}
}

// Bytes of a server that is none end in an error.
func FuzzRead(f *testing.F) {
	f.Add(frame(0, `{"code":0,"flag":1,"opaque":1}`, "a=b\nc=d"))
	f.Add(frame(1, `x`, ""))
	f.Add(frame(0, `{"code":"x"}`, ""))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, err := read(bytes.NewReader(b))
		if err == nil && len(body) > len(b) {
			t.Errorf("a body of %d bytes out of %d", len(body), len(b))
		}
		_, _ = Brokers(body)
	})
}
