package httpentry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"hongyan/idl/code"
)

func newAssembler(limit int) *assembler { return &assembler{limit: func() int { return limit }} }

// collect feeds b in pieces of step bytes and returns what came out.
func collect(limit int, b []byte, step int) (messages []string, in *assembler, err error) {
	in = newAssembler(limit)
	for b = bytes.Clone(b); len(b) > 0 && err == nil; {
		n := min(step, len(b))
		err = in.feed(b[:n], func(op ws.OpCode, payload []byte) error {
			messages = append(messages, fmt.Sprintf("%d:%s", op, payload))
			return nil
		})
		b = b[n:]
	}
	return messages, in, err
}

func masked(op ws.OpCode, fin bool, payload string) []byte {
	var b bytes.Buffer
	_ = ws.WriteFrame(&b, ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload))))
	return b.Bytes()
}

func TestAssemblerInPiecesOfAnySize(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	stream := bytes.Join([][]byte{
		masked(ws.OpText, true, "one"),
		masked(ws.OpBinary, false, "t"), masked(ws.OpPing, true, "p"), masked(ws.OpContinuation, true, "wo"),
		masked(ws.OpText, true, ""), masked(ws.OpBinary, true, long), masked(ws.OpClose, true, "\x03\xe8"),
	}, nil)
	want := fmt.Sprint([]string{"1:one", "9:p", "2:two", "1:", "2:" + long, "8:\x03\xe8"})
	for _, step := range []int{1, 2, 3, 7, 1000, len(stream)} {
		got, in, err := collect(100_000, stream, step)
		if err != nil || fmt.Sprint(got) != want {
			t.Fatalf("step %d: %d messages, %v", step, len(got), err)
		}
		if in.waiting() || in.partial != nil || in.message != nil {
			t.Fatalf("step %d: something is kept between messages", step)
		}
	}
}

func TestAssemblerLimitsWholeMessages(t *testing.T) {
	stream := append(masked(ws.OpText, false, "12345"), masked(ws.OpContinuation, true, "678")...)
	if _, _, err := collect(8, stream, 1); err != nil {
		t.Error(err)
	}
	if _, _, err := collect(7, stream, 1); code.Of(err) != code.CloseTooLarge {
		t.Errorf("%v", err)
	}
	// Refused by its header, before a byte of it is waited for.
	if _, _, err := collect(7, masked(ws.OpText, true, "12345678")[:2+4], 1); code.Of(err) != code.CloseTooLarge {
		t.Errorf("%v", err)
	}
}

func TestCloseFrames(t *testing.T) {
	reason := strings.Repeat("鸿", 100)
	frame := appendClose(nil, 4402, reason)
	if frame[0] != 0x88 || int(frame[1]) != len(frame)-2 || len(frame) > 127 || string(frame[4:]) != strings.Repeat("鸿", 41) {
		t.Errorf("%d bytes: %q", len(frame), frame)
	}
	for payload, want := range map[string]ws.StatusCode{"": 1000, "\x03\xe8": 1000, "\x03\xe9gone": 1001, "\x11\x32": 4402} {
		if got, err := closeStatus([]byte(payload)); got != want || err != nil {
			t.Errorf("%q: %d, %v", payload, got, err)
		}
	}
}

// FuzzAssembler: however the bytes are cut, the same messages come out and the same error;
// nothing is over the limit.
func FuzzAssembler(f *testing.F) {
	f.Add(masked(ws.OpText, true, "hello"), 1)
	f.Add(append(masked(ws.OpBinary, false, "a"), masked(ws.OpContinuation, true, "b")...), 3)
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5}, 2)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		const limit = 64
		step = max(1, step%32)
		once, _, err1 := collect(limit, b, max(1, len(b)))
		pieces, in, err2 := collect(limit, b, step)
		if fmt.Sprint(once) != fmt.Sprint(pieces) || fmt.Sprint(err1) != fmt.Sprint(err2) {
			t.Fatalf("at once %q, %v; in steps of %d %q, %v", once, err1, step, pieces, err2)
		}
		for _, m := range once {
			if len(m) > max(limit, ws.MaxControlFramePayloadSize)+3 {
				t.Fatalf("a message of %d bytes", len(m))
			}
		}
		if len(in.partial) > limit+14+ws.MaxControlFramePayloadSize {
			t.Fatalf("%d bytes are kept", len(in.partial))
		}
		var known *wsError
		if err1 != nil && !errors.As(err1, &known) && code.Of(err1) != code.CloseTooLarge {
			t.Fatal(err1)
		}
	})
}
